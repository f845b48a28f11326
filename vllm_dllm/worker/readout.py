"""From logits to tokens, confidences and the signals a pass was asked for. They leave the device in one copy."""

from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from vllm.utils.torch_utils import async_tensor_h2d

from vllm_dllm.messages import Edits, Guidance, Readout, StepObservation
from vllm_dllm.worker import readout_reference
from vllm_dllm.worker.edits import apply, edit_lines
from vllm_dllm.worker.guide import Guided, guide
from vllm_dllm.worker.host_copy import HostCopy
from vllm_dllm.worker.readout_reference import LEAST, ROOM, entropies

LINES = 1024  # that go through the output head and are read at once: logits of a large vocabulary take room
CHUNK = 64  # lines that are sampled at once: float64 noise takes four times as much
Group = tuple[int, int, int, Readout]  # lines [start, stop) that are read alike, the first request of which they are


class Reader:
    """Reads logits [N, vocabulary], one line for each position that is read.

    `sampler` says how the model's authors draw tokens at a temperature: `gumbel` (LLaDA) or
    `categorical` (Dream). `mask_id` is never chosen: a position unmasked to the mask token would stay
    masked. What is most likely is read by readout_kernel.py, on a CPU by readout_reference.py.
    """

    def __init__(self, sampler: str, mask_id: int, device: torch.device | str = "cpu", vocab_size: int = 0):
        self.sample = {"gumbel": sample_gumbel, "categorical": sample_categorical}[sampler]
        self.mask_id = mask_id
        self.vocab_size = vocab_size  # for a step that reads no line
        self.kernel = _kernel(torch.device(device))
        self.tables: dict[str, torch.Tensor] = {}  # classes of tokens on the device, by what a format calls them

    def read(self, *args: Any, **kwargs: Any) -> StepObservation | None:
        """What `start` reads, once it is there."""
        reading = self.start(*args, **kwargs)
        return None if reading is None else reading.observation()

    def start(
        self,
        head: Callable[[slice], torch.Tensor | None],
        read_starts: np.ndarray,
        readouts: list[Readout],
        edits: Mapping[int, Edits] | None = None,
        guidance: Mapping[int, Guidance] | None = None,
        named: Mapping[int, np.ndarray] | None = None,
    ) -> "Reading | Nothing | None":
        """`head` gives the logits of some of the lines, which may be overwritten; it is asked for a piece at a time.

        Request i has lines read_starts[i] to read_starts[i + 1], and `edits` what is done to them first. Before that,
        those in `guidance` are put together with their second canvases', which come behind all requests'. Of requests in
        `named` the log probabilities of these tokens are read, and nothing else. None where the head gives nothing
        (tensor-parallel ranks other than the first).
        """
        guided = _guided(read_starts, guidance or {})
        read_starts = read_starts[: len(readouts) + 1]
        edits = edits or {}
        # a chunk at a time: what must be done in float32, or beside logits that stay as they are
        late = {i: e for i, e in edits.items() if e.adjusted or readouts[i].logprobs is not None}
        early = {i: e for i, e in edits.items() if i not in late}
        named = named or {}
        members = _members(readouts, named)
        groups = _groups(read_starts, readouts, late, members)
        if not read_starts[-1]:  # the head is not asked: ranks cannot gather nothing
            return Nothing(self.vocab_size)
        result = None
        most = LINES // 4 if guided else LINES  # twice the logits, and in float32
        for start, stop in pairwise(_cuts(groups, int(read_starts[-1]), most)):
            logits = head(slice(start, stop))
            if guided:
                logits = guide(logits, start, stop, head, guided)
            if logits is not None:
                result = result or Reading(read_starts, logits, readouts, named, members)
                if early:
                    apply(logits, start, read_starts, early, self.tables)
                self._read_piece(logits, start, groups, result, late)
        if result is not None:
            result.leave()
        return result

    def _read_piece(
        self,
        logits: torch.Tensor,
        first_line: int,
        groups: list[Group],
        result: "Reading",
        late: Mapping[int, Edits],
    ) -> None:
        """The logits are those from `first_line` on, in any float dtype: only chunks of them become float32."""
        stop_line = first_line + len(logits)
        packed = result.packed[:, first_line:stop_line]
        doubles = None if result.doubles is None else result.doubles[first_line:stop_line]
        self._read_greedily(logits, packed, result, doubles)
        for start, stop, first, readout in groups:
            edit = late.get(first)
            if edit is None and readout.temperature == 0 and readout.logprobs is None:
                continue
            tokens_named = result.named.get(first)
            step = CHUNK if readout.temperature > 0 else max(LEAST, ROOM // logits.shape[-1])
            for low in range(max(start, first_line), min(stop, stop_line), step):
                lines = slice(low - first_line, min(low + step, stop, stop_line) - first_line)
                chunk, tokens = logits[lines].float(), packed[0, lines]
                if tokens_named is not None:
                    part = top_logprobs(chunk, tokens_named[low - start :][: len(chunk)], readout.logprobs or 0)
                    result.logprobs.setdefault(first, []).append(part)
                    continue
                raw = chunk
                if edit is not None:
                    raw = chunk if readout.logprobs is None else chunk.clone()
                    edit_lines(chunk, low - start, edit, self.tables)
                    self._read_greedily(chunk, packed[:, lines], result)
                chunk.masked_fill_((packed[4, lines] != 0)[:, None], 0)
                if readout.temperature > 0:
                    self._draw(chunk, low - start, readout, tokens, packed[1:4, lines].view(torch.float32))
                if result.doubles is not None and readout.confidence64:
                    probs = torch.softmax(chunk.double(), -1)
                    result.doubles[low : low + len(chunk)] = probs.gather(-1, tokens[:, None].long())[:, 0]
                if readout.logprobs is not None:
                    result.logprobs.setdefault(first, []).append(top_logprobs(raw, tokens.long(), readout.logprobs))

    def _read_greedily(
        self, logits: torch.Tensor, packed: torch.Tensor, result: "Reading", doubles: torch.Tensor | None = None
    ) -> None:
        self.kernel(logits, self.mask_id, packed, doubles, result.margin, result.entropy)

    def _draw(
        self, logits: torch.Tensor, skip: int, readout: Readout, tokens: torch.Tensor, values: torch.Tensor
    ) -> None:
        """Tokens drawn at a temperature, and what they are judged by in place of the most likely ones' numbers."""
        token, probs = self.sample(logits, skip, readout, self.mask_id)
        tokens.copy_(token)
        values[0] = probs.gather(-1, token[:, None])[:, 0]
        if readout.margin:
            best = probs.topk(2, -1).values
            values[1] = best[:, 0] - best[:, 1]
        if readout.entropy:
            values[2] = entropies(probs)


class Nothing:
    """What is read of no lines: those of a step whose passes only compute keys and values."""

    def __init__(self, vocab_size: int):
        self.vocab_size = vocab_size

    def observation(self) -> StepObservation:
        none = np.empty(0, np.float32)
        return StepObservation(
            tokens=np.empty(0, np.int32),
            confidence=none,
            margin=none,
            entropy=none,
            confidence64=none.astype(np.float64),
            vocab_size=self.vocab_size,
        )


class Reading:
    """What is read of N lines, on the device and then on its way to the host.

    packed     int32 [5, N]: token, then the bits of confidence, margin and entropy in float32, and whether the line is
               broken (readout_reference.py). Margin and entropy are zeros where nobody wants them.
    doubles    float64 [N], if somebody wants confidences in it
    logprobs   of the requests that want them, by their place: `top_logprobs` of some lines each. Neighbours that name
               tokens alike have theirs together, by the first one's place
    """

    def __init__(
        self,
        read_starts: np.ndarray,
        logits: torch.Tensor,
        readouts: list[Readout],
        named: Mapping[int, np.ndarray],
        members: dict[int, list[int]],
    ):
        count = int(read_starts[-1])
        self.members = members
        self.starts = read_starts
        self.named = {
            first: async_tensor_h2d(np.concatenate([named[i] for i in those]).astype(np.int64), logits.device)
            for first, those in members.items()
        }
        self.packed = logits.new_zeros((5, count), dtype=torch.int32)
        self.doubles = logits.new_zeros(count, dtype=torch.float64) if any(r.confidence64 for r in readouts) else None
        self.logprobs: dict[int, list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]] = {}
        self.vocab_size = logits.shape[-1]
        self.margin, self.entropy = any(r.margin for r in readouts), any(r.entropy for r in readouts)

    def leave(self) -> None:
        """All is read: the copy to the host begins."""
        tensors = [self.packed] if self.doubles is None else [self.packed, self.doubles]
        for parts in self.logprobs.values():
            tensors += [torch.cat(part) for part in zip(*parts, strict=True)]
        self.copy = HostCopy(tensors)

    def observation(self) -> StepObservation:
        """On the host, once it is there."""
        arrays = iter(self.copy.arrays())
        packed = next(arrays)
        values = packed[1:4].view(np.float32)
        return StepObservation(
            tokens=packed[0],
            confidence=values[0],
            margin=values[1] if self.margin else None,
            entropy=values[2] if self.entropy else None,
            confidence64=None if self.doubles is None else next(arrays),
            logprobs=self._logprobs(arrays),
            broken=_places(packed[4]),
            vocab_size=self.vocab_size,
        )

    def _logprobs(self, arrays: Iterator[np.ndarray]) -> dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """By each request's place."""
        found = {}
        for first in self.logprobs:
            ids, logprobs, ranks = next(arrays), next(arrays), next(arrays)
            for i in self.members.get(first, [first]):
                lines = slice(self.starts[i] - self.starts[first], self.starts[i + 1] - self.starts[first])
                found[i] = ids[lines], logprobs[lines], ranks[lines]
        return found


def _kernel(device: torch.device) -> Callable[..., None]:
    """What reads the most likely tokens there."""
    if device.type == "cpu":
        return readout_reference.read_greedily
    from vllm_dllm.worker.readout_kernel import read_greedily

    return read_greedily


def _cuts(groups: list[Group], count: int, most: int = LINES) -> list[int]:
    """Where the lines are cut into pieces of `most`, or less: not in the middle of a chunk, whose draws are one."""
    cuts = [0]
    if count > most:
        for start, stop, *_ in groups:
            for low in range(start, stop, CHUNK):
                if min(low + CHUNK, stop) - cuts[-1] > most:
                    cuts.append(low)
    return [*cuts, count]


def _guided(read_starts: np.ndarray, guidance: Mapping[int, Guidance]) -> list[Guided]:
    return [
        Guided(int(read_starts[i]), int(read_starts[i + 1]), int(read_starts[g.entry]), g.scale)
        for i, g in guidance.items()
    ]


def _places(flags: np.ndarray) -> np.ndarray | None:
    found = flags.nonzero()[0]
    return found if len(found) else None


def _members(readouts: list[Readout], named: Mapping[int, np.ndarray]) -> dict[int, list[int]]:
    """Neighbours that name tokens and read alike, by the first one's place."""
    found: dict[int, list[int]] = {}
    first = -1
    for i in sorted(named):
        if first < 0 or i != found[first][-1] + 1 or readouts[i] != readouts[first]:
            first = i
            found[first] = []
        found[first].append(i)
    return found


def _groups(
    read_starts: np.ndarray, readouts: list[Readout], late: Mapping[int, Edits], members: Mapping[int, list[int]]
) -> list[Group]:
    """Neighbours that read the same greedily are read at once, but for those in `late`; so are those that name tokens."""
    groups: list[Group] = []
    naming = {i for those in members.values() for i in those}
    apart = naming.union(late)
    for i, (readout, (start, stop)) in enumerate(zip(readouts, pairwise(read_starts.tolist()), strict=True)):
        if i in naming:
            if i in members:
                groups.append((start, int(read_starts[members[i][-1] + 1]), i, readout))
            continue
        alone = readout.temperature > 0 or readout.logprobs is not None or i in late
        if groups and not alone and groups[-1][3] == readout and groups[-1][2] not in apart:
            groups[-1] = (groups[-1][0], stop, groups[-1][2], readout)
        else:
            groups.append((start, stop, i, readout))
    return groups


def without(logits: torch.Tensor, mask_id: int) -> torch.Tensor:
    """The logits with the mask token out of the question. A copy."""
    logits = logits.clone()
    logits[:, mask_id] = -torch.inf
    return logits


def keep_top(logits: torch.Tensor, top_k: int, top_p: float, min_p: float = 0.0) -> torch.Tensor:
    """The logits with all tokens outside min-p, then top-p, then top-k at -inf; the most likely one always stays.

    min-p: what is less likely than so much of the most likely one is out.
    """
    if min_p > 0:
        probs = logits.softmax(-1)
        logits = logits.masked_fill(probs < min_p * probs.amax(-1, keepdim=True), -torch.inf)
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
    kept = keep_top(
        without(logits, mask_id) / readout.temperature, readout.top_k, readout.top_p, readout.min_p
    ).double()
    noise = torch.empty_like(kept).uniform_(generator=_generator(readout, skip, logits.device))
    # the order of exp(logits) / (-log u) ** temperature, without its overflow
    token = (kept - torch.log(-torch.log(noise))).argmax(-1)
    return token, probs


def sample_categorical(
    logits: torch.Tensor, skip: int, readout: Readout, mask_id: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Dream: the tempered, top-p and top-k filtered distribution; confidence from the same."""
    kept = keep_top(without(logits, mask_id) / readout.temperature, readout.top_k, readout.top_p, readout.min_p)
    probs = torch.softmax(kept, -1)
    # as torch.multinomial draws, which waits for the device to check its arguments. The bound is the least that CUDA
    # draws: none is zero
    noise = torch.empty_like(probs).exponential_(generator=_generator(readout, skip, logits.device))
    return (probs / noise.clamp_min_(2**-24)).argmax(-1), probs


def top_logprobs(
    logits: torch.Tensor, tokens: torch.Tensor, count: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """ids and log probabilities [lines, 1 + count] (the chosen token first), and the chosen token's rank [lines]."""
    logprobs = logits.log_softmax(-1)
    chosen = logprobs.gather(-1, tokens[:, None])
    best = logprobs.topk(logits.shape[-1] if count < 0 else count, -1)
    ids = torch.cat((tokens[:, None], best.indices), -1).to(torch.int32)
    return ids, torch.cat((chosen, best.values), -1), (logprobs >= chosen).sum(-1)
