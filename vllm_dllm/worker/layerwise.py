"""A forward that goes layer by layer, for the passes whose policies look into the attention.

Elastic-Cache decides inside the pass: a request whose tracked tokens' attention has drifted at layer l
computes its whole canvas from layer l + 1 on, each request at its own layer or not at all:

    layer          0    1    2    3
    request a      37   37   84   84     drifted at layer 1
    request b      29   29   29   29     did not drift
    request c      16   16   16   16     another policy
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack

import numpy as np
import torch
from torch import nn

from vllm_dllm.attention.keys import read_keys
from vllm_dllm.attention.statistics import attention_weights, column_mass, drift, head_mean, rollout_importance
from vllm_dllm.batch import Batch, Signals
from vllm_dllm.observation import Drift


class _Tracking:
    """One request's drift test in this pass."""

    def __init__(self, place: int, ask: Drift, queries: np.ndarray, rows: np.ndarray, length: int, device):
        self.place = place
        self.ask = ask
        self.rows = rows  # canvas positions whose attention picks the next tracked tokens
        self.tests = len(queries) < length and len(ask.track) > 0
        self.masked = torch.from_numpy(ask.masked).to(device)
        self.next: list[torch.Tensor] = []
        self.old: torch.Tensor | None = None
        self.layer_tokens: list[int] = []


class LayerwiseForward:
    """Runs a batch through the model's layers one at a time.

    `hidden_cache` is [layers, KV slots, hidden size], the input of every layer at every position when it
    was last computed; None if no policy that needs it is served.
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

    def __call__(self, batch: Batch) -> tuple[torch.Tensor, np.ndarray, Signals]:
        """Hidden states [T'] after the last norm, the places of `batch.rows` in them, and the signals."""
        queries = list(np.split(batch.positions, batch.query_starts[1:-1]))
        rows = [
            q[batch.rows[a:b] - start]
            for q, start, a, b in zip(queries, batch.query_starts, batch.row_starts, batch.row_starts[1:], strict=False)
        ]
        pages = [
            self._tensor(line[: -(-length // self.page_size)].astype(np.int64))
            for line, length in zip(batch.block_table, batch.canvas_lens, strict=True)
        ]
        tracking = [
            _Tracking(i, ask, queries[i], rows[i], int(batch.canvas_lens[i]), self.device)
            for i, ask in batch.drift.items()
        ]
        rolling = {i: (self._tensor(queries[i].astype(np.int64)), []) for i in batch.rollout}
        hidden = self.model.embed_input_ids(self._tensor(batch.token_ids))
        now, positions = batch, self._tensor(batch.positions.astype(np.int64))
        with ExitStack() as context:
            context.enter_context(self.forward_context(now))
            for number, layer in enumerate(self.model.layers):
                self._before(number, layer, now, hidden, tracking, pages)
                attention = layer.self_attn.attn
                captured: list[torch.Tensor] = []
                hook = attention.register_forward_pre_hook(lambda _, inputs, into=captured: into.append(inputs[0]))
                hidden, residual = layer(positions, hidden, None)
                hook.remove()
                hidden = hidden + residual
                query = captured[0].view(len(hidden), attention.num_heads, attention.head_size)
                for i, (_, maps) in rolling.items():
                    start, stop = now.query_starts[i], now.query_starts[i + 1]
                    keys = read_keys(attention, pages[i], int(now.canvas_lens[i]))
                    maps.append(head_mean(attention_weights(query[start:stop], keys, layer.self_attn.scaling)))
                drifted = self._after(layer, now, query, tracking, pages)
                if drifted and number + 1 < len(self.model.layers):
                    hidden, now = self._expand(number + 1, now, hidden, drifted)
                    positions = self._tensor(now.positions.astype(np.int64))
                    context.close()
                    context.enter_context(self.forward_context(now))
        places = self._places(now, rows)
        return self.model.norm(hidden), places, self._signals(tracking, rolling, batch)

    # ---- Elastic-Cache ----

    def _before(self, number, layer, now: Batch, hidden, tracking: Sequence[_Tracking], pages) -> None:
        """The tracked tokens' attention as it was, and the inputs of this layer into the hidden cache."""
        if not tracking:
            return
        assert self.hidden_cache is not None
        cache = self.hidden_cache[number]
        for t in tracking:
            queries = now.positions[now.query_starts[t.place] : now.query_starts[t.place + 1]]
            t.layer_tokens.append(len(queries))
            if t.tests:
                inputs = cache[self._slots(now, t.place, t.ask.track)]
                attention = layer.self_attn
                qkv, _ = attention.qkv_proj(layer.input_layernorm(inputs))
                q, k, _ = qkv.split([attention.q_size, attention.kv_size, attention.kv_size], dim=-1)
                q, _ = attention.rotary_emb(self._tensor(t.ask.track.astype(np.int64)), q.contiguous(), k.contiguous())
                keys = read_keys(attention.attn, pages[t.place], int(now.canvas_lens[t.place]))
                old = q.view(len(t.ask.track), attention.num_heads, attention.head_dim)
                t.old = attention_weights(old, keys, attention.scaling)
            start = now.query_starts[t.place]
            cache[self._slots(now, t.place, queries)] = hidden[start : start + len(queries)]

    def _after(self, layer, now: Batch, query, tracking: Sequence[_Tracking], pages) -> list[int]:
        """Pick the tokens to track next; the requests (places) whose attention has drifted."""
        tests: list[tuple[_Tracking, torch.Tensor]] = []
        for t in tracking:
            start, stop = now.query_starts[t.place], now.query_starts[t.place + 1]
            queries = now.positions[start:stop]
            keys = read_keys(layer.self_attn.attn, pages[t.place], int(now.canvas_lens[t.place]))
            of = query[start:stop]
            window = attention_weights(of[self._find(queries, t.rows)], keys, layer.self_attn.scaling)
            mass = column_mass(window).masked_fill(t.masked, 0)
            t.next.append(mass.topk(min(t.ask.track_num, len(mass))).indices)
            if t.tests:
                new = attention_weights(of[self._find(queries, t.ask.track)], keys, layer.self_attn.scaling)
                tests.append((t, drift(t.old, new)))
        if not tests:
            return []
        similarities = torch.stack([similarity for _, similarity in tests]).tolist()
        drifted = [t for (t, _), similarity in zip(tests, similarities, strict=True) if similarity < t.ask.gamma]
        for t in drifted:
            t.tests = False
        return [t.place for t in drifted]

    def _expand(self, number, now: Batch, hidden, drifted: list[int]) -> tuple[torch.Tensor, Batch]:
        """The batch in which the drifted requests compute their whole canvas from layer `number` on."""
        assert self.hidden_cache is not None
        queries = list(np.split(now.positions, now.query_starts[1:-1]))
        parts = list(torch.split(hidden, np.diff(now.query_starts).tolist()))
        for i in drifted:
            whole = np.arange(now.canvas_lens[i], dtype=np.int32)
            inputs = self.hidden_cache[number][self._slots(now, i, whole)]  # a copy
            inputs[self._tensor(queries[i].astype(np.int64))] = parts[i]
            queries[i], parts[i] = whole, inputs
        starts = np.cumsum([0] + [len(q) for q in queries]).astype(np.int32)
        return torch.cat(parts), now.with_queries(np.concatenate(queries), starts)

    # ---- places ----

    def _slots(self, batch: Batch, place: int, positions: np.ndarray) -> torch.Tensor:
        page, offset = np.divmod(positions, self.page_size)
        return self._tensor(batch.block_table[place, page].astype(np.int64) * self.page_size + offset)

    def _find(self, queries: np.ndarray, positions: np.ndarray) -> torch.Tensor:
        return self._tensor(np.searchsorted(queries, positions))

    def _places(self, now: Batch, rows: list[np.ndarray]) -> np.ndarray:
        queries = np.split(now.positions, now.query_starts[1:-1])
        found = [s + np.searchsorted(q, r) for q, r, s in zip(queries, rows, now.query_starts, strict=False)]
        return np.concatenate(found)

    def _signals(self, tracking: list[_Tracking], rolling, batch: Batch) -> Signals:
        signals = Signals()
        for t in tracking:
            signals.layer_tokens[t.place] = t.layer_tokens
            signals.tracked[t.place] = np.unique(torch.cat(t.next).cpu().numpy()).astype(np.int32)
        for i, (queries, maps) in rolling.items():
            importance = rollout_importance(maps, queries, int(batch.canvas_lens[i]))
            signals.importance[i] = importance.cpu().numpy()
        return signals

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).to(self.device, non_blocking=True)
