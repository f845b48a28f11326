"""A forward that goes layer by layer, for the passes that a probe looks into.

A probe may have the rest of a request's pass compute the whole canvas, from the next layer on; the inputs of
that layer at the other positions are then those of the hidden cache.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import numpy as np
import torch
from torch import nn
from vllm.utils.torch_utils import async_tensor_h2d

from vllm_dllm.attention_maps.keys import key_scale, paged_keys, why_unreadable
from vllm_dllm.attention_maps.query_set import QuerySet
from vllm_dllm.attention_maps.statistics import implementation
from vllm_dllm.messages import Batch
from vllm_dllm.probes.worker import Positions, WorkerProbe, worker_half
from vllm_dllm.worker.images import ImageEmbeddings


class LayerwiseForward:
    """Runs a batch through the model's layers one at a time.

    `hidden_cache` is [layers, KV slots, hidden size], the input of every layer at every position when it
    was last computed; None if no policy that needs it is served. `unreadable` says why keys cannot be read from this
    attention backend's pages, if so: then no batch may have probes.
    """

    def __init__(
        self,
        model: nn.Module,
        page_size: int,
        device: torch.device,
        forward_context: Callable[[Batch], AbstractContextManager],
        hidden_cache: torch.Tensor | None,
        images: ImageEmbeddings,
    ):
        self.model = model
        self.layers = model.model.layers
        self.page_size = page_size
        self.device = device
        self.forward_context = forward_context
        self.hidden_cache = hidden_cache
        self.images = images
        self.attention = implementation(device)
        self.unreadable = why_unreadable(self.layers[0].self_attn.attn, model.model.norm.weight.dtype)

    def __call__(
        self, batch: Batch
    ) -> tuple[torch.Tensor, np.ndarray, dict[int, dict[str, Any]], dict[int, list[int]]]:
        """Hidden states [T'] after the last norm, the places of the read positions in them, what the probes measured,
        and how many positions each layer computed of requests whose pass could be widened."""
        read = _read_positions(batch)
        kept = sorted(i for asks in batch.probes.values() for i, ask in asks.items() if ask.needs_hidden)
        layer_tokens: dict[int, list[int]] = {
            i: [] for asks in batch.probes.values() for i, ask in asks.items() if ask.widens
        }
        probes = self._probes(batch)
        hidden = self.images.inputs(self.tensor(batch.token_ids), batch.placed)
        now, positions, cached = batch, self.tensor(batch.positions), self._cached(batch, kept)
        with ExitStack() as context:
            context.enter_context(self.forward_context(now))
            for number, layer in enumerate(self.layers):
                for i, counts in layer_tokens.items():
                    counts.append(int(now.query_starts[i + 1] - now.query_starts[i]))
                for probe in probes:
                    probe.before(number, hidden)
                if cached is not None:
                    slots, places = cached
                    self.hidden(number)[slots] = hidden[places]
                hidden, queries = _run(layer, positions, hidden)
                widened = sorted({i for probe in probes for i in probe.after(number, queries)})
                if widened and number + 1 < len(self.layers):
                    hidden, now = self._widen(number + 1, now, hidden, widened)
                    positions, cached = self.tensor(now.positions), self._cached(now, kept)
                    context.close()
                    context.enter_context(self.forward_context(now))
                    for probe in probes:
                        probe.place(now)
        return self.model.model.norm(hidden), _places(now, read), _signals(probes), layer_tokens

    def look(self, batch: Batch, queries: torch.Tensor) -> dict[int, dict[str, Any]]:
        """What the probes measure of a pass that is done, whose attention had `queries` [layers, T, heads, head size]: they
        are all `at_the_end`."""
        probes = self._probes(batch)
        for number in range(len(self.layers)):
            for probe in probes:
                probe.after(number, queries[number])
        return _signals(probes)

    def _probes(self, batch: Batch) -> list[WorkerProbe]:
        return [worker_half(next(iter(asks.values())).worker)(self, batch, asks) for asks in batch.probes.values()]

    def warm_up(self) -> None:
        """Has every kernel compiled that a probe's request would have to wait for. Nothing is written into pages."""
        layer = self.layers[0].self_attn
        keys, scale = self.keys(0)
        for count in getattr(self.attention, "ROWS", ()):
            table = np.zeros((1, -(-count // self.page_size)), np.int32)
            of = QuerySet([count], np.asarray([count]), table, self.page_size, self.device)
            queries = torch.zeros(
                (count, layer.num_heads, layer.head_dim), dtype=self.model.model.norm.weight.dtype, device=self.device
            )
            self.attention.attention_mass(queries, queries.new_ones(count, dtype=torch.float32), keys, scale, of)
            self.attention.attention_weights(queries, keys, scale, of)

    def _cached(self, now: Batch, kept: list[int]) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Where the hidden cache keeps the inputs of the `kept` requests' query positions, and their places."""
        if not kept:
            return None
        queries = {i: now.queries_of(i) for i in kept}
        return self.slots(now, queries), self.places(now, queries)

    def _widen(self, number: int, now: Batch, hidden: torch.Tensor, widened: list[int]) -> tuple[torch.Tensor, Batch]:
        """The batch in which the widened requests compute their whole canvas from layer `number` on."""
        queries = np.split(now.positions, now.query_starts[1:-1])
        parts = list(torch.split(hidden, np.diff(now.query_starts).tolist()))
        for i in widened:
            whole = np.arange(now.ends[i], dtype=np.int32)
            inputs = self.hidden(number)[self.slots(now, {i: whole})]  # a copy
            inputs[self.tensor(queries[i])] = parts[i]
            queries[i], parts[i] = whole, inputs
        starts = np.cumsum([0] + [len(q) for q in queries]).astype(np.int32)
        return torch.cat(parts), now.with_queries(np.concatenate(queries), starts)

    # ---- what probes ask ----

    def keys(self, number: int) -> tuple[torch.Tensor, float]:
        """A layer's keys, as `paged_keys` gives them, and what scales a query's product with them."""
        attention = self.layers[number].self_attn
        return paged_keys(attention.attn), attention.scaling * key_scale(attention.attn)

    def hidden(self, number: int) -> torch.Tensor:
        """[KV slots, hidden size]: a layer's inputs as they were last computed, of requests whose probe needs them."""
        assert self.hidden_cache is not None, "no policy that needs hidden states is served"
        return self.hidden_cache[number]

    def layer_queries(self, number: int, positions: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """[N, heads, head size]: a layer's queries at canvas `positions` [N], from its inputs [N, hidden size]."""
        return self.model.layer_queries(self.layers[number], positions, hidden)

    def attention_queries(self, batch: Batch, positions: Positions, ends: np.ndarray | None = None) -> QuerySet:
        """The queries at `positions`, whose attention to their canvas, or to what is before `ends` in it, is looked at."""
        of = list(positions)
        counts = [len(p) for p in positions.values()]
        return QuerySet(
            counts, batch.ends[of] if ends is None else ends, batch.block_table[of], self.page_size, self.device
        )

    def places(self, batch: Batch, positions: Positions) -> torch.Tensor:
        """Where the positions are among the batch's query positions."""
        return self.tensor(_places(batch, positions))

    def slots(self, batch: Batch, positions: Positions) -> torch.Tensor:
        """Where the hidden cache has the positions."""
        parts = [(i, *np.divmod(p, self.page_size)) for i, p in positions.items()]
        slots = [batch.block_table[i, page].astype(np.int64) * self.page_size + place for i, page, place in parts]
        return self.tensor(np.concatenate(slots))

    def tensor(self, array: np.ndarray) -> torch.Tensor:
        """int64, on the device."""
        return async_tensor_h2d(array.astype(np.int64), self.device)


def _signals(probes: list[WorkerProbe]) -> dict[int, dict[str, Any]]:
    signals: dict[int, dict[str, Any]] = {}
    for probe in probes:
        for i, found in probe.signals().items():
            signals.setdefault(i, {}).update(found)
    return signals


def _run(layer: nn.Module, positions: torch.Tensor, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The layer's output, and its queries [T', heads, head size] as its attention gets them."""
    attention = layer.self_attn.attn
    seen: list[torch.Tensor] = []
    hook = attention.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    hidden, residual = layer(positions, hidden, None)
    hook.remove()
    return hidden + residual, seen[0].view(len(hidden), attention.num_heads, attention.head_size)


def _read_positions(batch: Batch) -> Positions:
    places = np.split(batch.places, batch.read_starts[1:-1])
    return {i: batch.positions[at] for i, at in enumerate(places)}


def _places(batch: Batch, positions: Positions) -> np.ndarray:
    """Where the positions are among the batch's query positions."""
    found = [batch.query_starts[i] + np.searchsorted(batch.queries_of(i), p) for i, p in positions.items()]
    return np.concatenate(found)
