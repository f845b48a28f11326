"""Likelihood where attention is causal by blocks: the chain, which needs nothing behind the active block."""

import random

import pytest
from block_causal import BlockCausal
from causal_cases import as_prompts, asked, prompts
from common import CHECKPOINTS, MASK

from vllm_dllm import loglikelihood
from vllm_dllm.engine_config import model_traits
from vllm_dllm.options import SettingError


def plain_chain(model: BlockCausal, prompt: list[int], target: list[int], block: int) -> list[float]:
    """log p of each token, the canvas up to its block's end, masked from it on."""
    found = []
    for i, token in enumerate(target):
        position = len(prompt) + i
        end = (position // block + 1) * block
        ids = [*prompt, *target[:i]] + [MASK] * (end - position)
        found.append(float(model.logits(ids, block)[position].double().log_softmax(-1)[token]))
    return found


def pairs() -> list[tuple[list[int], list[int]]]:
    """Targets of all lengths, from one token on, behind prompts that end anywhere in a block."""
    some = prompts(6, 3)
    return [(ids[: 5 + i], other[: 1 + 3 * i]) for i, (ids, other) in enumerate(zip(some, some[::-1], strict=True))]


def test_the_chain_is_exact_and_computes_finished_blocks_once(sdar, plain_sdar):
    """Beside requests that decode; greedy decoding is one token a pass of the active block."""
    asked_pairs = pairs()
    sdar.new_traces()
    found = loglikelihood(sdar.llm, asked_pairs, use_tqdm=False)
    traces = list(sdar.new_traces().values())
    for (prompt, target), likelihood in zip(asked_pairs, found, strict=True):
        assert likelihood.token_logprobs == pytest.approx(plain_chain(plain_sdar, prompt, target, 4), abs=1e-4)
    assert all(trace["cache"] == "block" and trace["finish_reason"] == "stop" for trace in traces)
    for trace in traces:
        # a pass in a new block computes the one before it once more, as it is now
        assert trace["query_tokens"][0] % 4 == 0 and set(trace["query_tokens"][1:]) <= {4, 8}
    (ids,) = as_prompts(prompts(1, 6))
    (answer,) = sdar.generate([ids], [asked(7, dllm_tokens_per_step=1)])
    tokens = list(answer.outputs[0].token_ids)
    both = [(ids["prompt_token_ids"], tokens), (ids["prompt_token_ids"], [*tokens[:-1], 98])]
    assert [one.greedy for one in loglikelihood(sdar.llm, both, greedy=True, use_tqdm=False)] == [True, False]


def test_a_prompt_is_computed_once_for_all_its_targets(sdar, plain_sdar):
    """Whole pages of it are found, by likelihoods and by requests that decode, and nothing else of a likelihood's is."""
    rng = random.Random(17)
    long = [rng.randrange(10, 120) for _ in range(101)]
    targets = [[rng.randrange(10, 120) for _ in range(n)] for n in (3, 40, 9, 1)]
    sdar.new_traces()
    firsts = []
    for some in (targets[:1], targets):
        found = loglikelihood(sdar.llm, [(long, target) for target in some], use_tqdm=False)
        for one, target in zip(found, some, strict=True):
            assert one.token_logprobs == pytest.approx(plain_chain(plain_sdar, long, target, 4), abs=1e-4)
        firsts.append([trace["query_tokens"][0] for trace in sdar.new_traces().values()])
    # up to the block that is read first: of a request that takes a later part of a target, one further behind
    assert firsts[0] == [104] and min(firsts[1]) == 104 - 96 and max(firsts[1]) <= 101 + 40 - 96
    texts = [{"prompt_token_ids": ids} for ids in (long, [*long, *targets[1], 11])]
    for answer, found in zip(sdar.generate(texts, [asked(5)] * 2), (96, 96), strict=True):
        assert answer.num_cached_tokens == found
    sdar.check_idle()


def test_the_chain_of_a_model_with_experts(llada2):
    model, block = (
        BlockCausal.load(CHECKPOINTS / "tiny-llada2"),
        model_traits(llada2.llm.llm_engine.vllm_config).block_length,
    )
    some = pairs()[:3]
    for (prompt, target), likelihood in zip(some, loglikelihood(llada2.llm, some, use_tqdm=False), strict=True):
        assert likelihood.token_logprobs == pytest.approx(plain_chain(model, prompt, target, block), abs=1e-4)


@pytest.mark.parametrize("block", [4, 16])
def test_prompt_logprobs_are_the_chain_over_the_prompt(sdar, plain_sdar, block):
    """And then the request is answered as it is without them. Other requests decode and score meanwhile."""
    some = as_prompts(prompts(5, 9))
    own = [{"prompt_logprobs": 2}, {}, {"prompt_logprobs": 0, "logprobs": 1}, {}, {"prompt_logprobs": 1}]
    outputs = sdar.generate(some, [asked(11, dllm_block_length=block, **more) for more in own])
    plain = sdar.generate(some, [asked(11, dllm_block_length=block)] * 5)
    for ids, more, output, without in zip(some, own, outputs, plain, strict=True):
        assert output.outputs[0].token_ids == without.outputs[0].token_ids
        if not more:
            continue
        tokens = ids["prompt_token_ids"]
        first, *others = output.prompt_logprobs
        want = plain_chain(plain_sdar, tokens[:1], tokens[1:], block)
        assert first is None
        assert [o[t].logprob for o, t in zip(others, tokens[1:], strict=True)] == pytest.approx(want, abs=1e-4)


def test_what_says_nothing_of_such_a_model_is_refused(sdar):
    pair = ([2, 3, 75], [27, 8])
    for more in ({}, {"masks": [[[1, 0]]]}, {"mc_num": 4}):
        with pytest.raises(
            SettingError, match="estimator='mc' is not allowed: it must be chain with a model whose attention"
        ):
            loglikelihood(sdar.llm, [pair], "mc", use_tqdm=False, **more)
    with pytest.raises(
        SettingError, match="cfg_scale=1.0 is not allowed with a model whose attention is causal by blocks"
    ):
        loglikelihood(sdar.llm, [pair], cfg_scale=1.0, use_tqdm=False)
    with pytest.raises(SettingError, match="the canvas has 513, and it must be at most 512"):
        loglikelihood(sdar.llm, [([5], [6] * 512)], use_tqdm=False)
    sdar.check_idle()
