"""lm-evaluation-harness against a running server: as it is (`local-completions`), and our model class."""

import lm_eval
import pytest
from common import CHECKPOINTS
from evaluated import TASKS, PlainLoop
from lm_eval.api.instance import Instance
from lm_eval.tasks import TaskManager
from served import MAX_MODEL_LEN, text_prompt

from vllm_dllm.lm_eval.model import DiffusionLM
from vllm_dllm.options import SettingError

GENERATED, SCORED = ["tiny_echo", "tiny_count"], ["tiny_choice", "tiny_answer"]
SETTINGS = {"dllm_cache": "dual", "dllm_block_length": 16, "dllm_gen_length": 48, "dllm_tokens_per_step": 1}


@pytest.fixture(scope="module")
def plain() -> PlainLoop:
    return PlainLoop("tiny-llada")


@pytest.fixture(scope="module")
def manager() -> TaskManager:
    return TaskManager(include_path=str(TASKS), include_defaults=False)


def evaluate(manager: TaskManager, tasks: list[str], shots: int = 0, **arguments) -> dict:
    """What the harness says, all questions in the chat template, earlier turns as shots."""
    how = {"apply_chat_template": True, "fewshot_as_multiturn": True, "bootstrap_iters": 0}
    return lm_eval.simple_evaluate(tasks=tasks, num_fewshot=shots, task_manager=manager, **how, **arguments)


def answers(results: dict) -> list[tuple[tuple, object]]:
    """(arguments, response) of each request, over all tasks."""
    samples = [sample for task in results["samples"].values() for sample in task]
    return [
        (arguments, response[0])
        for sample in samples
        for arguments, response in zip(sample["arguments"], sample["resps"], strict=True)
    ]


# a shot: the checkpoints have learnt single questions, and do not make use of it
@pytest.mark.parametrize(("batch", "concurrent", "shots"), [(1, 8, 0), (4, 1, 1)])
def test_the_stock_harness_generates(server, manager, plain, batch, concurrent, shots):
    """Token ids, several in a request, stop strings, the task's length."""
    model = {"model": server.model, "base_url": f"{server.url}/v1/completions", "max_length": MAX_MODEL_LEN}
    model |= {"tokenizer": str(CHECKPOINTS / "tiny-llada"), "num_concurrent": concurrent}
    results = evaluate(manager, GENERATED, shots, model="local-completions", model_args=model, batch_size=batch)
    found = answers(results)
    assert len(found) == 8
    for (prompt, arguments), text in found:
        assert prompt.count("<|user|>") == 1 + shots
        assert text == plain.answer(prompt, arguments, {})
    assert shots or results["results"]["tiny_echo"]["exact_match,none"] == 1


def test_the_stock_harness_scores(server, manager, plain):
    """The chain of the whole text, of which the harness sums the target's part; several texts in a request."""
    model = {"model": server.model, "base_url": f"{server.url}/v1/completions", "max_length": MAX_MODEL_LEN}
    model |= {"tokenizer": str(CHECKPOINTS / "tiny-llada")}
    results = evaluate(manager, SCORED, model="local-completions", model_args=model, batch_size=4)
    found = answers(results)
    assert len(found) == 4 * 3 + 4
    for (prompt, target), (score, greedy) in found:
        want, best = plain.chain(prompt, target)
        assert score == pytest.approx(want, abs=1e-3) and greedy == best


def ours(server, **arguments) -> DiffusionLM:
    return DiffusionLM(base_url=server.url + "/v1", **arguments)


def test_our_class_asks_with_the_requests_settings(server, manager, plain):
    found = answers(evaluate(manager, GENERATED, shots=1, model=ours(server, **SETTINGS)))
    for (prompt, arguments), text in found:
        assert text == plain.answer(prompt, arguments, SETTINGS)


def test_our_class_scores_by_the_chain(server, manager, plain):
    found = answers(evaluate(manager, ["tiny_choice"], model=ours(server, estimator="chain", greedy=True)))
    for (prompt, target), (score, greedy) in found:
        assert score == pytest.approx(plain.chain(prompt, target)[0], abs=1e-3)
        assert greedy == plain.greedy(prompt, target)
    assert {greedy for _, (_, greedy) in found} == {True, False}


DRAWS = {"mc_num": 8, "strata": 4, "seed": 7}


def test_our_class_scores_by_the_authors_estimator(server, manager, plain):
    found = answers(evaluate(manager, ["tiny_choice"], model=ours(server, **DRAWS)))
    for (prompt, target), (score, greedy) in found:
        assert score == pytest.approx(plain.estimate(prompt, target, **DRAWS), abs=1e-3) and not greedy


def instance(kind: str, *arguments) -> Instance:
    return Instance(request_type=kind, doc={}, arguments=arguments, idx=0)


LIMIT = 128  # the plain model's positions end at 256


def test_what_is_too_long_loses_its_beginning(server, plain):
    """A prompt; a text whose likelihood is asked for whole is scored in windows, each token once."""
    model = ours(server, gen_length=16, **DRAWS)
    model.engine.max_length = LIMIT
    text = ("count 3 by 4 x6 " * 13).strip()  # 207 tokens, one each character
    question, right = text_prompt("echo abc"), "abc"  # 11 tokens
    until = {"until": ["\n"]}
    (answer,) = model.generate_until([instance("generate_until", text + question, until)], disable_tqdm=True)
    assert answer == plain.answer(text[-LIMIT + 16 + 11 :] + question, until, {"dllm_gen_length": 16})
    (score,) = model.loglikelihood([instance("loglikelihood", text, right)], disable_tqdm=True)
    assert score[0] == pytest.approx(plain.estimate(text[-LIMIT + 3 :], right, **DRAWS), abs=1e-3)
    (whole,) = model.loglikelihood_rolling([instance("loglikelihood_rolling", text)], disable_tqdm=True)
    first = plain.estimate("<|startoftext|>", text[: LIMIT - 1], **DRAWS)
    second = plain.estimate(text[-LIMIT : LIMIT - 1], text[LIMIT - 1 :], **DRAWS)
    assert whole == pytest.approx(first + second, rel=1e-5)
    with pytest.raises(SettingError, match="a target of 207 tokens is not allowed: it must be at most 128"):
        model.loglikelihood([instance("loglikelihood", "count", text)], disable_tqdm=True)
    with pytest.raises(SettingError, match=r"an answer of 512 tokens .* is not allowed: with its prompt it must have"):
        ours(server).generate_until([instance("generate_until", question, {"max_gen_toks": 512})])


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"model": "huge"}, r"model='huge' is not allowed: it must be one of tiny"),
        ({"tokenizer": "/nowhere"}, r"tokenizer='/nowhere' is not allowed: it must be the folder or the name"),
        ({"base_url": "http://127.0.0.1:9"}, r"base_url='http://127.0.0.1:9' is not allowed: it must be the address"),
    ],
)
def test_what_is_not_there_is_refused(server, arguments, message):
    with pytest.raises(SettingError, match=message):
        DiffusionLM(**{"base_url": server.url, **arguments})


def test_the_servers_refusal_is_told(server, manager):
    with pytest.raises(SettingError, match="dllm_steps=48 is not allowed"):
        evaluate(manager, ["tiny_echo"], model=ours(server, steps=48, gen_length=40, block_length=16))
