"""Golden cases of models whose attention is causal by blocks, as requests, and what an answer has to be.

An answer is asked for with its overflow, the tokens behind `gen_length` that the source decodes with the last block. Where
the source stops at an end token, it finishes that block first; the engine ends the request, with the same tokens up to there.
"""

import random
from typing import Any

import tasks
import train
from common import EOS, Engine
from settings import settings
from vllm import SamplingParams


def ends_at_eos(case: dict) -> bool:
    return bool(case.get("stop")) or case["source"] == "llada2"


def wanted(case: dict) -> list[int]:
    tokens = [*case["output_ids"], *case.get("overflow_ids", [])]
    return tokens[: tokens.index(EOS) + 1] if ends_at_eos(case) and EOS in tokens else tokens


def shown(case: dict, unmasked: list[list[int]]) -> list[list[int]]:
    """As the files show passes: LLaDA2's last one by what of it is in the output."""
    if case["source"] != "llada2" or len(unmasked) < case["passes"]:
        return unmasked
    last = [position for position in unmasked[-1] if position < len(case["output_ids"])]
    return [*unmasked[:-1], last] if last else unmasked[:-1]


def params(case: dict, **own: Any) -> SamplingParams:
    length = case["gen_length"] + len(case.get("overflow_ids", []))
    keys = settings(case) | own
    return SamplingParams(
        temperature=0,
        max_tokens=length,
        ignore_eos=not ends_at_eos(case),
        skip_reading_prefix_cache=True,  # else it might find what an earlier case left
        extra_args=keys,
    )


def differences(engine: Engine, cases: list[dict], compare_passes: bool = True, **own: Any) -> list[str]:
    """What is not as the files say of answers and, unless told otherwise, of passes where the request's cache is the source's."""
    found = []
    results = engine.run([{"prompt_token_ids": c["prompt_ids"]} for c in cases], [params(c, **own) for c in cases])
    for case, (output, trace) in zip(cases, results, strict=True):
        got, want = list(output.outputs[0].token_ids), wanted(case)
        if got != want:
            found.append(f"{case['prompt']!r}, {settings(case)}: {got} instead of {want}")
        unmasked = shown(case, [sorted(part) for part in trace["unmasked"] if part])
        passes = [sorted(part) for part in case["unmasked"]]
        # the engine ends when the answer is there; in the last block the source goes on behind it
        if unmasked != passes[: len(unmasked)] or min(sum(passes[len(unmasked) :], [len(got)])) < len(got):
            found.append(f"{case['prompt']!r}, {settings(case)}: unmasked {unmasked}")
        if compare_passes and trace["cache"] == {"sdar": "block", "llada2": "none"}[case["source"]]:
            queries = trace["query_tokens"]
            if queries != case["query_tokens"][: len(queries) if ends_at_eos(case) else None]:
                found.append(f"{case['prompt']!r}, {settings(case)}: computed {queries}")
    return found


def prompts(count: int, seed: int) -> list[list[int]]:
    """Token ids of so many questions, of all lengths modulo a block's."""
    rng = random.Random(seed)
    return [train.encode(tasks.sample(rng)[0], "")[0] for _ in range(count)]


def asked(max_tokens: int | None, **arguments: Any) -> SamplingParams:
    """Greedy, to its whole length, unless told otherwise; keywords that begin with `dllm_` are settings."""
    own = {key: arguments.pop(key) for key in list(arguments) if key.startswith("dllm_")}
    return SamplingParams(
        **({"temperature": 0.0, "ignore_eos": True} | arguments), max_tokens=max_tokens, extra_args=own
    )


def as_prompts(ids: list[list[int]]) -> list[dict]:
    return [{"prompt_token_ids": one} for one in ids]
