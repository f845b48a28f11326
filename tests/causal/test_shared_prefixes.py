"""Prefix caching and chunks of a prompt: the same tokens as without, and only what is new is computed."""

import random
from collections.abc import Sequence

import pytest
from causal_cases import differences
from common import Engine, golden
from vllm import SamplingParams

PAGE = 32


def params(gen_length: int = 24, **own) -> SamplingParams:
    return SamplingParams(temperature=0, max_tokens=gen_length, ignore_eos=True, extra_args=own)


def some_prompts(seed: int, lengths: Sequence[int], shared: int) -> list[list[int]]:
    """Random ones that begin alike."""
    rng = random.Random(seed)
    start = [rng.randrange(10, 120) for _ in range(shared)]
    return [(start + [rng.randrange(10, 120) for _ in range(n)])[:n] for n in lengths]


def run(engine: Engine, prompts: list[list[int]], **own) -> list[tuple[list[int], int, list[int]]]:
    """Of each prompt, all at once: tokens, how many positions were found, how many each pass computed."""
    answers = engine.run([{"prompt_token_ids": p} for p in prompts], [params(**own)] * len(prompts))
    return [(list(o.outputs[0].token_ids), o.num_cached_tokens, t["query_tokens"]) for o, t in answers]


def tokens(answers) -> list[list[int]]:
    return [answer[0] for answer in answers]


def test_a_conversation_computes_what_is_new(sdar):
    """Each turn's prompt is the last one's and its answer and a question: all whole pages of it are found."""
    prompt, found = some_prompts(1, [70], 0)[0], []
    for turn in range(4):
        ((answer, cached, passes),) = run(sdar, [prompt])
        ((alone, other, _),) = run(sdar, [prompt], dllm_cache="none")
        assert answer == alone and other == 0
        whole = len(prompt) // 4 * 4
        assert cached == (found[-1] // PAGE * PAGE if found else 0)
        assert passes[0] == whole - cached
        found.append(len(prompt) + len(answer))  # the last block is committed too
        prompt = [*prompt, *answer, *some_prompts(turn + 2, [9], 0)[0]]


def test_what_is_running_is_found(sdar):
    """And requests with another block length, whose keys are others, find none of it."""
    prompts = some_prompts(7, [100, 100, 90, 130], 96)
    run(sdar, prompts[:1])
    want = {b: tokens(run(sdar, prompts, dllm_cache="none", dllm_block_length=b)) for b in (4, 8, 12)}
    # their own pages, too, once they have been there; blocks of 12 positions do not make up pages
    for block_length, cached in (
        (4, [96, 96, 64, 96]),
        (8, None),
        (8, [96, 96, 64, 128]),
        (12, [0] * 4),
        (12, [0] * 4),
    ):
        answers = run(sdar, prompts, dllm_block_length=block_length)
        assert tokens(answers) == want[block_length]
        if cached is not None:  # which of those that begin at once finds what hangs on their order
            assert [found for _, found, _ in answers] == cached


def test_parts_of_prompts(sdar, small_sdar, whole_sdar):
    """Prompts longer than a step: whole pages at a time, beside other requests' passes."""
    prompts = some_prompts(3, [300, 20, 170, 64, 65, 31, 200, 5], 60)
    want = tokens(run(sdar, prompts, dllm_cache="none"))
    small, plain = run(small_sdar, prompts), run(whole_sdar, prompts)
    assert tokens(small) == want and tokens(plain) == want
    assert [passes[0] for _, _, passes in plain] == [300, 20, 168, 64, 64, 28, 200, 4]
    assert all(found == 0 for _, found, _ in plain)
    assert max(max(passes) for _, _, passes in small) <= 64 and small[0][2][:2] == [64, 64]
    alone = run(small_sdar, [prompts[0]])[0]
    assert alone[0] == want[0] and sum(alone[2][:5]) + alone[1] >= 300


@pytest.mark.parametrize("name", ["small_sdar", "whole_sdar"])
def test_golden_files(name, request, sampling):
    cases = sampling.take(golden("tiny-sdar", "sdar"), lambda case: case["block_length"], 0.2, 6)
    whole = name == "whole_sdar"  # else some prompts are computed in two passes
    assert not differences(request.getfixturevalue(name), cases, compare_passes=whole)


def test_conversations_with_shared_beginnings_and_aborts(sdar, small_sdar):
    """In an engine whose pages do not suffice: every answer is what it is alone, and no page is lost."""
    rng, engine = random.Random(5), small_sdar.llm.llm_engine
    beginnings = some_prompts(9, [40, 90, 130], 32)
    waiting = [
        (rng.choice(beginnings) + [rng.randrange(10, 120) for _ in range(rng.randrange(1, 30))], 2) for _ in range(24)
    ]
    asked: dict[str, tuple[list[int], int]] = {}
    answers: list[tuple[list[int], list[int]]] = []
    number = 0
    while waiting or engine.has_unfinished_requests():
        while waiting and len(asked) < 10:
            number += 1
            engine.add_request(f"turn-{number}", {"prompt_token_ids": waiting[0][0]}, params())
            asked[f"turn-{number}"] = waiting.pop(0)
        for output in engine.step():
            if output.finished and output.request_id in asked:
                prompt, turns = asked.pop(output.request_id)
                answer = list(output.outputs[0].token_ids)
                answers.append((prompt, answer))
                if turns and len(prompt) < 300:
                    waiting.append(([*prompt, *answer, *some_prompts(number, [6], 0)[0]], turns - 1))
        if asked and rng.random() < 0.02:
            gone = rng.choice(list(asked))
            engine.abort_request([gone])
            del asked[gone]
        small_sdar.check_integrity()
    small_sdar.check_idle()
    assert len(answers) > 40
    want = tokens(run(sdar, [prompt for prompt, _ in answers], dllm_cache="none"))
    assert [answer for _, answer in answers] == want


def test_nobody_finds_what_other_weights_have_made(sdar):
    (prompt,) = some_prompts(11, [80], 0)
    before = run(sdar, [prompt])[0]
    assert run(sdar, [prompt])[0][1] == 64
    sdar.llm.collective_rpc("negate_queries")
    try:
        changed = run(sdar, [prompt])[0]
        assert changed[0] != before[0] and max(changed[2]) >= 80  # what it had found was computed anew
        assert changed[0] == run(sdar, [prompt], dllm_cache="none")[0][0]
        assert [run(sdar, [prompt])[0][:2] for _ in range(2)][1] == (changed[0], 64)
    finally:
        sdar.llm.collective_rpc("negate_queries")
    assert sdar.llm.reset_prefix_cache()
    assert run(sdar, [prompt])[0] == before
