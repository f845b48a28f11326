"""A sliding window in the engine: the dense model's tokens and passes, with every policy that has no blocks."""

import random

import pytest
from dense import decode
from vllm import SamplingParams

from vllm_dllm.caching.registry import FULL

HERE = [p for p in FULL.values() if not p.needs_blocks and p.probe_class is None]


def requests(model: str) -> list[tuple[list[int], int, dict]]:
    """Prompts, response lengths and settings, drawn once."""
    rng = random.Random(6)
    made = []
    for policy in HERE:
        if policy.example and model == "tiny-dream":
            continue  # dkv-greedy, for LLaDA models only
        for window in (5, 24):
            rule = policy.example or rng.choice([{"dllm_threshold": 0.8}, {"dllm_tokens_per_step": 3}])
            settings = {"dllm_cache": policy.name, "dllm_window_length": window} | rule
            if policy.example:
                settings["dllm_scores"] = [rng.random() for _ in range(40)]
            made.append(([rng.randrange(8, 100) for _ in range(rng.randrange(5, 60))], 40, settings))
    return made


@pytest.mark.parametrize(("engine", "model"), [("llada", "tiny-llada"), ("dream", "tiny-dream")])
def test_a_window_with_every_policy(engine, model, request):
    engine, asked = request.getfixturevalue(engine), requests(model)
    params = [
        SamplingParams(temperature=0, max_tokens=length, ignore_eos=True, extra_args=settings)
        for _, length, settings in asked
    ]
    results = engine.run([{"prompt_token_ids": prompt} for prompt, _, _ in asked], params)
    for (prompt, length, settings), (output, trace) in zip(asked, results, strict=True):
        dense = decode(model, prompt, length, settings)
        assert list(output.outputs[0].token_ids) == dense.canvas.response.tolist(), settings
        assert trace["unmasked"] == [p.unmasked for p in dense.record], settings
        assert trace["query_tokens"] == [p.query_tokens for p in dense.record], settings
        if settings.get("dllm_tokens_per_step") == 3:
            assert len(trace["unmasked"]) == 14, "three a pass, whatever the window"
