"""What sampling parameters do to logits: as vLLM defines them, and what is read of them."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from decoding_helpers import MASK
from vllm import SamplingParams
from vllm.model_executor.layers.utils import apply_penalties
from vllm.v1.sample.logits_processor.builtin import LogitBiasLogitsProcessor, MinPLogitsProcessor

from vllm_dllm.canvas import Canvas
from vllm_dllm.frontier import Blocks
from vllm_dllm.given_text import NO_TEXT
from vllm_dllm.messages import Edits, Readout
from vllm_dllm.param_constraints import constraints_of
from vllm_dllm.settings import ModelTraits, resolve
from vllm_dllm.worker.edits import apply
from vllm_dllm.worker.readout import CHUNK, Reader, keep_top

VOCABULARY = 40
MODEL = SimpleNamespace(get_vocab_size=lambda: VOCABULARY, architecture="LLaDAModelLM")  # all that is asked of it here
PLAIN = resolve({}, {}, ModelTraits(MASK, 0, "llada"))
PROMPT = [7, 8, 8, 9]


def canvas(unmasked: dict[int, int], length: int = 12) -> Canvas:
    found = Canvas(PROMPT, length, MASK, Blocks(length))
    at = np.asarray(sorted(unmasked), np.int64)
    found.unmask(at + len(PROMPT), np.asarray([unmasked[i] for i in at.tolist()], np.int32))
    return found


def params(**arguments) -> SamplingParams:
    arguments = {"temperature": 0.0, "max_tokens": 12} | arguments
    words, ends = arguments.pop("words", None), arguments.pop("ends", ())
    made = SamplingParams(**arguments)
    made._bad_words_token_ids = words
    made._all_stop_token_ids |= set(ends)
    return made


def edits_of(request: SamplingParams, of: Canvas) -> Edits:
    found = Edits()
    for constraint in constraints_of(request, PLAIN, NO_TEXT, MODEL):
        constraint.edit(of, of.candidates, found)
    return found


def edited(logits: torch.Tensor, request: SamplingParams, of: Canvas) -> torch.Tensor:
    logits = logits.clone()
    apply(logits, 0, np.asarray([0, len(logits)]), {0: edits_of(request, of)})
    return logits


def random_logits(lines: int, seed: int = 0, dtype=torch.float32) -> torch.Tensor:
    return (torch.randn(lines, VOCABULARY, generator=torch.manual_seed(seed)) * 4).to(dtype)


def vllms(logits: torch.Tensor, request: SamplingParams, prompt: list[int], output: list[int]) -> torch.Tensor:
    """What vLLM's own bias and penalties make of logits whose request has this prompt and output."""
    logits, lines = logits.float().clone(), len(logits)
    bias = LogitBiasLogitsProcessor(None, torch.device("cpu"), False)
    added = [(i, request, prompt, output) for i in range(lines)]
    bias.update_state(SimpleNamespace(added=added, removed=[], moved=[], batch_size=lines))
    logits = bias.apply(logits)
    each = (torch.tensor([tokens] * lines).long().view(lines, -1) for tokens in (prompt, output))
    values = (request.presence_penalty, request.frequency_penalty, request.repetition_penalty)
    return apply_penalties(logits, *each, *(torch.full((lines,), v) for v in values))


@pytest.mark.parametrize("seed", range(12))
def test_bias_and_penalties_are_vllms(seed):
    rng = np.random.default_rng(seed)
    known = {int(i): int(rng.integers(2, 15)) for i in rng.permutation(12)[: rng.integers(0, 8)]}
    options = {
        "logit_bias": {int(t): float(rng.normal() * 3) for t in rng.permutation(VOCABULARY)[:5]},
        "repetition_penalty": float(rng.uniform(0.5, 2)),
        "presence_penalty": float(rng.uniform(-2, 2)),
        "frequency_penalty": float(rng.uniform(-2, 2)),
    }
    for name in rng.permutation(list(options))[: rng.integers(0, 4)]:
        del options[name]
    request, of = params(**options), canvas(known)
    logits = random_logits(len(of.candidates), seed)
    want = vllms(logits, request, PROMPT, list(known.values()))
    torch.testing.assert_close(edited(logits, request, of), want, rtol=1e-6, atol=1e-6)


def test_penalties_count_given_tokens_as_output_and_text_behind_as_prompt():
    of = Canvas(PROMPT, 4, MASK, Blocks(4), given={5: 20}, suffix_ids=[30])
    request = params(repetition_penalty=2.0, presence_penalty=0.5)
    want = torch.ones(3, VOCABULARY)
    want[:, [7, 8, 9, 20, 30]] = 0.5
    want[:, 20] -= 0.5
    assert torch.equal(edited(torch.ones(3, VOCABULARY), request, of), want)


def test_tokens_that_are_not_allowed():
    of = canvas({0: 5})
    allowed = [3, 30, 9]
    out = edited(random_logits(11), params(allowed_token_ids=allowed), of)
    assert torch.isfinite(out).all(0).nonzero()[:, 0].tolist() == sorted(allowed)
    most = [t for t in range(VOCABULARY) if t not in allowed]
    found = edits_of(params(allowed_token_ids=most), of)
    assert found.allowed is None and [b.tolist() for b in found.banned] == [sorted(allowed)], "what is shorter is sent"
    out = edited(random_logits(11), params(allowed_token_ids=most), of)
    assert torch.isinf(out).all(0).nonzero()[:, 0].tolist() == sorted(allowed)


def test_no_end_token_among_the_first():
    of = canvas({1: 5})
    out = edited(random_logits(11), params(min_tokens=4, ends=[0], stop_token_ids=[6]), of)
    barred = torch.isinf(out)
    first = [line for line, position in enumerate(of.candidates) if position < len(PROMPT) + 4]
    assert len(first) == 3 and barred[first][:, [0, 6]].all() and barred.sum() == 6


def test_pieces_and_neighbours_are_what_they_would_be_alone():
    """Three requests in pieces of any size, the second without edits."""
    requests = [
        params(logit_bias={5: 2.0}, allowed_token_ids=[5, 6, 7]),
        None,
        params(repetition_penalty=1.5, min_tokens=9, ends=[0]),
    ]
    of = canvas({2: 11})
    logits = random_logits(33)
    alone = [
        logits[i * 11 : i * 11 + 11] if r is None else edited(logits[i * 11 : i * 11 + 11], r, of)
        for i, r in enumerate(requests)
    ]
    found = {i: edits_of(r, of) for i, r in enumerate(requests) if r is not None}
    for size in (1, 5, 11, 16, 33):
        out = logits.clone()
        for start in range(0, 33, size):
            apply(out[start : start + size], start, np.asarray([0, 11, 22, 33]), found)
        assert torch.equal(out, torch.cat(alone))


# ---- what is read ----


@pytest.mark.parametrize("sampler", ["gumbel", "categorical"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_what_is_read_is_of_the_edited_logits_in_float32(sampler, dtype, temperature):
    lines = 2 * CHUNK + 5
    of = Canvas(PROMPT, lines, MASK, Blocks(lines))
    request = params(logit_bias={5: 0.3, 6: -0.7}, repetition_penalty=1.3, max_tokens=lines)
    logits = random_logits(lines, 3, dtype)
    readout = Readout(temperature, seed=3, margin=True, entropy=True, confidence64=True)
    reader = Reader(sampler, MASK)
    own = {1: edits_of(request, of)}
    others = random_logits(4, 4, dtype)
    starts = np.asarray([0, 2, 2 + lines, 4 + lines])
    readouts = [Readout(margin=True), readout, Readout(margin=True)]
    seen = reader.read(torch.cat((others[:2], logits, others[2:])).__getitem__, starts, readouts, own)
    want = reader.read(edited(logits.float(), request, of).__getitem__, np.asarray([0, lines]), [readout])
    for name in ("tokens", "confidence", "margin", "entropy", "confidence64"):
        np.testing.assert_array_equal(getattr(seen, name)[2:-2], getattr(want, name))
    alone = reader.read(others.clone().__getitem__, np.asarray([0, 4]), [Readout(margin=True)])
    assert seen.tokens[[0, 1, -2, -1]].tolist() == alone.tokens.tolist()
    assert seen.margin[[0, 1, -2, -1]].tolist() == alone.margin.tolist()


def test_log_probabilities_are_of_the_logits_as_they_came():
    """As with vLLM's raw_logprobs: the chosen token is another, its log probability the model's own."""
    of = canvas({})
    logits = random_logits(12, 5)
    best = int(logits[0].argmax())
    request = params(logit_bias={best: -50.0}, bad_words=["x"], words=[[int(logits[1].argmax())]])
    seen = Reader("gumbel", MASK).read(
        logits.clone().__getitem__, np.asarray([0, 12]), [Readout(logprobs=2)], {0: edits_of(request, of)}
    )
    ids, values, ranks = seen.logprobs[0]
    raw = logits.log_softmax(-1).numpy()
    assert ids[0, 1] == best and seen.tokens[0] == ids[0, 0] != best and ranks[0] > 1
    np.testing.assert_allclose(values, np.take_along_axis(raw, ids.astype(np.int64), 1), rtol=1e-6)
    out = edited(logits, request, of)
    out[:, MASK] = -torch.inf
    assert seen.tokens.tolist() == out.argmax(-1).tolist()


def test_lines_of_which_nothing_is_left_are_broken_and_no_others():
    of = canvas({})
    found = edits_of(params(allowed_token_ids=[5], words=[[5, 5]], bad_words=["x"], logprobs=1), of)
    assert found.leaves(12, VOCABULARY, MASK).tolist() == [1] * 12
    of = canvas({3: 5})
    request = params(allowed_token_ids=[5, MASK], words=[[5, 5]], bad_words=["x"])
    found = edits_of(request, of)
    assert found.leaves(11, VOCABULARY, MASK).tolist() == [1, 1, 0, 0] + [1] * 7
    for readout in (Readout(), Readout(logprobs=1), Readout(1.0)):
        seen = Reader("gumbel", MASK).read(random_logits(11).__getitem__, np.asarray([0, 11]), [readout], {0: found})
        assert seen.broken.tolist() == [2, 3]
    nan = random_logits(11)
    nan[7, 20] = torch.nan
    found = edits_of(params(logit_bias={5: 1.0}), of)
    seen = Reader("gumbel", MASK).read(nan.__getitem__, np.asarray([0, 11]), [Readout()], {0: found})
    assert seen.broken.tolist() == [7], "what was broken before stays so"


# ---- min_p ----


@pytest.mark.parametrize("min_p", [0.01, 0.2, 0.9, 1.0])
def test_min_p_is_vllms(min_p):
    logits = random_logits(50, 6)
    processor = MinPLogitsProcessor(
        SimpleNamespace(scheduler_config=SimpleNamespace(max_num_seqs=50)), torch.device("cpu"), False
    )
    request = SamplingParams(min_p=min_p)
    added = [(i, request, [], []) for i in range(50)]
    processor.update_state(SimpleNamespace(added=added, removed=[], moved=[], batch_size=50))
    assert torch.equal(keep_top(logits, 0, 1.0, min_p), processor.apply(logits.clone()))


@pytest.mark.parametrize("sampler", ["gumbel", "categorical"])
def test_min_p_of_1_draws_the_most_likely_token(sampler):
    logits = random_logits(100, 7)
    reader, starts = Reader(sampler, MASK), np.asarray([0, 100])
    drawn = reader.read(logits.clone().__getitem__, starts, [Readout(2.0, seed=1, min_p=1.0)]).tokens
    assert drawn.tolist() == reader.read(logits.clone().__getitem__, starts, [Readout()]).tokens.tolist()
    free = reader.read(logits.clone().__getitem__, starts, [Readout(2.0, seed=1, min_p=1e-9)]).tokens
    assert free.tolist() == reader.read(logits.clone().__getitem__, starts, [Readout(2.0, seed=1)]).tokens.tolist()
