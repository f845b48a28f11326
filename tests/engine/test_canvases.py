"""Given text and horizons in the real engine: every policy, sampling, logprobs, stop strings, little room."""

import pytest
from common import EOS, MASK
from prompts import as_prompt, head, params, token_ids

from vllm_dllm.caching.registry import FULL
from vllm_dllm.validation import Refusal

QUESTION = as_prompt(head("count 3 by 4 x6"))
TEMPLATE = ["3 7 ", 5, " 19 23", 20]
ANSWER = "3 7 11 15 19 23 27"  # with this text it goes on: the model has learnt that whole answers fill their place
NAMES = {"llada": FULL, "dream": [name for name in FULL if name != "dkv-greedy"]}


def settings_of(name: str) -> dict:
    length = {"dllm_window_length": 8} if FULL[name].window_length else {"dllm_block_length": 8}
    return {"dllm_cache": name} | length | FULL[name].example


@pytest.mark.parametrize("kind", ["llada", "dream"])
def test_every_policy_keeps_what_is_given(kind, request):
    engine = request.getfixturevalue(kind)
    given = [27, 8, 31, 8, MASK, MASK, MASK, MASK, MASK, 8, 25, 33, 8, 26, 27, *[MASK] * 20]
    for horizon in ({}, {"dllm_horizon": 3}):
        all_of_them = [
            params(None, ignore_eos=True, dllm_template=TEMPLATE, **settings_of(name), **horizon)
            for name in NAMES[kind]
        ]
        for output in engine.generate([QUESTION] * len(all_of_them), all_of_them):
            tokens = token_ids(output)
            assert len(tokens) == len(given) and MASK not in tokens
            assert all(g in (MASK, t) for g, t in zip(given, tokens, strict=True))
            assert EOS not in tokens[:15], "an end in front of given text"


def test_a_template_is_the_response(llada):
    for max_tokens in (None, 35, 16):  # 16: what a SamplingParams has that names none
        ((output, trace),) = llada.run([QUESTION], [params(max_tokens, dllm_template=TEMPLATE)])
        assert output.outputs[0].text == ANSWER
        assert trace["gen_length"] == 35 and trace["output_ids"][9:15] == [8, 25, 33, 8, 26, 27]


def test_a_suffix_is_neither_returned_nor_counted(llada):
    asked = params(9, dllm_suffix=" 19 23")
    ((output, trace),) = llada.run([QUESTION], [asked])
    assert output.outputs[0].text == "3 7 11 15" and output.outputs[0].finish_reason == "length"
    assert trace["gen_length"] == 9 == len(trace["output_ids"])
    assert trace["query_tokens"][0] == len(QUESTION["prompt_token_ids"]) + 9 + 6
    assert asked.extra_args == {"dllm_suffix": " 19 23"}, "the caller's own parameters are not changed"


def test_an_end_or_stop_in_given_text_ends_the_response(llada):
    (output,) = llada.generate([QUESTION], [params(None, dllm_template=["3 7", [EOS], 4])])
    assert output.outputs[0].text == "3 7" and output.outputs[0].finish_reason == "stop"
    (output,) = llada.generate([QUESTION], [params(None, dllm_template=TEMPLATE, stop=["9 2"])])
    assert output.outputs[0].text == "3 7 11 15 1" and output.outputs[0].stop_reason == "9 2"


def test_draws_around_given_text(llada):
    """`n` answers by seeds; the same again."""
    asked = params(None, temperature=2.0, n=4, seed=3, dllm_template=[6, " 15 ", 20], ignore_eos=True)
    unsure = as_prompt(head("calc 37+38-22+39"))
    first, again = (llada.generate([unsure], [asked])[0] for _ in range(2))
    texts = [list(o.token_ids) for o in first.outputs]
    assert texts == [list(o.token_ids) for o in again.outputs] and len({tuple(t) for t in texts}) == 4
    assert all(t[6:10] == [8, 25, 29, 8] and EOS not in t[:6] for t in texts)


def test_log_probabilities_of_given_tokens(llada):
    """0, alone: there was nothing to choose. Those of the others are as ever, requests of other widths beside them."""
    wanted = (0, 1, 4)
    asked = [params(None, dllm_template=["3 7 ", 5, " 19 23", 2], logprobs=n) for n in wanted]
    for n, output in zip(wanted, llada.generate([QUESTION] * 3, asked), strict=True):
        completion = output.outputs[0]
        assert len(completion.logprobs) == len(completion.token_ids)
        for i, (token, row) in enumerate(zip(completion.token_ids, completion.logprobs, strict=True)):
            if i < 4 or 9 <= i < 15:
                assert set(row) == {token} and row[token].logprob == 0.0
            else:
                assert row[token].logprob <= 0 and len(row) in (n or 1, n + 1)


def test_a_horizon_saves_what_the_answer_does_not_need(llada):
    """The same answer, and the passes end with it: positions behind block and horizon are never computed."""
    prompt = QUESTION["prompt_token_ids"]
    arguments = [params(480, dllm_horizon=16), params(96)]
    (far, trace), (near, _) = llada.run([QUESTION] * 2, arguments)
    assert far.outputs[0].text == near.outputs[0].text == "3 7 11 15 19 23"
    assert max(trace["query_tokens"]) == len(prompt) + 32 + 16 and trace["gen_length"] == 480


def test_pages_for_the_suffix_too(small):
    """16 pages of 32 tokens: four canvases of 4 pages each run at once, whose suffix takes the last of them."""
    asked = params(64, dllm_suffix=[8, 27] * 8, ignore_eos=True)
    long = as_prompt((QUESTION["prompt_token_ids"] * 3)[:48])
    outputs = small.generate([long] * 6, [asked] * 6)
    assert len({tuple(token_ids(o)) for o in outputs}) == 1 and len(token_ids(outputs[0])) == 64


ROOM = "it must be at most 256 (max_model_len)"


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"max_tokens": 37, "dllm_template": [38]}, "max_tokens=37 is not allowed with dllm_template"),
        ({"dllm_template": [38], "max_tokens": 15}, "or 38, the template's positions"),
        ({"dllm_template": [250, "a"]}, f"dllm_template of 251 positions is not allowed: with the prompt's 18 tokens the "
         f"canvas has 269, and {ROOM}"),
        ({"dllm_template": [10**12]}, ROOM),
        ({"max_tokens": 200, "dllm_suffix": "x" * 39}, f"and the suffix's 39 the canvas has 257, and {ROOM}"),
        ({"max_tokens": None, "dllm_suffix": "x" * 238}, "dllm_suffix of 238 tokens is not allowed"),
        ({"dllm_suffix": "x" * 10**6}, "a text of 1000000 characters is not allowed"),
        ({"dllm_template": ["<|mdm_mask|>", 3]}, "dllm_template with token 1 is not allowed"),
        ({"dllm_suffix": [128]}, "dllm_suffix with token 128 is not allowed: a token id must be from 0 to 127"),
        ({"dllm_suffix": [-1]}, "dllm_suffix with token -1 is not allowed"),
        ({"dllm_horizon": -1}, "dllm_horizon=-1 is not allowed: it must be a whole number of at least 0"),
        ({"dllm_steps": 5, "dllm_template": [32, "a"]}, "dllm_steps=5 is not allowed"),
    ],
    ids=lambda v: str(v)[:50],
)  # fmt: skip
def test_refused(small, arguments, words):
    with pytest.raises(Refusal) as refused:
        small.llm.generate([QUESTION], params(**({"max_tokens": None} | arguments)), use_tqdm=False)
    assert words in str(refused.value)
    small.check_idle()


def test_what_is_in_pages_that_were_never_computed_is_nothing_to_a_drift_test(llada):
    """The canvas grows past given text and suffix at once. Each request gets other pages, which others have used."""
    text = {"dllm_horizon": 8, "dllm_suffix": " 19 23", "dllm_template": ["3 7", 28, " 15", 22]}
    asked = params(56, ignore_eos=True, dllm_cache="elastic", **text)
    prompt = as_prompt(head("echo ajjvtynaqday"))
    answers = {tuple(token_ids(o)) for _ in range(3) for o in llada.generate([prompt] * 5, asked)}
    assert len(answers) == 1
