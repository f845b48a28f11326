"""Prompts and requests for the engine tests."""

import random
from typing import Any

import tasks
import train
from vllm import SamplingParams

# every policy, and the settings that it is asked with
POLICIES = {
    "none": {},
    "prefix": {},
    "dual": {},
    "dkv-decode": {},
    "dkv-greedy": {"dllm_score": "random", "dllm_tokens_per_step": 3},
    "dkv-prefill": {},
    "dkv-pd": {},
    "entropy": {},
    "elastic": {},
    "d2": {},
    "d3": {},
}
DREAMS = [name for name in POLICIES if name != "dkv-greedy"]


def head(prompt: str) -> list[int]:
    """The token ids of a user turn, as the chat template gives them."""
    return train.encode(prompt, "")[0]


def as_prompt(ids: list[int]) -> dict:
    return {"prompt_token_ids": ids}


def task_prompts(n: int, seed: int) -> list[dict]:
    rng = random.Random(seed)
    return [as_prompt(head(tasks.sample(rng)[0])) for _ in range(n)]


def params(max_tokens: int | None = 64, **arguments: Any) -> SamplingParams:
    """Greedy unless told otherwise; keywords that begin with `dllm_` are settings."""
    settings = {key: arguments.pop(key) for key in list(arguments) if key.startswith("dllm_")}
    return SamplingParams(**({"temperature": 0.0} | arguments), max_tokens=max_tokens, extra_args=settings or None)


def token_ids(output, index: int = 0) -> list[int]:
    return list(output.outputs[index].token_ids)
