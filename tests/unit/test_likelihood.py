"""Estimators of likelihood: which masks they take, what they expect, how exact they say they are; and the read-out."""

import itertools
import math

import numpy as np
import pytest
import torch
from decoding_helpers import MASK

from vllm_dllm.likelihood.asked import Asked
from vllm_dllm.likelihood.draws import DRAWS, EPS, by_counts, by_times
from vllm_dllm.likelihood.passes import Chain, Masks, unpack
from vllm_dllm.messages import Edits, Guidance, Observation, Readout
from vllm_dllm.options import SettingError
from vllm_dllm.packing import pack
from vllm_dllm.running import Running
from vllm_dllm.scoring import Scoring
from vllm_dllm.settings import ModelTraits
from vllm_dllm.worker.readout import Reader

PROMPT, TARGET = [7, 8, 9], [20, 21, 22, 23, 24]
TRAITS = {"llada": ModelTraits(MASK, 0, "llada"), "dream": ModelTraits(MASK, -1, "dream")}


# ---- estimators ----


def score(mask: np.ndarray) -> float:
    """As a model's: a sum over what is masked, each term worse the more is masked."""
    return -float((mask * np.arange(1, len(mask) + 1)).sum() * (1 + mask.sum() ** 2))


def every_mask(length: int) -> np.ndarray:
    return np.asarray(list(itertools.product((0, 1), repeat=length)), bool)


def expected(kind: str, length: int, strata: int) -> float:
    """The estimate's exact expectation, over all masks."""
    total = 0.0
    if kind == "counts":
        for first, i in itertools.product(range(1, length + 1), range(strata)):
            count = (round(first + i * length / strata) - 1) % length + 1
            masks = [m for m in every_mask(length) if m.sum() == count]
            total += length / count * np.mean([score(m) for m in masks]) / length / strata
        return total
    # a stratum's offset is uniform, so that all together are: a fine grid in place of the integral
    chances = EPS + (1 - EPS) * (np.arange(20_000) + 0.5) / 20_000
    for mask in every_mask(length - 1):
        count = mask.sum()
        weight = (chances ** (count - 1.0) * (1 - chances) ** (length - 1 - count)).mean() if count else 0
        total += weight * score(np.append(mask, False))
    return total


@pytest.mark.parametrize("kind", DRAWS)
@pytest.mark.parametrize("length, strata", [(2, 16), (5, 10), (8, 16), (7, 1)])
def test_the_drawn_estimator_expects_what_enumeration_gives(kind, length, strata):
    plan = Asked("mc", mc_num=2000, strata=strata, seed=5).plan(0, PROMPT, TARGET[:1] * length, kind)
    result = plan.result(np.asarray([score(m) for m in plan.passes.masks]), None)
    assert len(result.each) == 2000 and result.logprob == pytest.approx(np.mean(result.each))
    assert abs(result.logprob - expected(kind, length, strata)) < 3 * result.stderr
    if (kind, length, strata) != ("times", 2, 16):  # where each draw is the same or nothing
        assert result.stderr < abs(result.logprob) / 10


def test_a_batch_of_llada_is_spread_over_the_counts():
    masks, weights = by_counts(8, 8, np.random.default_rng(0))
    counts = masks.sum(1)
    assert sorted(counts.tolist()) == list(range(1, 9)) and (weights == 8 / counts).all()
    masks, _ = by_counts(8, 64, np.random.default_rng(0))
    assert len({tuple(m) for m in masks[masks.sum(1) == 4]}) > 1


def test_a_batch_of_dream_is_spread_over_the_probabilities():
    masks, weights = by_times(1000, 8, np.random.default_rng(0))
    chances = np.sort(1 / weights)
    np.testing.assert_allclose(np.diff(chances), (1 - EPS) / 8, atol=1e-9)
    assert EPS <= chances[0] and chances[-1] < 1
    np.testing.assert_allclose(masks.mean(1) * weights, 1, atol=0.3)
    assert not masks[:, -1].any()


def test_draws_are_a_pairs_own():
    def masks(target, **more):
        return Asked("mc", mc_num=32, **more).plan(0, PROMPT, target, "counts").passes.masks

    assert (masks(TARGET) == masks(TARGET, seed=0)).all()
    assert (masks(TARGET) != masks(TARGET, seed=1)).any()
    assert (masks(TARGET) != masks(TARGET[::-1])).any()


@pytest.mark.parametrize("draws, batch", [(128, 16), (2000, 16), (100, 10), (7, 7), (127, 1), (1, 1)])
def test_the_batches_divide_the_draws(draws, batch):
    assert Asked("mc", mc_num=draws).batch == batch


def test_given_masks_weigh_by_their_counts():
    plan = Asked("mc", [[[1, 0, 0, 1, 0], [0, 1, 0, 0, 0]]]).plan(0, PROMPT, TARGET, "times")
    result = plan.result(np.asarray([-4.0, -1.0]), True)
    assert result.each == [-10.0, -5.0] and result.logprob == -7.5 and result.greedy
    assert result.stderr == pytest.approx(2.5) and result.token_logprobs is None


def test_one_batch_says_nothing_of_its_error():
    plan = Asked("mc", mc_num=16, strata=16).plan(0, PROMPT, TARGET, "counts")
    assert plan.result(np.zeros(len(plan.passes)), None).stderr is None


def test_draws_that_mask_nothing_cost_no_pass():
    plan = Asked("mc", mc_num=400).plan(0, PROMPT, TARGET[:2], "times")
    assert plan.passes.masks.any(1).all() and 0 < len(plan.passes) < 400 == len(plan.weights)
    result = plan.result(np.full(len(plan.passes), -1.0), None)
    assert np.count_nonzero(result.each) == len(plan.passes)


REFUSED = [
    ({"estimator": "exact"}, "estimator='exact' is not allowed: it must be one of chain, mc"),
    ({"mc_num": 5}, "mc_num is not allowed with estimator='chain'"),
    ({"masks": [[[1]]]}, "masks is not allowed with estimator='chain'"),
    ({"estimator": "mc", "masks": [[[1]]], "seed": 1}, "seed=1 is not allowed with masks"),
    ({"estimator": "mc", "mc_num": 0}, "mc_num=0 is not allowed: it must be a whole number from 1"),
    ({"estimator": "mc", "mc_num": 1.5}, "mc_num=1.5 is not allowed"),
    ({"estimator": "mc", "mc_num": True}, "mc_num=True is not allowed"),
    ({"estimator": "mc", "mc_num": 10, "strata": 3}, "strata=3 is not allowed with mc_num=10: it must divide it"),
    ({"estimator": "mc", "seed": -1}, "seed=-1 is not allowed"),
    ({"greedy": "yes"}, "greedy='yes' is not allowed: it must be true or false"),
]


@pytest.mark.parametrize("fields, sentence", REFUSED, ids=[str(f) for f, _ in REFUSED])
def test_what_is_refused(fields, sentence):
    with pytest.raises(SettingError) as refusal:
        Asked(**fields)
    assert sentence in str(refusal.value)


MASKS = [
    ([], "masks[0]=[] is not allowed: it must be a list of at least one mask"),
    (5, "masks[0]=5 is not allowed"),
    ([[1, 0]], "masks[0][0]=[1, 0] is not allowed: it must be a list of 5 numbers 0 or 1"),
    ([[1, 0, 0, 0, 2]], "masks[0][0]=[1, 0, 0, 0, 2] is not allowed"),
    ([[1, 0, 0, 0, 0], [0] * 5], "masks[0][1]=[0, 0, 0, 0, 0] is not allowed: it must be a mask with at least one 1"),
    (["10000"], "masks[0][0]='10000' is not allowed"),
]


@pytest.mark.parametrize("masks, sentence", MASKS, ids=[str(m) for m, _ in MASKS])
def test_masks_that_are_refused(masks, sentence):
    with pytest.raises(SettingError) as refusal:
        Asked("mc", [masks]).plan(0, PROMPT, TARGET, "counts")
    assert str(refusal.value).startswith(sentence)


def test_masks_are_for_each_pair():
    with pytest.raises(SettingError, match="one list for each of the 3 pairs"):
        Asked("mc", [[[1]]]).check_count(3)


def test_dreams_draws_want_a_token_behind_what_is_predicted():
    with pytest.raises(SettingError, match="a target of 1 token is not allowed"):
        Asked("mc").plan(0, PROMPT, [20], "times")


# ---- passes ----


def test_the_chain_masks_all_that_follows():
    chain = Chain(0, 3, 3)
    assert [[part.tolist() for part in chain.pass_of(i)] for i in range(3)] == [
        [[0, 1, 2], [0]],
        [[1, 2], [1]],
        [[2], [2]],
    ]
    assert [(p.first, p.stop) for p in chain.slices(2)] == [(0, 2), (2, 3)]
    assert unpack(chain.pack()) == chain


@pytest.mark.parametrize("length", [1, 8, 13])
def test_masks_travel_as_bits(length):
    masks = np.random.default_rng(0).random((5, length)) < 0.5
    assert (unpack(Masks(masks).pack()).masks == masks).all()
    assert np.concatenate([p.masks for p in Masks(masks).slices(2)]).tolist() == masks.tolist()


@pytest.mark.parametrize("family", TRAITS)
@pytest.mark.parametrize("cfg_scale", [0.0, 1.5])
def test_a_pass_of_a_request_that_scores(family, cfg_scale):
    scoring = Scoring(
        PROMPT, TARGET, Masks(np.asarray([[1, 0, 0, 1, 0], [0, 0, 0, 0, 1]], bool)), TRAITS[family], cfg_scale
    )
    planned = scoring.plan()
    shift = TRAITS[family].row_shift
    assert planned.full and planned.token_ids.tolist() == [*PROMPT, MASK, 21, 22, MASK, 24]
    assert planned.reads.tolist() == [3, 6] and planned.named.tolist() == [20, 23]
    assert planned.rows.tolist() == [3 + shift, 6 + shift]
    assert (planned.second is None) == (cfg_scale == 0)
    if planned.second is not None:
        assert planned.second.token_ids.tolist() == [MASK] * 3 + [MASK, 21, 22, MASK, 24]
        assert planned.tokens == 16
    batch = pack([planned], [[1]] * (2 if cfg_scale else 1))
    assert batch.named[0].tolist() == [20, 23]


def test_what_was_read_with_other_weights_is_read_again():
    scoring = Scoring(PROMPT, TARGET, Chain(0, 5, 5), TRAITS["llada"], top=0)
    running = Running(scoring, [[1]])
    row = np.asarray([[20]], np.int32), np.full((1, 1), -0.5, np.float32), np.ones(1, np.int64)

    def finish(planned):
        reads = planned.reads
        scoring.finish(planned, Observation(reads, reads, reads.astype(np.float32), logprobs=row))

    first = scoring.plan()
    assert not running.mixed(first, 3)
    finish(first)
    second = scoring.plan()
    assert second.number == 1 and running.mixed(second, 4)
    again = scoring.redo()
    assert again.number == 0 and not running.mixed(again, 4)
    for _ in range(5):
        finish(scoring.plan())
    assert scoring.done and scoring.scores.tolist() == [-0.5] * 5 and len(scoring.rows) == 5


def test_a_chain_by_blocks_computes_a_block_anew_when_it_is_whole():
    """Canvases end with their block; what is marked while a pass is under way is computed by the next one."""
    traits = ModelTraits(MASK, 0, "llada", block_length=4)
    scoring = Scoring(PROMPT, TARGET, Chain(0, 5, 5), traits, block=4)
    row = np.asarray([[20]], np.int32), np.full((1, 1), -0.5, np.float32), np.ones(1, np.int64)
    passes = []

    def go_on(refresh: bool = False) -> None:
        planned = scoring.plan()
        passes.append((planned.queries.tolist(), planned.token_ids.tolist(), planned.reads.tolist(), planned.end))
        if refresh:
            scoring.refresh()
        reads = planned.reads
        scoring.finish(planned, Observation(reads, reads, reads.astype(np.float32), logprobs=row))

    for refresh in (False, False, True, False):
        go_on(refresh)
    assert passes == [
        ([0, 1, 2, 3], [7, 8, 9, MASK], [3], 4),
        ([0, 1, 2, 3, 4, 5, 6, 7], [7, 8, 9, 20, MASK, MASK, MASK, MASK], [4], 8),
        ([4, 5, 6, 7], [21, MASK, MASK, MASK], [5], 8),
        ([0, 1, 2, 3, 4, 5, 6, 7], [7, 8, 9, 20, 21, 22, MASK, MASK], [6], 8),
    ]
    assert scoring.postpone(scoring.plan()) is None, "what is short already"
    again = scoring.redo()
    assert again.number == 0 and again.full and again.block == 4
    assert scoring.shown()["output_ids"] == TARGET


def test_a_long_prompt_is_scored_from_its_start_again_after_a_cache_reset():
    """Its passes are of a block or two; one that computes all before it might have room in no step."""
    traits = ModelTraits(MASK, 0, "llada", block_length=4)
    scoring = Scoring([7], [20] * 99, Chain(0, 99, 99), traits, top=0, block=4)
    running = Running(scoring, [[1]])
    row = np.asarray([[20]], np.int32), np.full((1, 1), -0.5, np.float32), np.ones(1, np.int64)
    sizes = []
    while not scoring.done:
        if len(sizes) == 60:
            scoring.refresh()
        planned = scoring.plan()
        planned = running.within(16, planned, chunked=True) or planned
        sizes.append(planned.tokens)
        reads = planned.reads
        scoring.finish(planned, Observation(reads, reads, reads.astype(np.float32), logprobs=row))
    assert len(sizes) == 60 + 99 and max(sizes) == 8
    assert len(scoring.rows) == 99 and scoring.scores.tolist() == [-0.5] * 99


# ---- read-out ----


def logits_of(rows: int, seed: int) -> torch.Tensor:
    return torch.randn(rows, 30, generator=torch.Generator().manual_seed(seed)) * 3


def test_named_tokens_are_read_beside_what_others_read():
    """Of some requests that lie beside each other and of one that does not, with and without likely tokens beside them."""
    reader, logits = Reader("gumbel", MASK), logits_of(40, 0)
    starts = np.asarray([0, 5, 8, 20, 33, 40])
    readouts = [Readout(), Readout(logprobs=0), Readout(logprobs=0), Readout(logprobs=2), Readout(margin=True)]
    rng = np.random.default_rng(0)
    named = {i: rng.integers(2, 30, starts[i + 1] - starts[i]).astype(np.int32) for i in (1, 2, 3)}
    seen = reader.read(logits.clone().__getitem__, starts, readouts, named=named)
    want = logits.double().log_softmax(-1).numpy()
    for i, tokens in named.items():
        ids, logprobs, ranks = seen.of_request(i, starts[i], starts[i + 1], np.arange(len(tokens))).logprobs
        lines = want[starts[i] : starts[i + 1]]
        assert ids[:, 0].tolist() == tokens.tolist() and ids.shape[1] == 1 + readouts[i].logprobs
        np.testing.assert_allclose(logprobs[:, 0], lines[np.arange(len(tokens)), tokens], atol=1e-5)
        np.testing.assert_allclose(logprobs[:, 1:], -np.sort(-lines)[:, : readouts[i].logprobs], atol=1e-5)
        assert ranks.tolist() == [int((line >= line[t]).sum()) for line, t in zip(lines, tokens, strict=True)]
    alone = reader.read(logits[33:].clone().__getitem__, np.asarray([0, 7]), readouts[4:])
    assert seen.tokens[33:].tolist() == alone.tokens.tolist() and seen.margin[33:].tolist() == alone.margin.tolist()


def test_guided_logits_are_those_that_are_read():
    reader, own, second = Reader("gumbel", MASK), logits_of(4, 1), logits_of(4, 2)
    both = torch.cat((own, second))
    named = {0: np.asarray([3, 4, 5, 6], np.int32)}
    seen = reader.read(
        both.clone().__getitem__,
        np.asarray([0, 4, 8]),
        [Readout(logprobs=0)],
        guidance={0: Guidance(1, 1.5)},
        named=named,
    )
    want = (second + 2.5 * (own - second)).double().log_softmax(-1)
    np.testing.assert_allclose(seen.logprobs[0][1][:, 0], want[range(4), [3, 4, 5, 6]], atol=1e-5)


def test_what_is_not_finite_is_known():
    reader, logits = Reader("gumbel", MASK), logits_of(3, 3)
    logits[1, 5] = math.nan
    named = {0: np.asarray([3], np.int32), 1: np.asarray([3], np.int32), 2: np.asarray([3], np.int32)}
    edits: dict[int, Edits] = {}
    seen = reader.read(logits.clone().__getitem__, np.arange(4), [Readout(logprobs=0)] * 3, edits, named=named)
    assert [seen.of_request(i, i, i + 1, np.zeros(1)).finite for i in range(3)] == [True, False, True]
