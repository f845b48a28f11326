"""What is asked of tokens, where blocks reach beyond the response: formats, bad words, penalties, logprobs, seeds, `n`."""

import pytest
from causal_cases import as_prompts, asked, prompts
from common import EOS, MASK
from format_cases import FORMATS, FormatCase, spelling
from format_cases import asked as format_of
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from vllm import SamplingParams
from vllm.sampling_params import StructuredOutputsParams

from vllm_dllm.formats.helper import built

AT_ONCE, ROUNDS = 60, 4
RULES = [
    {},
    {"dllm_denoising_steps": 2},
    {"dllm_denoising_steps": 2, "dllm_dynamic_threshold": 0.3, "dllm_score": "margin"},
    {"dllm_threshold": 0.3},
    {"dllm_threshold": 0.1, "dllm_score": "margin"},
    {"dllm_tokens_per_step": 3},
    {"dllm_factor": 2.0},
    {"dllm_entropy_bound": 1.0},
    {"dllm_tokens_per_step": 2, "dllm_score": "random"},
]


@st.composite
def cases(draw) -> FormatCase:
    own = draw(st.sampled_from(RULES)) | {"dllm_cache": draw(st.sampled_from(["block", "none"]))}
    own |= draw(st.sampled_from([{}, {"dllm_drop_behind_end": True}, {"dllm_defer_eos": True}]))
    own["dllm_block_length"] = draw(st.sampled_from([4, 4, 7, 16, 32]))
    room, temperature = draw(st.sampled_from([0, 1, 5, 30])), draw(st.sampled_from([0.0, 0.7, 2.0]))
    prompt = draw(st.sampled_from(["count 3 by 4 x6", "echo abcxyz", "calc 3+4-5", "sum 1 2 3", "?"]))
    case = FormatCase(draw(FORMATS), room, own, temperature, draw(st.integers(0, 1000)), prompt)
    case.built = built(format_of(case.wanted), spelling("tiny-llada"))  # the same tokens
    return case


def test_every_answer_is_valid(sdar):
    """Some hundred of them, the last block's overflow decoded with most; those of a second run are the same."""
    seen = 0

    def ask(chosen: list[FormatCase]) -> list[str]:
        texts = [f"<|startoftext|><|user|>{case.prompt}<|assistant|>" for case in chosen]
        params = [
            SamplingParams(
                temperature=case.temperature,
                seed=case.seed,
                max_tokens=case.max_tokens,
                extra_args=case.settings,
                structured_outputs=StructuredOutputsParams(**case.wanted),
            )
            for case in chosen
        ]
        return [output.outputs[0].text for output in sdar.generate(texts, params)]

    @settings(
        max_examples=ROUNDS,
        phases=[Phase.generate],
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(cases(), min_size=AT_ONCE, max_size=AT_ONCE))
    def check(drawn):
        nonlocal seen
        chosen = [case for case in drawn if case.possible]
        found = ask(chosen)
        for case, text in zip(chosen, found, strict=True):
            assert case.fault(text) is None, case
        assert ask(chosen[:3]) == found[:3]
        seen += len(chosen)

    check()
    assert seen > 100


KINDS = {
    "penalties": dict(repetition_penalty=1.7, presence_penalty=0.5, frequency_penalty=0.3),
    "bias": dict(logit_bias={27: 3.0, 8: -5.0}),
    "bad words of several tokens": dict(bad_words=["11", "15", " 1", "aa", "((", "II"]),
    "few tokens": dict(allowed_token_ids=[27, 28, 8, EOS], min_tokens=9, ignore_eos=False),
    "drawn": dict(temperature=1.3, seed=5, top_k=20, top_p=0.95),
    "drawn, min_p": dict(temperature=2.0, seed=6, min_p=0.05),
    "no end": dict(dllm_suppress_eos=True, ignore_eos=False),
}


def test_parameters_alone_and_in_a_batch(sdar):
    """Lengths that leave overflow of each size behind the response, for each parameter; 28 at once."""
    lengths = (13, 14, 15, 16)
    kinds = [(length, own) for own in KINDS.values() for length in lengths]
    ids = as_prompts(prompts(len(kinds), 4))
    params = [asked(n, dllm_block_length=8, logprobs=1, **own) for n, own in kinds]
    together = sdar.run(ids, params)
    answers = [list(output.outputs[0].token_ids) for output, _ in together]
    for i in range(0, len(kinds), 5):
        assert list(sdar.run([ids[i]], [params[i]])[0][0].outputs[0].token_ids) == answers[i]
    names = [name for name in KINDS for _ in lengths]
    for name, (length, _), tokens, (output, trace) in zip(names, kinds, answers, together, strict=True):
        assert MASK not in tokens and len(output.outputs[0].logprobs) == len(tokens)
        assert trace["output_ids"][: len(tokens)] == tokens and len(trace["output_ids"]) == length
        if name == "few tokens":
            assert set(tokens) <= {27, 28, 8, EOS} and EOS not in tokens[:9]
        else:
            assert len(tokens) == length
        if name == "bad words of several tokens":
            text = output.outputs[0].text
            assert not any(word in text for word in KINDS[name]["bad_words"])
        if name == "no end":
            assert EOS not in tokens
    overflow = [
        max(map(max, filter(None, trace["unmasked"]))) >= n for (n, _), (_, trace) in zip(kinds, together, strict=True)
    ]
    assert sum(overflow) > 10, "what is decoded behind the response is in the trace's passes"


def test_log_probabilities_are_the_models_own(sdar, plain_sdar):
    """On the canvas up to the block's end, its overflow masked or not; a prompt's tail is in the first block."""
    found = sdar.run(
        as_prompts(prompts(4, 8)),
        [asked(n, logprobs=2, dllm_block_length=8, presence_penalty=0.7) for n in (5, 10, 15, 20)],
    )
    for output, trace in found:
        tokens, start = list(output.outputs[0].token_ids), trace["prompt_len"]
        known = dict(enumerate(output.prompt_token_ids))
        for part in trace["unmasked"]:
            if not part or max(part) >= len(tokens):
                break  # what overflows is not in the answer: records have it
            end = -(-(start + part[0] + 1) // 8) * 8
            logits = plain_sdar.logits([known.get(i, MASK) for i in range(end)], 8)
            want = logits[start:].log_softmax(-1)
            for i in part:
                at = output.outputs[0].logprobs[i]
                assert at[tokens[i]].logprob == pytest.approx(float(want[i, tokens[i]]), abs=1e-3)
                assert set(want[i].topk(2).indices.tolist()) <= set(at)
            known |= {start + i: tokens[i] for i in part}


def test_n_answers_are_those_of_the_seeds_that_follow(sdar):
    (ids,) = as_prompts(prompts(1, 2))
    (several,) = sdar.generate([ids], [asked(22, n=4, temperature=2.0, seed=40, dllm_tokens_per_step=1)])
    one_by_one = sdar.generate(
        [ids] * 4, [asked(22, temperature=2.0, seed=40 + i, dllm_tokens_per_step=1) for i in range(4)]
    )
    answers = [list(answer.token_ids) for answer in several.outputs]
    assert answers == [list(output.outputs[0].token_ids) for output in one_by_one]
    assert len({tuple(a) for a in answers}) == 4
