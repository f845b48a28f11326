"""`vllm-dllm compare` without an engine: prompts, variants, rounds, grades, the table and the sentence."""

import json
import math
import signal
import sys

import pytest
import zmq
from vllm.utils.network_utils import get_open_zmq_inproc_path, zmq_socket_ctx

from vllm_dllm.compare.answers import Answer, Run, computed_tokens
from vllm_dllm.compare.command import Interrupted, hear_ctrl_c
from vllm_dllm.compare.grader import GraderError, by_command, by_regex
from vllm_dllm.compare.measured import Measured, plan
from vllm_dllm.compare.prompts import PromptError, read_prompts
from vllm_dllm.compare.random_weights import SHAPES, named_shape
from vllm_dllm.compare.report import best, rows, sentence, table
from vllm_dllm.compare.variants import fixed_steps, possible, settings_for, variant, variants
from vllm_dllm.options import SettingError
from vllm_dllm.settings import ModelTraits

LLADA, DREAM = ModelTraits(1, 0, "llada"), ModelTraits(1, -1, "dream")
ECHO = [{"role": "user", "content": "echo abc"}]


def written(folder, *lines, name="prompts.jsonl"):
    file = folder / name
    file.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))
    return file


# ---- prompts ----


def test_prompts_come_as_chats_turns_texts_and_lines_of_a_batch_file(tmp_path):
    chat, turn, bare, text, batch, completion = read_prompts(
        written(
            tmp_path,
            {"messages": ECHO, "max_tokens": 48, "want": "abc"},
            {"prompt": "echo abc"},
            '"echo abc"\n\n',
            {"text": "once"},
            {
                "custom_id": "a",
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {"model": "m", "messages": ECHO},
            },
            {"custom_id": "b", "url": "/v1/completions", "body": {"model": "m", "prompt": [3, 4], "max_tokens": 8}},
        )
    )
    assert [p.request.messages for p in (chat, turn, bare, batch)] == [ECHO] * 4
    assert (text.request.prompt, completion.request.prompt) == ("once", [3, 4])
    assert chat.line["want"] == "abc" and bare.where.endswith("line 3") and text.where.endswith("line 5")
    assert [read_prompts(written(tmp_path, "echo abc\n", name="a.txt"))[0].request.messages] == [ECHO]


def test_parameters_are_the_lines_own_but_greedy_and_one_answer(tmp_path):
    line = {"messages": ECHO, "temperature": 0.8, "n": 3, "logprobs": True, "stop": ["x"], "max_completion_tokens": 40}
    named, unnamed, text = read_prompts(written(tmp_path, line, {"prompt": "a"}, {"text": "a"}))
    params = named.params({"dllm_cache": "dual"})
    assert (params.temperature, params.n, params.logprobs, params.max_tokens) == (0, 1, None, 40)
    assert params.stop == ["x"] and params.extra_args == {"dllm_cache": "dual"}
    # without a length it is the server's
    assert {type(p.params({}).max_tokens).__name__ for p in (unnamed, text)} == {"Unnamed"}


def test_a_lines_own_settings_stay_but_for_a_policys(tmp_path):
    xargs = {"dllm_threshold": 0.7, "dllm_cache": "entropy", "dllm_tau": 0.2, "other": 1}
    (prompt,) = read_prompts(written(tmp_path, {"prompt": "a", "vllm_xargs": xargs}))
    params = prompt.params(settings_for(variant("dual"), prompt.settings))
    assert params.extra_args == {"dllm_threshold": 0.7, "dllm_cache": "dual", "other": 1}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"messages": []\n', "line 1 is no JSON"),
        ("[1, 2]\n", "must be a JSON object or a text"),
        ({"question": "a"}, "it must have messages, prompt, text or body"),
        ({"custom_id": "a", "url": "/v1/embeddings", "body": {"input": "a"}}, "has the url '/v1/embeddings'"),
        ({"messages": ECHO, "max_tokens": "many"}, "line 1: max_tokens"),
        ({"url": "/v1/completions", "body": {"prompt": ["a", "b"]}}, "several prompts"),
        ("\n", "has no prompts"),
    ],
)
def test_a_line_that_is_no_prompt_is_refused_by_its_number(tmp_path, line, said):
    with pytest.raises(PromptError, match=said):
        read_prompts(written(tmp_path, line))


# ---- variants ----


def test_all_policies_and_the_baseline_first():
    from vllm_dllm.caching.registry import FULL

    assert [v.cache for v in variants()] == list(FULL)
    assert [v.name for v in variants(["dual", "none"])] == ["none", "dual"]


def test_a_variant_is_a_policy_with_some_of_its_settings():
    v = variant("entropy:tau=0.2,scope=page")
    assert v.settings == {"dllm_cache": "entropy", "dllm_tau": 0.2, "dllm_scope": "page"} and not v.added
    assert v.flags == ["--dllm-cache", "entropy", "--dllm-tau", "0.2", "--dllm-scope", "page"]


def test_what_a_policy_cannot_be_had_without_is_added():
    assert variant("dkv-greedy").added == {"dllm_score": "random", "dllm_tokens_per_step": 2}
    assert variant("dkv-greedy:tokens_per_step=4").added == {"dllm_score": "random"}
    assert variant("dkv-greedy:steps=8").settings.keys() == {"dllm_cache", "dllm_score", "dllm_steps"}


@pytest.mark.parametrize(
    ("word", "said"), [("fast", "dllm_cache='fast'"), ("dual:speed=2", "dllm_speed"), ("entropy:tau=x", "dllm_tau='x'")]
)
def test_a_variant_that_is_none_is_refused(word, said):
    with pytest.raises(SettingError, match=said):
        variant(word)


def test_what_a_model_cannot_have_is_left_out_with_the_reason():
    can, cannot = possible(variants(), {}, LLADA)
    assert len(can) == len(variants()) and not cannot
    can, cannot = possible(variants(), {}, DREAM)
    assert "dkv-greedy" in cannot and "LLaDA models only" in cannot["dkv-greedy"]
    _, cannot = possible(variants(), {"dllm_steps": 8}, LLADA)
    assert cannot.keys() == {"elastic"}  # a window has no blocks to divide steps over
    with pytest.raises(SettingError):  # not even the baseline
        possible(variants(), {}, LLADA, [{"dllm_threshold": 0.9, "dllm_steps": 4}])


def test_a_model_that_is_causal_by_blocks_has_policies_of_its_own():
    model = ModelTraits(1, 0, "llada", block_length=4, dynamic_threshold=0.85)
    assert [v.name for v in variants((), model.attention)] == ["none", "block"]
    can, cannot = possible(variants(("dual", "block")), {}, model)
    assert [v.name for v in can] == ["none", "block"] and "causal by blocks" in cannot["dual"]


def test_random_weights_unmask_a_fixed_number_in_every_pass():
    found = fixed_steps(4)
    assert {v.settings["dllm_tokens_per_step"] for v in found} == {4}
    assert possible(found, {}, LLADA)[0] == found


def test_shapes_of_random_weights():
    assert named_shape("llada-8b") == SHAPES["8B"] and named_shape("LLaDA-200M").layers == 13
    for name in ("gpt-2b", "llada-big"):
        with pytest.raises(ValueError, match="200M|llada-SIZE"):
            named_shape(name)


# ---- rounds ----


def run(*answers: str, seconds: float = 1.0, computed: float = 100) -> Run:
    return Run([Answer(a, [ord(c) for c in a], 4, computed) for a in answers], seconds)


def done(measured, work, per_prompt=1.0) -> list:
    found = []
    for (begin, stop), v in work:
        measured.add(v, (begin, stop), run(*["a"] * (stop - begin), seconds=per_prompt * (stop - begin)))
        found.append((v.name, begin, stop))
    return found


def test_rounds_double_and_every_variant_does_one_before_the_next(tmp_path):
    measured, chosen = Measured(tmp_path / "m.jsonl", {}), variants(["dual"])
    assert done(measured, plan(measured, chosen, 100, 16, iter([math.inf] * 9))) == [
        ("none", 0, 16),
        ("dual", 0, 16),
        ("none", 16, 48),
        ("dual", 16, 48),
        ("none", 48, 100),
        ("dual", 48, 100),
    ]


def test_a_round_that_would_take_too_long_is_cut_and_the_next_one_not_begun(tmp_path):
    measured, chosen = Measured(tmp_path / "m.jsonl", {}), variants(["dual"])
    # two seconds a prompt for both: of 48 seconds 24 prompts
    assert [r[1:] for r in done(measured, plan(measured, chosen, 200, 16, iter([48.0, 10.0])))] == [(0, 16)] * 2 + [
        (16, 40)
    ] * 2


def test_what_was_interrupted_goes_on_where_it_was(tmp_path):
    file, chosen = tmp_path / "m.jsonl", variants(["dual", "prefix"])
    measured = Measured(file, {"model": "m"})
    work = plan(measured, chosen, 20, 16, iter([math.inf] * 9))
    (first, v) = next(work)
    measured.add(v, first, run(*["a"] * 20))
    file.write_text(file.read_text() + '{"settings": "{}", "rou')  # killed while it wrote
    again = Measured(file, {"model": "m"})
    assert again.runs == measured.runs
    assert [name for name, *_ in done(again, plan(again, chosen, 20, 16, iter([math.inf] * 9)))] == ["dual", "prefix"]
    assert not list(plan(Measured(file, {"model": "m"}), chosen, 20, 16, iter([math.inf] * 9)))
    with pytest.raises(ValueError, match="with model 'm' and not 'other'"):
        Measured(file, {"model": "other"})


# ---- grades ----


def test_a_regex_grades_with_the_lines_own_fields():
    asked = [({"want": "3+4"}, "3+4"), ({"want": "3+4"}, "3+45"), ({"want": "a"}, "b")]
    assert by_regex("^{want}$")(asked) == [1, 0, 0]
    assert by_regex(r"\d{1,2}")(asked) == [1, 1, 0]
    with pytest.raises(GraderError, match="'name'"):
        by_regex("{name}")(asked)
    with pytest.raises(GraderError, match="no regular expression"):
        by_regex("(")


def test_a_command_grades_line_by_line(tmp_path):
    script = tmp_path / "grade.py"
    script.write_text(
        "import json, sys\nfor x in map(json.loads, sys.stdin): print(x['answer'] == x['line']['want'])\n"
    )
    assert by_command(f"{sys.executable} {script}")([({"want": "a"}, "a"), ({"want": "a"}, "b")]) == [1, 0]


@pytest.mark.parametrize(
    ("code", "said"),
    [("", "printed 0 grades for 1"), ("print(2)", "printed '2'"), ("exit(3)", "status 3"), (None, "cannot be run")],
)
def test_a_command_that_gives_no_grades_is_said_to(code, said):
    command = "no-such-program" if code is None else f'{sys.executable} -c "{code}"'
    with pytest.raises(GraderError, match=said):
        by_command(command)([({}, "a")])


# ---- the report ----


def filled(tmp_path, **answers: tuple[Run, ...]) -> tuple[Measured, list]:
    measured, chosen = Measured(tmp_path / "m.jsonl", {}), variants(answers)
    for v in chosen:
        for number, part in enumerate(answers[v.name]):
            measured.add(v, (4 * number, 4 * number + len(part.answers)), part)
    return measured, chosen


def test_a_row_compares_the_prompts_that_both_have_answered(tmp_path):
    base = run("abcd", "ab", "x", "y", seconds=4.0)
    measured, chosen = filled(
        tmp_path, none=(base, run("a", "b", "c", "d", seconds=2.0)), dual=(run("abcd", "aXcd", "x", "y", computed=40),)
    )
    none, dual = rows(measured, chosen, [None] * 8, None)
    assert (none.prompts, none.speed, none.rate, none.answers_equal, none.grade) == (8, 1, 2, 1, None)
    assert (dual.prompts, dual.speed, dual.rate, dual.passes, dual.share) == (4, 4, 10, 4, 0.4)
    assert (dual.answers_equal, dual.tokens_equal) == (0.75, 7 / 10)
    assert "| `dual` (4 prompts) | 10.0 | 4.00 | 4.0 | 40 % | 75 % | 70 % |" in table([none, dual])


def test_the_sentence_names_the_fastest_that_answers_as_well(tmp_path):
    base = ("a", "b", "c", "d")
    measured, chosen = filled(
        tmp_path,
        none=(run(*base, seconds=4.0),),
        dual=(run("a", "b", "c", "X"),),  # the fastest, and a quarter of it other answers
        prefix=(run(*base, seconds=2.0),),
        d2=(run(*base, seconds=3.9),),
    )
    found = rows(measured, chosen, [None] * 4, None)
    assert best(found, graded=False).variant.name == "prefix"
    said = sentence(found, "vllm serve m", 4)
    assert (
        said == "Write `vllm serve m --dllm-cache prefix`: 2.0 times as fast as `none`, 100 % of the answers the same."
    )
    assert "vllm serve m --dllm-cache dual" in sentence(found, "vllm serve m", 4, random=True)
    assert sentence([found[0], found[1]], "vllm serve m", 8).startswith("Write `vllm serve m` (after 4 of 8 prompts)")


def test_where_answers_are_graded_the_grade_decides(tmp_path):
    measured, chosen = filled(tmp_path, none=(run("a", "b", seconds=2.0),), dual=(run("A", "b"),), d2=(run("a", "-"),))
    prompts = read_prompts(written(tmp_path, *({"prompt": x, "want": x} for x in "ab")))
    found = rows(measured, chosen, prompts, by_regex("(?i)^{want}$"))
    assert [row.grade for row in found] == [1, 1, 0.5]
    assert best(found, graded=True).variant.name == "dual"
    assert "100 % right and `none` 100 %" in sentence(found, "vllm serve m", 2)


def test_computed_tokens_of_a_pass_that_widens_are_a_mean_over_the_layers():
    assert computed_tokens({"query_tokens": [50, 8]}) == 58
    assert computed_tokens({"query_tokens": [50, 8], "layer_tokens": [[50, 50], [8, 50]]}) == 79


# ---- interrupted ----


def test_ctrl_c_is_heard_while_an_engine_starts():
    """vLLM starts one inside this context manager, which swallows a KeyboardInterrupt."""
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    try:
        hear_ctrl_c()
        with pytest.raises(Interrupted), zmq_socket_ctx(get_open_zmq_inproc_path(), zmq.ROUTER, bind=True):
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before[0])
        signal.signal(signal.SIGTERM, before[1])
