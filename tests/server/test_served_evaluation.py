"""lm-evaluation-harness against a running server: as it is (`local-completions`), and our model class."""

import lm_eval
import pytest
from common import CHECKPOINTS
from evaluated import TASKS, PlainLoop
from lm_eval.tasks import TaskManager
from served import MAX_MODEL_LEN

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


@pytest.mark.parametrize("batch", [1, 4])
def test_the_stock_harness_generates(server, manager, plain, batch):
    """Token ids, several in a request, stop strings, the task's length, a shot before."""
    model = {"model": server.model, "base_url": f"{server.url}/v1/completions", "max_length": MAX_MODEL_LEN}
    model |= {"tokenizer": str(CHECKPOINTS / "tiny-llada"), "num_concurrent": 1 if batch > 1 else 8}
    shots = batch // 4  # the checkpoints have learnt single questions, and echo those
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


@pytest.mark.parametrize("estimator", ["chain", "mc"])
def test_our_class_scores(server, manager, plain, estimator):
    draws = {"mc_num": 16, "strata": 8, "seed": 7}
    model = ours(server, estimator=estimator, **(draws if estimator == "mc" else {}))
    for (prompt, target), (score, _) in answers(evaluate(manager, ["tiny_choice"], model=model)):
        want = plain.chain(prompt, target)[0] if estimator == "chain" else plain.estimate(prompt, target, **draws)
        assert score == pytest.approx(want, abs=1e-3)


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
