"""Sampling parameters that change what is likely, in a real engine: alone and beside others, under every policy."""

import random

import pytest
from common import EOS, MASK
from prompts import DREAMS, POLICIES, as_prompt, head, params, task_prompts, token_ids
from vllm import SamplingParams

PROMPT = as_prompt(head("count 3 by 4 x6"))  # 3 7 11 15 19 23
ONE, SEVEN = 25, 31
ENGINES = pytest.mark.parametrize("name, policies", [("llada", list(POLICIES)), ("dream", DREAMS)])


def with_policy(name: str, **arguments) -> SamplingParams:
    return params(64, dllm_cache=name, **POLICIES[name], **arguments)


def texts(engine, asked: list[SamplingParams]) -> list[str]:
    return [o.outputs[0].text for o in engine.generate([PROMPT] * len(asked), asked)]


@ENGINES
def test_under_every_policy(name, policies, request):
    """What must not stand in an answer does not, whatever the policy; all in one batch, with others between."""
    engine = request.getfixturevalue(name)
    kinds = [
        {"bad_words": ["1"]},
        {"bad_words": ["15", "19", "71", "1 1"], "logprobs": 1},
        {"allowed_token_ids": [ONE, SEVEN, EOS]},
        {"logit_bias": {ONE: -100.0}, "temperature": 1.0, "seed": 5, "min_p": 0.2},
        {"min_tokens": 40, "presence_penalty": 0.2, "repetition_penalty": 1.1},
    ]
    asked = [(policy, kind) for policy in policies for kind in kinds]
    random.Random(1).shuffle(asked)
    requests = [with_policy(policy, **kind) for policy, kind in asked]
    others = [params(64) for _ in requests]
    mixed = [each for pair in zip(requests, others, strict=True) for each in pair]
    outputs = engine.generate([PROMPT] * len(mixed), mixed)
    (plain,) = {o.outputs[0].text for o in outputs[1::2]}
    for (policy, kind), output in zip(asked, outputs[::2], strict=True):
        answer, ids = output.outputs[0], token_ids(output)
        said = f"{policy} {kind}: {answer.text!r}"
        assert MASK not in ids and answer.finish_reason in ("stop", "length"), said
        if "bad_words" in kind:
            assert not any(word in answer.text for word in kind["bad_words"]), said
        elif "allowed_token_ids" in kind:
            assert set(ids) <= set(kind["allowed_token_ids"]), said
        elif "logit_bias" in kind:
            assert ONE not in ids, said
        else:
            assert EOS not in ids[:40] and len(ids) > 40, said
        assert answer.text != plain, said


def test_what_changes_nothing_changes_nothing(llada):
    """Values that have no effect, through all the machinery."""
    harmless = [
        {"logit_bias": {ONE: 0.0}},
        {"bad_words": ["abc", "x"]},
        {"allowed_token_ids": list(range(128))},
        {"allowed_token_ids": [i for i in range(128) if i != 90]},
        {"min_tokens": 3},
        {"repetition_penalty": 1.0000001, "logprobs": 2},
    ]
    want, *got = texts(llada, [params(64)] + [params(64, **kind) for kind in harmless])
    assert want == "3 7 11 15 19 23" and set(got) == {want}


def test_one_answer_alone_and_in_a_batch(llada):
    prompts = task_prompts(12, seed=8)
    kind = {"repetition_penalty": 1.4, "frequency_penalty": 0.3, "logit_bias": {ONE: -2.0}, "bad_words": ["15", "2"]}
    asked = [params(64, ignore_eos=True, logprobs=i % 3 or None, **kind) for i in range(12)]
    together = [token_ids(o) for o in llada.generate(prompts, asked)]
    alone = [token_ids(llada.generate([p], [a])[0]) for p, a in zip(prompts, asked, strict=True)]
    assert together == alone
    plain = [token_ids(o) for o in llada.generate(prompts, params(64, ignore_eos=True))]
    assert sum(a != b for a, b in zip(plain, alone, strict=True)) > 6


def test_penalties_on_the_plain_model(llada, plain_llada):
    """One token a pass: each is the most likely one after vLLM's penalties over the prompt and what is unmasked."""
    import torch
    from vllm.model_executor.layers.utils import apply_penalties

    ids = head("echo banana")
    values = {"presence_penalty": 0.8, "frequency_penalty": 0.7, "repetition_penalty": 1.2}
    ((_, trace),) = llada.run(
        [as_prompt(ids)], [params(24, dllm_tokens_per_step=1, dllm_block_length=24, ignore_eos=True, **values)]
    )
    known: list[int] = []
    for logits, masked, (position,) in plain_llada.passes(ids, trace):
        size = len(logits)
        prompt, output = (torch.tensor([tokens] * size).long().view(size, -1) for tokens in (ids, known))
        logits = apply_penalties(logits, prompt, output, *(torch.full((size,), v) for v in values.values()))
        logits[:, MASK] = -torch.inf
        best = max(masked, key=lambda i: logits[i].softmax(-1).max())
        assert position == best
        known.append(trace["output_ids"][position])
        assert known[-1] == int(logits[position].argmax())
    assert len(known) == 24


def test_log_probabilities_are_the_models_own(llada):
    """A token that a bias forces has the log probability that the model gave it."""
    forced = params(8, logit_bias={SEVEN: 100.0}, logprobs=1, ignore_eos=True, dllm_tokens_per_step=8)
    (output,) = llada.generate([PROMPT], forced)
    assert set(token_ids(output)) == {SEVEN}
    first = output.outputs[0].logprobs[0]
    assert first[SEVEN].logprob < -2 and first[SEVEN].rank > 1
    best = max(first, key=lambda token: first[token].logprob)
    assert best == SEVEN - 4, "a 3"


def test_a_dead_end_is_that_request_s_alone(llada):
    """`11` is the only word of this length, and barred: known when one of its tokens is there."""
    dead = params(8, allowed_token_ids=[ONE], bad_words=["11"], ignore_eos=True, dllm_tokens_per_step=1)
    outputs = llada.generate([PROMPT] * 5, [params(64), dead, params(64), dead, params(64)])
    for output in outputs[1::2]:
        answer = output.outputs[0]
        assert answer.finish_reason == "error"
        assert answer.stop_reason.startswith("allowed_token_ids and bad_words bar every token at position ")
    assert [o.outputs[0].text for o in outputs[::2]] == ["3 7 11 15 19 23"] * 3
