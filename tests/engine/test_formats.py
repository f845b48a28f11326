"""Guaranteed formats in a real engine: no invalid answer, whatever the policy, the rule, the temperature."""

import pytest
from common import Engine
from format_cases import FormatCase, format_cases
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from vllm import SamplingParams
from vllm.sampling_params import StructuredOutputsParams

AT_ONCE = 24


def answers(engine: Engine, cases: list[FormatCase]) -> list[str]:
    """The answers' texts, all requests in the engine at once."""
    prompts = [f"<|startoftext|><|user|>{case.prompt}<|assistant|>" for case in cases]
    params = [
        SamplingParams(
            temperature=case.temperature,
            seed=case.seed,
            max_tokens=case.max_tokens,
            extra_args=case.settings,
            structured_outputs=StructuredOutputsParams(**case.wanted),
        )
        for case in cases
    ]
    return [output.outputs[0].text for output in engine.generate(prompts, params)]


@pytest.mark.parametrize(("name", "model"), [("llada", "tiny-llada"), ("dream", "tiny-dream")])
def test_every_answer_is_valid(name, model, request):
    engine = request.getfixturevalue(name)
    seen = 0

    @settings(
        max_examples=2,
        phases=[Phase.generate],
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(format_cases(model), min_size=AT_ONCE, max_size=AT_ONCE))
    def check(cases):
        nonlocal seen
        cases = [case for case in cases if case.possible]
        for case, text in zip(cases, answers(engine, cases), strict=True):
            assert case.fault(text) is None, case
        seen += len(cases)

    check()
    assert seen > AT_ONCE / 2
