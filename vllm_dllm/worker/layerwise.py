"""A forward that goes layer by layer, for the passes whose policies look into the attention.

Elastic-Cache decides inside the pass: a request whose tracked tokens' attention has drifted at layer l
computes its whole canvas from layer l + 1 on, each request at its own layer or not at all:

    layer          0    1    2    3
    request a      37   37   84   84     drifted at layer 1
    request b      29   29   29   29     did not drift
    request c      16   16   16   16     another policy

d2Cache's rollout goes from the last layer to the first. It is computed when the pass is done: from the
queries of every layer, which are kept, and the keys, which are in the pages.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack

import numpy as np
import torch
from torch import nn

from vllm_dllm.attention_maps.keys import check_keys, key_scale, paged_keys
from vllm_dllm.attention_maps.rows import Rows
from vllm_dllm.attention_maps.statistics import (
    as_on_first_rank,
    column_mass,
    implementation,
    rollout_importance,
    similarity,
)
from vllm_dllm.batch import Batch, Signals

Positions = dict[int, np.ndarray]  # of some requests, by their places in the batch: canvas positions, ascending


class LayerwiseForward:
    """Runs a batch through the model's layers one at a time.

    `hidden_cache` is [layers, KV slots, hidden size], the input of every layer at every position when it
    was last computed; None if no policy that needs it is served. Raises ValueError if keys cannot be read
    from this attention backend's pages.
    """

    def __init__(
        self,
        model: nn.Module,
        page_size: int,
        device: torch.device,
        forward_context: Callable[[Batch], AbstractContextManager],
        hidden_cache: torch.Tensor | None,
    ):
        self.model = model.model
        self.page_size = page_size
        self.device = device
        self.forward_context = forward_context
        self.hidden_cache = hidden_cache
        self.attention = implementation(device)
        check_keys(self.model.layers[0].self_attn.attn, self.model.norm.weight.dtype)

    def __call__(self, batch: Batch) -> tuple[torch.Tensor, np.ndarray, Signals]:
        """Hidden states [T'] after the last norm, the places of `batch.rows` in them, and the signals."""
        read = _read_positions(batch)
        elastic = _Elastic(self, batch, read) if batch.drift else None
        rollout = _Rollout(self, batch) if batch.rollout else None
        hidden = self.model.embed_input_ids(self.tensor(batch.token_ids))
        now, positions = batch, self.tensor(batch.positions)
        with ExitStack() as context:
            context.enter_context(self.forward_context(now))
            for number, layer in enumerate(self.model.layers):
                if elastic:
                    elastic.before(number, layer, hidden)
                hidden, query = _run(layer, positions, hidden)
                if rollout:
                    rollout.keep(layer, query)
                drifted = elastic.after(layer, query) if elastic else []
                if elastic and drifted and number + 1 < len(self.model.layers):
                    hidden, now = self._expand(number + 1, now, hidden, drifted)
                    positions = self.tensor(now.positions)
                    context.close()
                    context.enter_context(self.forward_context(now))
                    elastic.place(now)
                    if rollout:
                        rollout.place(now)
        signals = Signals()
        if elastic:
            signals.layer_tokens, signals.tracked = elastic.layer_tokens, elastic.tracked_next()
        if rollout:
            signals.importance = rollout.importance()
        return self.model.norm(hidden), _places(now, read), signals

    def _expand(self, number: int, now: Batch, hidden: torch.Tensor, drifted: list[int]) -> tuple[torch.Tensor, Batch]:
        """The batch in which the drifted requests compute their whole canvas from layer `number` on."""
        assert self.hidden_cache is not None
        queries = np.split(now.positions, now.query_starts[1:-1])
        parts = list(torch.split(hidden, np.diff(now.query_starts).tolist()))
        for i in drifted:
            whole = np.arange(now.canvas_lens[i], dtype=np.int32)
            inputs = self.hidden_cache[number][self.slots(now, {i: whole})]  # a copy
            inputs[self.tensor(queries[i])] = parts[i]
            queries[i], parts[i] = whole, inputs
        starts = np.cumsum([0] + [len(q) for q in queries]).astype(np.int32)
        return torch.cat(parts), now.with_queries(np.concatenate(queries), starts)

    def rows(self, batch: Batch, positions: Positions) -> Rows:
        of = list(positions)
        counts = [len(p) for p in positions.values()]
        return Rows(counts, batch.canvas_lens[of], batch.block_table[of], self.page_size, self.device)

    def places(self, batch: Batch, positions: Positions) -> torch.Tensor:
        return self.tensor(_places(batch, positions))

    def slots(self, batch: Batch, positions: Positions) -> torch.Tensor:
        """Where the hidden cache has the positions."""
        parts = [(i, *np.divmod(p, self.page_size)) for i, p in positions.items()]
        slots = [batch.block_table[i, page].astype(np.int64) * self.page_size + place for i, page, place in parts]
        return self.tensor(np.concatenate(slots))

    def tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array.astype(np.int64)).to(self.device, non_blocking=True)


class _Elastic:
    """Elastic-Cache (arXiv:2510.14973) in one pass: the drift tests, and what is to be tracked next."""

    def __init__(self, forward: LayerwiseForward, batch: Batch, read: Positions):
        self.forward = forward
        self.asks = batch.drift
        self.layer_tokens: dict[int, list[int]] = {i: [] for i in batch.drift}
        self.window = {i: read[i] for i in batch.drift}
        self.window_rows = forward.rows(batch, self.window)
        self.window_weights = torch.ones(self.window_rows.starts[-1], device=forward.device)
        self.masses: list[torch.Tensor] = []  # of each layer: the window's attention [requests, longest canvas]
        self.tracked = {
            i: ask.track
            for i, ask in self.asks.items()
            if len(ask.track) and len(_queries(batch, i)) < batch.canvas_lens[i]
        }
        self.place(batch)

    def place(self, now: Batch) -> None:
        """Find the positions of interest among the batch's query positions, which have changed."""
        forward = self.forward
        self.queries = {i: _queries(now, i) for i in self.asks}
        self.query_places, self.query_slots = forward.places(now, self.queries), forward.slots(now, self.queries)
        self.window_places = forward.places(now, self.window)
        if self.tracked:
            self.tracked_rows = forward.rows(now, self.tracked)
            self.tracked_places = forward.places(now, self.tracked)
            self.tracked_slots = forward.slots(now, self.tracked)
            self.tracked_positions = forward.tensor(np.concatenate(list(self.tracked.values())))

    def before(self, number: int, layer: nn.Module, hidden: torch.Tensor) -> None:
        """The tracked tokens' attention as it was, and the inputs of this layer into the hidden cache."""
        assert self.forward.hidden_cache is not None
        cache = self.forward.hidden_cache[number]
        for i, queries in self.queries.items():
            self.layer_tokens[i].append(len(queries))
        if self.tracked:
            attention = layer.self_attn
            qkv, _ = attention.qkv_proj(layer.input_layernorm(cache[self.tracked_slots]))
            q, k, _ = qkv.split([attention.q_size, attention.kv_size, attention.kv_size], dim=-1)
            q, _ = attention.rotary_emb(self.tracked_positions, q.contiguous(), k.contiguous())
            self.old = self._weights(layer, q.view(len(q), attention.num_heads, attention.head_dim))
        cache[self.query_slots] = hidden[self.query_places]

    def after(self, layer: nn.Module, query: torch.Tensor) -> list[int]:
        """Measure the window's attention; the requests whose tracked tokens' attention has drifted."""
        rows = query[self.window_places]
        self.masses.append(
            column_mass(self.forward.attention, rows, self.window_weights, *_keys(layer), self.window_rows)
        )
        if not self.tracked:
            return []
        similarities = similarity(self.old, self._weights(layer, query[self.tracked_places]), self.tracked_rows)
        similarities = as_on_first_rank(similarities).tolist()
        drifted = [i for i, s in zip(self.tracked, similarities, strict=True) if s < self.asks[i].gamma]
        for i in drifted:
            del self.tracked[i]
        return drifted

    def _weights(self, layer: nn.Module, queries: torch.Tensor) -> torch.Tensor:
        return self.forward.attention.attention_weights(queries, *_keys(layer), self.tracked_rows)

    def tracked_next(self) -> Positions:
        """Each request's tokens to track in the next pass: of each layer, those that the window attends to most."""
        tracked = {}
        for (i, ask), masses in zip(self.asks.items(), torch.stack(self.masses, 1).cpu(), strict=True):
            length = len(ask.masked)
            masses = masses[:, :length].masked_fill(torch.from_numpy(ask.masked), 0)
            # rows that attend to one position alone make exact ties, which the golden files have in the CPU's order
            most = masses.topk(min(ask.track_num, length)).indices
            tracked[i] = np.unique(most.numpy()).astype(np.int32)
        return tracked


class _Rollout:
    """The attention rollout (d2Cache, arXiv:2509.23094) of one pass: what is kept for it, and its column sums."""

    def __init__(self, forward: LayerwiseForward, batch: Batch):
        self.forward = forward
        self.queries = {i: _queries(batch, i) for i in batch.rollout}
        self.rows = forward.rows(batch, self.queries)
        self.layers: list[tuple[torch.Tensor, torch.Tensor, float]] = []
        self.place(batch)

    def place(self, now: Batch) -> None:
        self.query_places = self.forward.places(now, self.queries)

    def keep(self, layer: nn.Module, query: torch.Tensor) -> None:
        self.layers.append((query.index_select(0, self.query_places), *_keys(layer)))

    def importance(self) -> Positions:
        """float32, one for each canvas position."""
        at = np.concatenate([line * self.rows.longest + p for line, p in enumerate(self.queries.values())])
        layers = reversed(self.layers)
        result = rollout_importance(self.forward.attention, layers, self.forward.tensor(at), self.rows).cpu().numpy()
        return {i: line[:n] for i, line, n in zip(self.queries, result, self.rows.lengths, strict=True)}


def _run(layer: nn.Module, positions: torch.Tensor, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The layer's output, and its queries [T', heads, head size] as its attention gets them."""
    attention = layer.self_attn.attn
    seen: list[torch.Tensor] = []
    hook = attention.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    hidden, residual = layer(positions, hidden, None)
    hook.remove()
    return hidden + residual, seen[0].view(len(hidden), attention.num_heads, attention.head_size)


def _keys(layer: nn.Module) -> tuple[torch.Tensor, float]:
    """The layer's keys, and what scales a query's product with them."""
    attention = layer.self_attn
    return paged_keys(attention.attn), attention.scaling * key_scale(attention.attn)


def _queries(batch: Batch, i: int) -> np.ndarray:
    return batch.positions[batch.query_starts[i] : batch.query_starts[i + 1]]


def _read_positions(batch: Batch) -> Positions:
    rows = np.split(batch.rows, batch.row_starts[1:-1])
    return {i: batch.positions[places] for i, places in enumerate(rows)}


def _places(batch: Batch, positions: Positions) -> np.ndarray:
    """Where the positions are among the batch's query positions."""
    found = [batch.query_starts[i] + np.searchsorted(_queries(batch, i), p) for i, p in positions.items()]
    return np.concatenate(found)
