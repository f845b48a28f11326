"""Guaranteed formats in a real engine: no invalid answer, whatever the policy, the rule, the temperature."""

import re

import pytest
from common import Engine
from format_cases import FormatCase, format_cases
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from vllm import SamplingParams
from vllm.exceptions import VLLMValidationError
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


def ask(engine: Engine, regex: str, **more) -> str:
    params = SamplingParams(temperature=0, structured_outputs=StructuredOutputsParams(regex=regex), **more)
    return engine.generate(["<|startoftext|><|user|>echo abba<|assistant|>"], params)[0].outputs[0].text


def test_given_text_is_part_of_the_word(llada):
    """Before it no answer ends; in front of a suffix none ends at all."""
    for template in (["ab", 4], [2, "ba", 4], [4, "ab", 2], [1, "b", 3, "a"]):
        text = ask(llada, "(ab|ba){3}(ab)?", extra_args={"dllm_template": template})
        assert re.fullmatch("(ab|ba){3}(ab)?", text)
        at = 0
        for part in template:
            assert isinstance(part, int) or text[at : at + len(part)] == part
            at += part if isinstance(part, int) else len(part)
    text = ask(llada, "(ab|ba){3}", max_tokens=6, extra_args={"dllm_suffix": "#"})
    assert len(text) == 6 and re.fullmatch("(ab|ba){3}", text)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"max_tokens": 5}, "max_tokens=5 is not allowed with this format: it must be at least 6"),
        ({"max_tokens": 7, "extra_args": {"dllm_suffix": "#"}}, "no answer of this length"),
        ({"extra_args": {"dllm_template": ["aa", 4]}}, "no answer of this length"),
        ({"max_tokens": 8, "min_tokens": 2}, "min_tokens=2 is not allowed with structured_outputs"),
        ({"max_tokens": 8, "allowed_token_ids": [5, 6]}, "allowed_token_ids=[5, 6] is not allowed with structured_outputs"),
        ({"max_tokens": 8, "bad_words": ["a"]}, "bad_words=['a'] is not allowed with structured_outputs"),
        ({"max_tokens": 8, "extra_args": {"vllm_dllm.format": ["x", b"y"]}}, "the server's own"),
    ],
    ids=lambda v: str(v)[:40],
)  # fmt: skip
def test_no_answer_that_could_be_valid(llada, more, words):
    with pytest.raises(VLLMValidationError, match=re.escape(words)):
        ask(llada, "(ab|ba){3}(ab)?", **more)
    assert ask(llada, "abba", max_tokens=8) == "abba"


def test_parameters_beside_a_format(llada):
    """What makes tokens more or less likely goes with it; a script's parameters stay as they were."""
    params = SamplingParams(
        temperature=0.7,
        seed=1,
        max_tokens=16,
        n=2,
        logit_bias={10: 50.0},
        repetition_penalty=1.5,
        logprobs=2,
        structured_outputs=StructuredOutputsParams(choice=["abba", "baab"]),
    )
    for _ in range(2):
        (output,) = llada.generate(["<|startoftext|><|user|>echo abba<|assistant|>"], params)
        assert {answer.text for answer in output.outputs} <= {"abba", "baab"}
    assert params.structured_outputs.choice == ["abba", "baab"] and params.extra_args is None
