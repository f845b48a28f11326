"""Temperature, top-k, top-p and seeds, through the engine."""

import random

import numpy as np
import pytest
import torch
from common import MASK
from prompts import as_prompt, head, params, task_prompts, token_ids

ENGINES = pytest.mark.parametrize("name", ["llada", "dream"])
VAGUE = head("count down")  # what follows is anyone's guess
PROMPT = as_prompt(VAGUE)


def sampled(seed: int | None, **arguments):
    return params(**({"max_tokens": 32, "temperature": 1.5, "seed": seed, "ignore_eos": True} | arguments))


def answers(engine, prompts, requests) -> list[list[int]]:
    return [token_ids(output) for output in engine.generate(prompts, requests)]


@ENGINES
def test_same_seed_same_text_whatever_shares_the_batch(name, request):
    engine = request.getfixturevalue(name)
    kinds = [
        sampled(1, dllm_tokens_per_step=2),
        sampled(2, top_k=5, dllm_block_length=8),
        sampled(3, top_p=0.8, dllm_threshold=0.7),
        sampled(4, temperature=0.4, top_k=20, top_p=0.9, dllm_steps=16),
        sampled(5, max_tokens=100, dllm_factor=1.0),
        sampled(6, dllm_steps=8, dllm_score="random"),
        sampled(7, dllm_entropy_bound=0.5),
        sampled(8, logprobs=3, dllm_score="margin", dllm_tokens_per_step=4),
        sampled(9, dllm_certainty_sigma=4.0, dllm_tokens_per_step=1, dllm_block_length=16),
    ]
    if name == "dream":
        kinds += [
            sampled(10, dllm_steps=8, dllm_score="origin"),
            sampled(11, dllm_steps=8, dllm_alg_temp=0.5),
            sampled(12, dllm_steps=8, dllm_alg_temp=0.5, dllm_score="entropy"),
        ]
    alone = [answers(engine, [PROMPT], [kind])[0] for kind in kinds]
    for seed in (0, 1):
        # among others: those without a seed, greedy ones, other lengths
        others = [
            sampled(None),
            params(80),
            sampled(99, max_tokens=7),
            sampled(None, logprobs=1),
            params(33, logprobs=0),
        ]
        mix = [(PROMPT, kind) for kind in kinds] + list(zip(task_prompts(5, seed), others, strict=True))
        order = list(range(len(mix)))
        random.Random(seed).shuffle(order)
        got = answers(engine, *map(list, zip(*(mix[i] for i in order), strict=True)))
        together = [got[order.index(i)] for i in range(len(kinds))]
        assert together == alone


# hot, and one position at a time: two seeds hardly ever agree
HOT = dict(temperature=2.0, max_tokens=48, dllm_tokens_per_step=1)


@ENGINES
def test_seeds_differ_and_no_seed_differs_between_calls(name, request):
    engine = request.getfixturevalue(name)
    got = answers(engine, [PROMPT] * 8, [sampled(seed, **HOT) for seed in range(8)])
    assert len(set(map(tuple, got))) > 4
    calls = [answers(engine, [PROMPT] * 8, [sampled(None, **HOT)] * 8) for _ in range(2)]
    assert calls[0] != calls[1] and len({tuple(a) for call in calls for a in call}) > 2


@ENGINES
def test_n(name, request):
    """n answers of one prompt are those of the seeds that follow each other, as vLLM numbers them."""
    engine = request.getfixturevalue(name)
    (output,) = engine.generate([PROMPT], sampled(40, n=4, **HOT))
    got = [token_ids(output, i) for i in range(4)]
    assert [o.index for o in output.outputs] == [0, 1, 2, 3] and len(set(map(tuple, got))) > 1
    assert got == answers(engine, [PROMPT] * 4, [sampled(40 + i, **HOT) for i in range(4)])
    (output,) = engine.generate([PROMPT], sampled(None, n=8, **HOT))
    assert len({tuple(token_ids(output, i)) for i in range(8)}) > 1


def test_seeds_of_any_size(llada):
    seeds = [0, -7, 2**63 - 1, -(2**63)]
    got = [answers(llada, [PROMPT], [sampled(seed, **HOT)])[0] for seed in seeds]
    assert got == answers(llada, [PROMPT] * 4, [sampled(seed, **HOT) for seed in seeds])
    assert len(set(map(tuple, got))) > 2


def test_one_token_to_choose_from_is_greedy(llada):
    greedy = answers(llada, [PROMPT], [params(32, ignore_eos=True)])
    for limit in ({"top_k": 1}, {"top_p": 1e-6}):
        assert answers(llada, [PROMPT], [sampled(5, temperature=2.0, **limit)]) == greedy


@ENGINES
def test_temperature_of_zero_needs_no_seed(name, request):
    engine = request.getfixturevalue(name)
    a, b, c = answers(engine, [PROMPT] * 3, [params(32), params(32, seed=1), params(32, seed=2)])
    assert a == b == c


@ENGINES
def test_draws_follow_the_models_distribution(name, request):
    """One response position, many seeds: the tokens' frequencies are the plain model's probabilities."""
    engine, plain = request.getfixturevalue(name), request.getfixturevalue(f"plain_{name}")
    ids, draws = VAGUE, 600
    logits = plain.logits([*ids, MASK])[-1].double() / 2.0
    logits[MASK] = -torch.inf
    want = logits.softmax(-1).numpy()
    assert want.max() < 0.9, "a distribution worth drawing from"
    got = answers(engine, [as_prompt(ids)] * draws, [sampled(s, temperature=2.0, max_tokens=1) for s in range(draws)])
    got = np.bincount([tokens[0] for tokens in got], minlength=len(want)) / draws
    assert got[MASK] == 0
    assert (np.abs(got - want) <= 4.5 * np.sqrt(want * (1 - want) / draws) + 1 / draws).all()


def test_top_k_limits_what_is_drawn(dream, plain_dream):
    ids = VAGUE
    logits = plain_dream.logits([*ids, MASK])[-1]
    logits[MASK] = -torch.inf
    best = set(logits.topk(3).indices.tolist())
    got = answers(dream, [as_prompt(ids)] * 64, [sampled(s, temperature=2.0, max_tokens=1, top_k=3) for s in range(64)])
    assert {tokens[0] for tokens in got} == best
