"""One request's loop without a model, and the batch that several make."""

import numpy as np
import pytest
from decoding_helpers import MASK

from vllm_dllm.decoding import Decoding, NotFinite, Sampling
from vllm_dllm.messages import Observation, StepObservation
from vllm_dllm.options import SettingError
from vllm_dllm.packing import pack
from vllm_dllm.passes import Pass
from vllm_dllm.settings import ModelTraits, resolve

LLADA = ModelTraits(mask_id=MASK, row_shift=0, steps="llada")
DREAM = ModelTraits(mask_id=MASK, row_shift=-1, steps="dream")


def decoding(gen_length=8, prompt=(7, MASK, 9), traits=LLADA, sampling=None, **own) -> Decoding:
    settings = resolve({}, {f"dllm_{k}": v for k, v in own.items()}, traits)
    return Decoding(list(prompt), gen_length, settings, sampling or Sampling(), traits, recorded=True)


def answer(request: Decoding, confidence, logprobs=False, planned: Pass | None = None) -> Pass:
    """A pass with these confidences, planned and finished; response position i becomes token i + 20."""
    planned = planned or request.plan()
    tokens = (planned.reads - request.canvas.prompt_len + 20).astype(np.int32)
    part = None
    if logprobs:
        n = len(tokens)
        part = (tokens[:, None], np.full((n, 1), -0.5, np.float32) - request.canvas.passes, np.ones(n, np.int64))
    request.finish(planned, Observation(planned.reads, tokens, np.asarray(confidence, np.float32), logprobs=part))
    return planned


def test_the_loop():
    request = decoding(4, threshold=0.9, block_length=2)
    first = answer(request, [0.3, 0.95])
    assert first.queries.tolist() == list(range(7)) and first.full and first.end == 7
    assert first.reads.tolist() == [3, 4] and first.token_ids.tolist() == [7, MASK, 9] + [MASK] * 4
    assert request.take_tokens() == []
    answer(request, [0.2])
    assert request.take_tokens() == [20, 21]
    assert request.take_tokens() == []
    answer(request, [0.9, 0.9])
    assert request.take_tokens() == [22, 23] and request.canvas.done
    assert [p.unmasked for p in request.record] == [[1], [0], [2, 3]]
    assert [p.query_tokens for p in request.record] == [7, 7, 7]
    assert [p.full for p in request.record] == [True] * 3


def test_a_pass_is_finished_once_and_in_its_turn():
    request = decoding(4, threshold=0.9)
    first = answer(request, [0.3, 0.95, 0.1, 0.1])
    with pytest.raises(AssertionError, match="pass 0 is finished where pass 1 is under way"):
        answer(request, [0.3, 0.1, 0.1], planned=first)
    with pytest.raises(AttributeError):
        first.number = 1


def test_what_is_marked_while_a_pass_is_under_way_stays_marked():
    request = decoding(40, cache="dual", block_length=20, tokens_per_step=1, prompt=[5] * 60)
    answer(request, np.ones(20))
    partial = request.plan()
    assert not partial.full
    request.refresh()
    answer(request, np.ones(len(partial.reads)), planned=partial)
    assert [p.full for p in request.record] == [True, False], "it is booked as what it was"
    refresh = request.plan()
    assert refresh.full and refresh.stale_pages == 4
    request.refresh()  # a full pass under way began with the old keys
    answer(request, np.ones(len(refresh.reads)), planned=refresh)
    again = answer(request, np.ones(17))
    assert again.full and request.pages.num_stale == 0
    assert not answer(request, np.ones(16)).full


def test_a_planned_pass_is_planned_anew_without_choosing_again():
    request = decoding(8, cache="dkv-greedy", steps=4, score="random", prompt=[5] * 60)
    answer(request, np.ones(2))
    planned = request.plan()
    request.refresh()
    anew = request.replan()
    assert anew.full and not planned.full and anew.reads.tolist() == planned.reads.tolist()
    answer(request, np.ones(2), planned=anew)
    assert [len(p.unmasked) for p in request.record] == [2, 2]
    while not request.canvas.done:
        answer(request, np.ones(2))
    assert len(request.record) == 4


def test_numbers_that_are_none_end_the_decoding():
    request = decoding(4)
    planned = request.plan()
    seen = Observation(planned.reads, planned.reads, np.ones(4, np.float32), finite=False)
    with pytest.raises(NotFinite):
        request.finish(planned, seen)
    assert request.canvas.masked[3:].all() and request.take_tokens() == []


def test_logprobs_are_of_the_pass_that_unmasked():
    request = decoding(3, threshold=0.9, sampling=Sampling(logprobs=0))
    answer(request, [0.1, 0.95, 0.2], logprobs=True)
    answer(request, [0.95, 0.1], logprobs=True)
    answer(request, [0.95], logprobs=True)
    assert [float(values[0]) for _, values, _ in request.logprobs] == [-1.5, -0.5, -2.5]
    assert [int(ids[0]) for ids, _, _ in request.logprobs] == [20, 21, 22]


def test_the_canvas_is_checked():
    with pytest.raises(SettingError, match="dllm_scores with 2 numbers is not allowed.*each of the 8"):
        decoding(8, steps=4, score="random", scores=[0.1, 0.2])
    with pytest.raises(SettingError, match="dllm_steps=3 is not allowed"):
        decoding(8, steps=3, block_length=4)
    with pytest.raises(SettingError, match="dllm_steps=16 is not allowed"):
        decoding(8, steps=16)


# ---- seeds ----


def test_pass_seeds():
    def seeds(seed, temperature=1.0):
        request = decoding(4, tokens_per_step=1, sampling=Sampling(temperature, seed=seed))
        found = []
        while not request.canvas.done:
            found.append(answer(request, np.ones(len(request.canvas.candidates))).readout.seed)
        return found

    assert seeds(1) == seeds(1) and len(set(seeds(1) + seeds(2))) == 8
    assert all(0 <= s < 2**63 for s in seeds(2**64 - 1) + seeds(-(2**63)) + seeds(0))
    assert seeds(-5) != seeds(5)
    assert seeds(None) != seeds(None)
    assert seeds(3, temperature=0.0) == [0] * 4, "greedy requests are read together"


def test_positions_are_drawn_by_the_requests_seed():
    def order(seed):
        request = decoding(8, traits=DREAM, steps=8, score="random", sampling=Sampling(seed=seed))
        while not request.canvas.done:
            answer(request, np.ones(len(request.canvas.candidates)))
        return request.canvas.unmasked_in.tolist()

    assert order(1) == order(1) != order(2)
    assert order(None) != order(None)


def test_readouts_ask_for_what_the_settings_need():
    readout = decoding(8, sampling=Sampling(0.5, 7, 0.9, seed=1, logprobs=2)).plan().readout
    assert (readout.temperature, readout.top_k, readout.top_p, readout.logprobs) == (0.5, 7, 0.9, 2)
    assert not readout.margin and not readout.entropy
    assert decoding(8, score="margin").plan().readout.margin
    assert decoding(8, entropy_bound=0.1).plan().readout.entropy
    assert decoding(8, steps=8, score="entropy").plan().readout.entropy


# ---- the batch ----


def test_a_batch_of_full_passes():
    a = decoding(4, prompt=[7, 8, 9], block_length=2)
    b = decoding(5, prompt=[5, 6], traits=DREAM)
    answer(b, [0.95, 0.1, 0.95, 0.1, 0.1])
    batch = pack([a.plan(), b.plan()], [[4], [2, 9, 3]])
    assert batch.positions.tolist() == [0, 1, 2, 3, 4, 5, 6] + [0, 1, 2, 3, 4, 5, 6]
    assert batch.token_ids.tolist() == [7, 8, 9, MASK, MASK, MASK, MASK] + [5, 6, 20, MASK, 22, MASK, MASK]
    assert batch.query_starts.tolist() == [0, 7, 14] and batch.ends.tolist() == [7, 7]
    # a: its block's rows; b: rows shifted by one, of response positions 1, 3 and 4
    assert batch.places.tolist() == [3, 4, 7 + 2, 7 + 4, 7 + 5] and batch.read_starts.tolist() == [0, 2, 5]
    assert batch.block_table.tolist() == [[4, 0, 0], [2, 9, 3]]
    assert len(batch.readouts) == 2
    for array in (batch.positions, batch.token_ids, batch.query_starts, batch.places, batch.read_starts):
        assert array.dtype == np.int32


def test_dream_reads_its_first_token_at_the_prompts_last_row():
    batch = pack([decoding(3, prompt=[5, 6], traits=DREAM).plan()], [[1]])
    assert batch.places.tolist() == [1, 2, 3]


@pytest.mark.parametrize("traits", [LLADA, DREAM], ids=["llada", "dream"])
@pytest.mark.parametrize("cache", ["none", "dual"])
def test_places_are_those_of_the_reads(traits, cache):
    """Whatever a policy computes, place k of a request is the row of the k-th position it reads."""
    rng = np.random.default_rng(0)
    requests = [decoding(40, prompt=[5] * n, traits=traits, cache=cache, block_length=8) for n in (1, 33, 70)]
    for _ in range(12):
        requests = [r for r in requests if not r.canvas.done]
        planned = [request.plan() for request in requests]
        batch = pack(planned, [[1]] * len(requests))
        for i, request in enumerate(requests):
            start, stop = batch.query_starts[i], batch.query_starts[i + 1]
            places = batch.places[batch.read_starts[i] : batch.read_starts[i + 1]]
            assert ((start <= places) & (places < stop)).all()
            assert batch.positions[places].tolist() == (request.canvas.candidates + traits.row_shift).tolist()
            queries = batch.positions[start:stop]
            assert (np.diff(queries) > 0).all()
            assert batch.token_ids[start:stop].tolist() == request.canvas.tokens[queries].tolist()
            answer(request, rng.random(len(places)), planned=planned[i])


def test_a_steps_observation_is_cut_into_requests():
    step = StepObservation(
        tokens=np.arange(5, dtype=np.int32),
        confidence=np.linspace(0, 1, 5, dtype=np.float32),
        entropy=np.arange(5, dtype=np.float32),
        logprobs={1: ("ids", "values", "ranks")},
        broken=np.array([1]),
    )
    part = step.of_request(1, 2, 5, np.array([0, 4, 6]))
    assert part.tokens.tolist() == [2, 3, 4] and part.positions.tolist() == [0, 4, 6]
    assert part.confidence.tolist() == [0.5, 0.75, 1.0] and part.entropy.tolist() == [2, 3, 4]
    assert part.margin is None and part.logprobs == ("ids", "values", "ranks")
    assert part.finite
    first = step.of_request(0, 0, 2, np.array([1, 2]))
    assert first.logprobs is None and not first.finite
