"""64 requests at once, of every kind: each gets the answer it gets alone."""

import asyncio
import random

import pytest
import tasks
from served import DRAWN, GEN_LENGTH, UNSURE, text_prompt

from vllm_dllm.caching.registry import FULL
from vllm_dllm.options import SettingError
from vllm_dllm.settings import ModelTraits, resolve
from vllm_dllm.unmasking.registry import RULES

LLADA = ModelTraits(mask_id=1, row_shift=0, steps="llada")
RULE_VALUES = {
    "threshold": 0.8,
    "steps": 16,
    "tokens_per_step": 3,
    "denoising_steps": 4,
    "factor": 1.0,
    "dynamic_factor": 1.0,
    "entropy_threshold": 0.4,
    "entropy_bound": 0.4,
}
SCORES = ("confidence", "margin", "entropy", "random")
BLOCKS = (8, 16, 32)
WINDOWS = (8, 24)


def allowed(settings: dict) -> bool:
    try:
        resolve({"dllm_cache": "none", "dllm_gen_length": GEN_LENGTH}, settings, LLADA)
    except SettingError:
        return False
    return True


def settings_of_every_kind(count: int) -> list[dict]:
    """`dllm_*` settings of `count` requests: every policy that the server offers, every rule, score, block length."""
    rng = random.Random(0)
    found: list[dict] = []
    caches = [c for c in FULL if any(allowed({"dllm_cache": c, "dllm_score": s, **r}) for s in SCORES for r in RULE)]
    while len(found) < count:
        cache = caches[len(found) % len(caches)]
        settings = {"dllm_cache": cache, "dllm_score": rng.choice(SCORES), **rng.choice(RULE)}
        if not FULL[cache].needs_blocks and "dllm_steps" not in settings and rng.random() < 0.3:
            settings["dllm_window_length"] = rng.choice(WINDOWS)
        elif FULL[cache].window_length is None:
            settings["dllm_block_length"] = rng.choice(BLOCKS)
        if rng.random() < 0.2:
            settings["dllm_certainty_sigma"] = 8.0
        if rng.random() < 0.2:
            settings |= {"dllm_block_add_threshold": 0.2, "dllm_early_stop": True}
        if rng.random() < 0.3:
            settings["dllm_horizon"] = rng.choice((0, 5, 40))
        if allowed(settings):
            found.append(settings)
    return found


RULE = [{f"dllm_{rule}": RULE_VALUES[rule]} for rule in RULES]


def requests_of_every_kind() -> list[dict]:
    """What `client.completions.create` gets for each of 64 requests."""
    rng = random.Random(1)
    requests = []
    for i, settings in enumerate(settings_of_every_kind(64)):
        question, _ = tasks.sample(rng)
        request = {"prompt": text_prompt(question), "max_tokens": rng.choice((32, 48, 64)), "seed": i}
        if "dllm_steps" in settings:
            request["max_tokens"] = 4 * settings.get("dllm_block_length", 16)  # steps divide evenly over the blocks
        if rng.random() < 0.4:
            request["temperature"] = rng.choice((0.5, 1.0, 2.0))
        if rng.random() < 0.2:
            request["logprobs"] = 2
        if rng.random() < 0.3:
            request["suffix"] = " 3 7"
        elif "dllm_steps" not in settings and "dllm_scores" not in settings and rng.random() < 0.3:
            settings["dllm_template"] = ["3 ", request["max_tokens"] - 8, " 7 1", 2]
        body = {"vllm_xargs": settings}
        if rng.random() < 0.3:
            body["ignore_eos"] = True
        requests.append(request | {"extra_body": body})
    return requests


async def ask(client, model: str, request: dict):
    return await client.completions.create(model=model, **request)


def answer_of(completion) -> tuple:
    choice = completion.choices[0]
    return choice.text, choice.finish_reason, completion.usage.completion_tokens


def test_every_kind_is_there():
    kinds = settings_of_every_kind(64)
    assert {"none", "prefix", "dual"} <= {s["dllm_cache"] for s in kinds}
    for key in [
        "dllm_score",
        *(f"dllm_{rule}" for rule in RULES),
        "dllm_block_length",
        "dllm_certainty_sigma",
        "dllm_horizon",
    ]:
        assert any(key in s for s in kinds), key


def test_64_at_once_as_alone(server):
    requests = requests_of_every_kind()

    async def run():
        async with server.async_client() as client:
            alone = [await ask(client, server.model, r) for r in requests]
            together = await asyncio.gather(*(ask(client, server.model, r) for r in requests))
            return alone, together

    alone, together = asyncio.run(run())
    for request, one, other in zip(requests, alone, together, strict=True):
        assert answer_of(one) == answer_of(other), request
        mine, theirs = server.trace(one.id), server.trace(other.id)
        assert mine["unmasked"] == theirs["unmasked"], request
        assert mine["query_tokens"] == theirs["query_tokens"], request
        assert mine["cache"] == request["extra_body"]["vllm_xargs"]["dllm_cache"]
    assert len({answer_of(a)[0] for a in alone}) > 32, "answers that differ, or this test shows little"
    server.wait_idle()


def test_a_seed_gives_one_text_alone_and_among_64(server):
    """The same sampled request, once alone and 8 times among 56 others, some of which end early."""
    mine = {"prompt": text_prompt(UNSURE), "seed": 123} | DRAWN

    async def run():
        async with server.async_client() as client:
            alone = await ask(client, server.model, mine)
            others = [mine if i % 8 == 0 else mine | {"seed": i, "max_tokens": 32 + i} for i in range(64)]
            return alone, await asyncio.gather(*(ask(client, server.model, r) for r in others))

    alone, together = asyncio.run(run())
    assert {t.choices[0].text for t in together[::8]} == {alone.choices[0].text}
    assert len({t.choices[0].text for t in together}) > 32
    server.wait_idle()


@pytest.mark.parametrize("stream", [False, True])
def test_answers_are_right(server, stream):
    """The checkpoint's own tasks, 64 at once; each answer goes to the one who asked for it."""
    rng = random.Random(2)
    asked = [tasks.sample(rng, "echo" if i % 2 else "count") for i in range(64)]

    async def chat(client, question):
        answer = await client.chat.completions.create(
            model=server.model, messages=[{"role": "user", "content": question}], stream=stream
        )
        if not stream:
            return answer.choices[0].message.content
        return "".join([chunk.choices[0].delta.content or "" async for chunk in answer])

    async def run():
        async with server.async_client() as client:
            return await asyncio.gather(*(chat(client, question) for question, _ in asked))

    answers = asyncio.run(run())
    right = sum(answer == want for answer, (_, want) in zip(answers, asked, strict=True))
    assert right >= 32, f"{right} of 64"
    crossed = {want for _, want in asked} & {a for a, (_, want) in zip(answers, asked, strict=True) if a != want}
    assert not crossed
