"""From logits to tokens, confidences and the signals a pass was asked for. Stays on the device."""

import numpy as np
import torch

from vllm_dllm.messages import Readout, StepObservation

CHUNK = 64  # lines that are sampled at once: float64 noise for a large vocabulary takes room


class Reader:
    """Reads logits [N, vocabulary], one line for each position that is read.

    `sampler` says how the model's authors draw tokens at a temperature: `gumbel` (LLaDA) or
    `categorical` (Dream). `mask_id` is never chosen: a position unmasked to the mask token would stay
    masked.
    """

    def __init__(self, sampler: str, mask_id: int):
        self.sample = {"gumbel": sample_gumbel, "categorical": sample_categorical}[sampler]
        self.mask_id = mask_id

    def read(self, logits: torch.Tensor, read_starts: np.ndarray, readouts: list[Readout]) -> StepObservation:
        """`logits`: [N, vocabulary], overwritten; request i has lines read_starts[i] to read_starts[i + 1]."""
        logits = logits.float()
        broken = self._set_aside(logits)
        parts = _groups(read_starts, readouts)
        tokens = logits.new_empty(len(logits), dtype=torch.int64)
        values = logits.new_zeros(3, len(logits))  # confidence, margin, entropy
        doubles = logits.new_zeros(len(logits), dtype=torch.float64) if any(r.confidence64 for r in readouts) else None
        logprobs: dict[int, tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = {}
        for start, stop, first, readout in parts:
            for low in range(start, stop, CHUNK):
                lines = slice(low, min(low + CHUNK, stop))
                self._read_lines(logits[lines], low - start, readout, tokens[lines], values[:, lines])
                if readout.confidence64:
                    assert doubles is not None
                    probs = torch.softmax(logits[lines].double(), -1)
                    doubles[lines] = probs.gather(-1, tokens[lines, None])[:, 0]
            if readout.logprobs is not None:
                logprobs[first] = top_logprobs(logits[start:stop], tokens[start:stop], readout.logprobs)
        wants_margin = any(r.margin for r in readouts)
        wants_entropy = any(r.entropy for r in readouts)
        tokens_host, values_host = tokens.to(torch.int32).cpu().numpy(), values.cpu().numpy()
        return StepObservation(
            tokens=tokens_host,
            confidence=values_host[0],
            margin=values_host[1] if wants_margin else None,
            entropy=values_host[2] if wants_entropy else None,
            confidence64=None if doubles is None else doubles.cpu().numpy(),
            logprobs={i: tuple(t.cpu().numpy() for t in part) for i, part in logprobs.items()},
            broken=_places(broken),
            vocab_size=logits.shape[-1],
        )

    def _set_aside(self, logits: torch.Tensor) -> torch.Tensor:
        """Which lines have no finite best token (NaN, an infinity, nothing but the mask token): a boolean for each.

        They become zeros, so that whatever is read of them is a number; their requests are not answered with it.
        """
        mask = logits[:, self.mask_id].clone()
        logits[:, self.mask_id] = -torch.inf
        best = logits.amax(-1)  # NaN if there is one
        logits[:, self.mask_id] = mask
        broken = ~(best.isfinite() & torch.maximum(best, mask).isfinite())
        if logits.device.type != "cpu" or broken.any():  # to look costs little there, much elsewhere
            logits.masked_fill_(broken[:, None], 0)
        return broken

    def _read_lines(
        self, logits: torch.Tensor, skip: int, readout: Readout, tokens: torch.Tensor, values: torch.Tensor
    ) -> None:
        if readout.temperature > 0:
            token, probs = self.sample(logits, skip, readout, self.mask_id)
        else:
            probs = torch.softmax(logits, -1)
            token = without(logits, self.mask_id).argmax(-1)
        tokens.copy_(token)
        values[0] = probs.gather(-1, token[:, None])[:, 0]
        if readout.margin:
            best = probs.topk(2, -1).values
            values[1] = best[:, 0] - best[:, 1]
        if readout.entropy:
            # Dream's and d2Cache's epsilon, which keeps log(0) out
            values[2] = -(probs * torch.log(probs + 1e-10)).sum(-1)


def _places(flags: torch.Tensor) -> np.ndarray | None:
    found = np.flatnonzero(flags.cpu().numpy())
    return found if len(found) else None


def _groups(read_starts: np.ndarray, readouts: list[Readout]) -> list[tuple[int, int, int, Readout]]:
    """(start, stop, first request, readout): neighbours that read the same greedily are read at once."""
    groups: list[tuple[int, int, int, Readout]] = []
    for i, readout in enumerate(readouts):
        start, stop = int(read_starts[i]), int(read_starts[i + 1])
        alone = readout.temperature > 0 or readout.logprobs is not None
        if groups and not alone and groups[-1][3] == readout:
            groups[-1] = (groups[-1][0], stop, groups[-1][2], readout)
        else:
            groups.append((start, stop, i, readout))
    return groups


def without(logits: torch.Tensor, mask_id: int) -> torch.Tensor:
    """The logits with the mask token out of the question. A copy."""
    logits = logits.clone()
    logits[:, mask_id] = -torch.inf
    return logits


def keep_top(logits: torch.Tensor, top_k: int, top_p: float) -> torch.Tensor:
    """The logits with all tokens outside top-k and top-p at -inf; the most likely one always stays."""
    if top_p < 1:
        order = logits.sort(descending=True)
        before = order.values.softmax(-1).cumsum(-1) - order.values.softmax(-1)
        drop = torch.zeros_like(before, dtype=torch.bool).scatter(-1, order.indices, before > top_p)
        logits = logits.masked_fill(drop, -torch.inf)
    if 0 < top_k < logits.shape[-1]:
        logits = logits.masked_fill(logits < logits.topk(top_k, -1).values[:, -1:], -torch.inf)
    return logits


def _generator(readout: Readout, skip: int, device: torch.device) -> torch.Generator:
    """This pass's generator, for the lines from `skip` on: the draw depends on nothing else in the batch."""
    return torch.Generator(device).manual_seed((readout.seed + skip) % 2**63)


def sample_gumbel(logits: torch.Tensor, skip: int, readout: Readout, mask_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """LLaDA: Gumbel noise in float64 (arXiv:2409.02908); confidence from the noise-free distribution."""
    probs = torch.softmax(logits, -1)
    kept = keep_top(without(logits, mask_id) / readout.temperature, readout.top_k, readout.top_p).double()
    noise = torch.empty_like(kept).uniform_(generator=_generator(readout, skip, logits.device))
    # the order of exp(logits) / (-log u) ** temperature, without its overflow
    token = (kept - torch.log(-torch.log(noise))).argmax(-1)
    return token, probs


def sample_categorical(
    logits: torch.Tensor, skip: int, readout: Readout, mask_id: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Dream: the tempered, top-p and top-k filtered distribution; confidence from the same."""
    kept = keep_top(without(logits, mask_id) / readout.temperature, readout.top_k, readout.top_p)
    probs = torch.softmax(kept, -1)
    return torch.multinomial(probs, 1, generator=_generator(readout, skip, logits.device))[:, 0], probs


def top_logprobs(
    logits: torch.Tensor, tokens: torch.Tensor, count: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """ids and log probabilities [lines, 1 + count] (the chosen token first), and the chosen token's rank [lines]."""
    logprobs = logits.log_softmax(-1)
    chosen = logprobs.gather(-1, tokens[:, None])
    best = logprobs.topk(logits.shape[-1] if count < 0 else count, -1)
    ids = torch.cat((tokens[:, None], best.indices), -1).to(torch.int32)
    return ids, torch.cat((chosen, best.values), -1), (logprobs >= chosen).sum(-1)
