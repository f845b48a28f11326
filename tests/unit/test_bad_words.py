"""Words that are barred, under any order of unmasking."""

import numpy as np
import pytest
import torch
from decoding_helpers import MASK

from vllm_dllm.canvas import Canvas
from vllm_dllm.constraints import admitted
from vllm_dllm.constraints.bad_words import BadWords
from vllm_dllm.constraints.banned import Allowed
from vllm_dllm.decoding import Decoding, NotFinite, Sampling
from vllm_dllm.frontier import Blocks
from vllm_dllm.messages import Edits
from vllm_dllm.settings import ModelTraits, resolve
from vllm_dllm.worker.readout import Reader

VOCABULARY = 6
TRAITS = {"gumbel": ModelTraits(MASK, 0, "llada"), "categorical": ModelTraits(MASK, -1, "dream")}
RULES = [
    {"dllm_threshold": 0.1},
    {"dllm_steps": 4, "dllm_block_length": 6},
    {"dllm_tokens_per_step": 5},
    {"dllm_factor": 2.0},
    {"dllm_entropy_bound": 5.0},
]
POLICIES = ["none", "prefix", "dual", "dkv-decode", "dkv-prefill", "entropy"]


def contains(response: list[int], word: list[int]) -> bool:
    return any(response[i : i + len(word)] == word for i in range(len(response)))


def decode(constraints, keys: dict, seed: int, length: int = 12, sampler: str = "gumbel", **sampling) -> Decoding:
    """Random logits in each pass."""
    traits = TRAITS[sampler]
    decoding = Decoding(
        [3, 4], length, resolve({}, keys, traits), Sampling(seed=seed, **sampling), traits, constraints=constraints
    )
    generator = torch.Generator().manual_seed(seed)
    while not decoding.canvas.done:
        planned = decoding.plan()
        count = len(planned.reads)
        logits = torch.randn(count, VOCABULARY, generator=generator) * 2
        seen = Reader(sampler, MASK).read(
            logits.__getitem__,
            np.asarray([0, count]),
            [planned.readout],
            {} if planned.edits is None else {0: planned.edits},
        )
        decoding.finish(planned, seen.of_request(0, 0, count, planned.reads))
        assert decoding.canvas.passes < 200, "it makes no progress"
    return decoding


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("keys", RULES, ids=lambda keys: next(iter(keys)))
def test_no_response_has_one(keys, policy):
    for seed in range(12):
        rng = np.random.default_rng(seed)
        words = [rng.choice([0, 2, 3, 4, 5], rng.integers(2, 5)).tolist() for _ in range(rng.integers(1, 5))]
        options = {"sampler": ["gumbel", "categorical"][seed % 2], "temperature": [0.0, 1.5][seed // 2 % 2]}
        response = decode([BadWords(words)], keys | {"dllm_cache": policy}, seed, **options).canvas.response.tolist()
        assert MASK not in response and not any(contains(response, word) for word in words)


def test_where_nobody_bars_them_they_stand():
    found = [decode([], RULES[0], seed).canvas.response.tolist() for seed in range(50)]
    assert sum(contains(response, [2, 3]) for response in found) > 5


def test_with_a_policy_that_looks_ahead():
    keys = {"dllm_cache": "dkv-greedy", "dllm_score": "random", "dllm_tokens_per_step": 4}
    for seed in range(30):
        assert not contains(decode([BadWords([[2, 3], [3, 2]])], keys, seed).canvas.response.tolist(), [2, 3])


def test_the_missing_token_is_barred_wherever_it_is():
    """7 8 9 among _ 7 8 _ _ 8 9 _ 7 _ 9, and nothing that is beyond the response."""
    canvas = Canvas([7, 8], 12, MASK, Blocks(12))
    known = {1: 7, 2: 8, 5: 8, 6: 9, 8: 7, 10: 9}
    canvas.unmask(np.asarray(list(known)) + 2, np.asarray(list(known.values()), np.int32))
    edits = Edits()
    BadWords([[7, 8, 9]]).edit(canvas, canvas.candidates, edits)
    ((lines, tokens),) = edits.barred
    barred = list(zip((canvas.candidates[lines] - 2).tolist(), tokens.tolist(), strict=True))
    assert sorted(barred) == [(3, 9), (4, 7), (9, 8)]


def test_tokens_of_one_pass_that_make_a_word_together():
    canvas = Canvas([3], 6, MASK, Blocks(6))
    words = BadWords([[4, 5], [5, 5, 5]])
    at = np.asarray([3, 4, 5, 6])
    assert admitted([words], canvas, at, np.asarray([5, 5, 5, 2])).tolist() == [True, True, False, True]
    canvas.unmask(np.asarray([3, 4, 6]), np.asarray([5, 5, 2]))
    assert admitted([words], canvas, np.asarray([2]), np.asarray([4])).tolist() == [False]
    assert admitted([words], canvas, np.asarray([2]), np.asarray([5])).tolist() == [False]
    assert admitted([words], canvas, np.asarray([2]), np.asarray([2])).tolist() == [True]


def test_a_dead_end_says_who_made_it():
    constraints = [Allowed([2, 3], "allowed_token_ids"), BadWords([[2, 2], [2, 3], [3, 2], [3, 3]])]
    with pytest.raises(NotFinite, match="allowed_token_ids and bad_words bar every token at position"):
        decode(constraints, RULES[0], seed=1)
