"""Partial passes on a plain dense model: what the engine does, without the engine.

The bundled checkpoints' plain model (checkpoints/train.py) with keys and values kept for every canvas
position. A pass computes the query positions, overwrites their keys and values layer by layer before
attention, and attends to the whole canvas. Float32, one request at a time.
"""

import functools
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from common import CHECKPOINTS, EOS, MASK
from train import load, rope

from vllm_dllm.constraints import Constraint
from vllm_dllm.constraints.banned import Banned
from vllm_dllm.decoding import Decoding, Sampling
from vllm_dllm.given_text import NO_TEXT, GivenText
from vllm_dllm.settings import ModelTraits, resolve
from vllm_dllm.worker.readout import Reader

torch.set_num_threads(1)  # a pass is too small to share: threads would only wait for each other

TRAITS = {"tiny-llada": ModelTraits(MASK, 0, "llada"), "tiny-dream": ModelTraits(MASK, -1, "dream")}
SAMPLER = {"tiny-llada": "gumbel", "tiny-dream": "categorical"}


@functools.cache
def model(name: str):
    return load(CHECKPOINTS / name)


class DenseCanvas:
    """One request's keys and values: per layer [heads, length, head size], NaN where nothing was computed."""

    def __init__(self, net, length: int):
        self.net = net
        heads, size = net.c["kv"], net.c["d"] // net.c["heads"]
        self.keys = torch.full((len(net.layers), heads, length, size), torch.nan)
        self.values = self.keys.clone()

    @torch.inference_mode()
    def forward(self, tokens: np.ndarray, queries: np.ndarray, end: int) -> torch.Tensor:
        """Logits [queries, vocabulary] of the query positions (ascending), whose ids are `tokens`.

        They attend to the canvas up to `end`.
        """
        net, at = self.net, torch.from_numpy(queries.astype(np.int64))
        x = net.emb(torch.from_numpy(tokens.astype(np.int64)))
        cos, sin = net.cos[at], net.sin[at]
        for i, layer in enumerate(net.layers):
            h = layer.n1(x)
            q, k, v = (p(h).view(len(at), -1, layer.hd).transpose(0, 1) for p in (layer.q, layer.k, layer.v))
            self.keys[i][:, at] = rope(k, cos, sin)
            self.values[i][:, at] = v
            attended = F.scaled_dot_product_attention(
                rope(q, cos, sin)[None],
                self.keys[i][None, :, :end],
                self.values[i][None, :, :end],
                enable_gqa=q.shape[0] != k.shape[0],
            )[0]
            x = x + layer.o(attended.transpose(0, 1).flatten(1))
            h = layer.n2(x)
            x = x + layer.down(F.silu(layer.gate(h)) * layer.up(h))
        return net.head(net.norm(x))


def new_decoding(
    name: str,
    prompt_ids: list[int],
    gen_length: int,
    settings: dict,
    text: GivenText = NO_TEXT,
    constraints: Sequence[Constraint] = (),
    **sampling,
) -> Decoding:
    """With `dllm_suppress_eos` the EOS is barred as the engine bars it."""
    traits = TRAITS[name]
    if settings.get("dllm_suppress_eos"):
        constraints = [*constraints, Banned([EOS], "dllm_suppress_eos")]
    more = {"text": text, "constraints": constraints, "recorded": True, "ends": [EOS]}
    return Decoding(prompt_ids, gen_length, resolve({}, settings, traits), Sampling(**sampling), traits, **more)


def decode(
    name: str, prompt_ids: list[int], gen_length: int, settings: dict, stop_at_eos: bool = False, **sampling
) -> Decoding:
    """A request decoded whole, or to the EOS that ends its final prefix. The page ledger is checked after each pass."""
    decoding = new_decoding(name, prompt_ids, gen_length, settings, **sampling)
    run(name, decoding, stop_at_eos)
    return decoding


def run(name: str, decoding: Decoding, stop_at_eos: bool = False, change=(None, None)) -> None:
    """Decode. `change`: the number of a pass, and the model from which it, whole, and all behind it are."""
    traits = TRAITS[name]
    canvas, dense = decoding.canvas, DenseCanvas(model(name), decoding.canvas.length)
    other = DenseCanvas(model(name), canvas.length)  # with guidance, the one whose prompt is masked
    reader = Reader(SAMPLER[name], MASK)
    while not canvas.done and not (stop_at_eos and EOS in canvas.response[: canvas.final]):
        planned = decoding.plan()
        if planned.number == change[0]:
            planned, dense.net = decoding.redo(), change[1]
        assert planned.queries.max() < planned.end == canvas.end
        places = np.searchsorted(planned.queries, planned.rows)
        logits = dense.forward(planned.token_ids, planned.queries, planned.end)[torch.from_numpy(places)]
        assert (planned.queries[places] == planned.reads + traits.row_shift).all(), "a row is not computed"
        if planned.second is not None:
            part = planned.second
            assert (
                np.where(part.queries < canvas.prompt_len, MASK, canvas.tokens[part.queries]) == part.token_ids
            ).all()
            without = other.forward(part.token_ids, part.queries, part.end)[
                torch.from_numpy(np.searchsorted(part.queries, part.rows))
            ]
            logits = without + (part.scale + 1) * (logits - without)
        count = len(planned.reads)
        edits = {} if planned.edits is None else {0: planned.edits}
        seen = reader.read(logits.__getitem__, np.asarray([0, count]), [planned.readout], edits)
        decoding.finish(planned, seen.of_request(0, 0, count, planned.reads))
        for pages in decoding.ledgers:
            pages.check_integrity()
