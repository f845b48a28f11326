"""Likelihoods over HTTP: by the server's own route, and as log probabilities of a completion's prompt."""

import threading
import time

import httpx
import likelihood_cases
import numpy as np
import pytest
from served import ANSWER, QUESTION, text_prompt

PATH = "/v1/dllm/loglikelihood"
TEXT = text_prompt(QUESTION)


def ask(server, pairs, **fields) -> list[dict]:
    answer = server.post(PATH, {"pairs": pairs} | fields)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


def test_golden(server, sampling):
    cases = likelihood_cases.sample("tiny-llada", sampling, 4)
    pairs = likelihood_cases.pairs(cases)
    chain = ask(server, pairs)
    mc = ask(server, [{"prompt": p, "target": t} for p, t in pairs], estimator="mc", masks=[c["masks"] for c in cases])
    found = []
    for case, a, b in zip(cases, chain, mc, strict=True):
        found += [
            likelihood_cases.difference(case, "chain", a["logprob"], a["token_logprobs"]),
            likelihood_cases.difference(case, "mc", b["logprob"], None),
        ]
        assert set(a) == {"index", "logprob", "token_logprobs"} and set(b) == {"index", "logprob", "stderr", "each"}
    sampling.check(found)


def test_the_right_answer_is_the_likely_one(server):
    wrong = ANSWER[:-1] + "7"
    before = {name: server.metric(f"vllm_dllm:{name}_total") for name in ("passes", "scoring_passes")}
    for fields in ({}, {"estimator": "mc", "mc_num": 32, "seed": 1}, {"cfg_scale": 0.5}):
        a, b = ask(server, [[TEXT, ANSWER], [TEXT, wrong]], greedy=True, **fields)
        assert a["logprob"] > b["logprob"] + 1 and a["greedy"] and not b["greedy"]
        again, _ = ask(server, [[TEXT, ANSWER], [TEXT, wrong]], **fields)
        assert again["logprob"] == pytest.approx(a["logprob"], abs=1e-3)
    server.wait_idle()
    length = len(ask(server, [[TEXT, ANSWER]])[0]["token_logprobs"])
    server.wait(lambda: server.metric("vllm_dllm:scoring_passes_total") > before["scoring_passes"], "counted passes")
    scored = server.metric("vllm_dllm:scoring_passes_total") - before["scoring_passes"]
    assert scored == 2 * 2 * (2 * length + 32) + length
    assert server.metric("vllm_dllm:passes_total") - before["passes"] > scored  # those of `greedy` too


@pytest.mark.parametrize("max_tokens", [0, 1])
def test_an_echo_has_the_chain_over_the_whole_text(server, max_tokens):
    """As lm-evaluation-harness' `local-completions` asks for it."""
    ids = server.tokenize(TEXT + ANSWER)
    body = {
        "prompt": [ids, ids[:-2]],
        "echo": True,
        "logprobs": 1,
        "max_tokens": max_tokens,
        "temperature": 0,
        "seed": 1234,
    }
    choices = server.post("/v1/completions", body).raise_for_status().json()["choices"]
    for prompt, choice in zip(body["prompt"], choices, strict=True):
        ((chain),) = ask(server, [[prompt[:1], prompt[1:]]])
        logprobs = choice["logprobs"]
        assert logprobs["token_logprobs"][0] is None and len(logprobs["tokens"]) == len(prompt) + max_tokens
        found = logprobs["token_logprobs"][1 : len(prompt)]
        np.testing.assert_allclose(found, chain["token_logprobs"], atol=1e-3)
        for own, best in zip(logprobs["token_logprobs"][1:], logprobs["top_logprobs"][1:], strict=True):
            assert own <= max(best.values()) and len(best) in (1, 2)


def test_a_client_that_goes_away_takes_its_passes_along(server):
    before = server.metric("vllm_dllm:scoring_passes_total")
    body = {"pairs": [[[5] * 200, [6] * 200]] * 4, "estimator": "mc", "mc_num": 2000}
    with pytest.raises(httpx.ReadTimeout):
        server.post(PATH, body, timeout=3)
    server.wait_idle()
    assert server.metric("vllm_dllm:scoring_passes_total") - before < 8000


REFUSED = [
    ({}, "pairs=None is not allowed: it must be a list of pairs", "pairs"),
    ({"pairs": []}, "pairs must have at least one pair of a prompt and a target", "pairs"),
    ({"pairs": [[TEXT]]}, "it must be a pair of a prompt and a target", "pairs"),
    ({"pairs": [{"prompt": TEXT}]}, "pairs[0]: target=None is not allowed: it must be a text or a list of", "pairs"),
    ({"pairs": [[TEXT, ""]]}, "pairs[0]: target=[] is not allowed: it must have at least one token", "pairs"),
    ({"pairs": [[TEXT, "<|mdm_mask|>"]]}, "pairs[0]: target with token 1 is not allowed", "pairs"),
    ({"pairs": [[TEXT, [5] * 500]]}, "it must be at most 512 (max_model_len)", "pairs"),
    ({"pairs": [[TEXT, [5, 6]]], "masks": [[[1, 1]]]}, "masks is not allowed with estimator='chain'", "masks"),
    ({"pairs": [[TEXT, [5, 6]]], "estimator": "mc", "masks": [[[1]]]}, "a list of 2 numbers 0 or 1", "masks"),
    ({"pairs": [[TEXT, [5, 6]]], "mc_num": 8}, "mc_num is not allowed with estimator='chain'", "mc_num"),
    ({"pairs": [[TEXT, [5] * 450]] * 20, "estimator": "mc", "mc_num": 65536}, "a call may have", "mc_num"),
    ({"pairs": [[TEXT, [5, 6]]], "estimator": "nll"}, "estimator='nll' is not allowed: it must be one of", "estimator"),
    ({"pairs": [[TEXT, [5, 6]]], "cfg_scale": "x"}, "cfg_scale='x' is not allowed: it must be a number", "cfg_scale"),
    ({"pairs": [[TEXT, [5, 6]]], "stream": True}, "stream=True is not a field; there are model, pairs", "stream"),
]


@pytest.mark.parametrize("body, sentence, param", REFUSED, ids=[r[1][:40] for r in REFUSED])
def test_what_is_refused(server, body, sentence, param):
    answer = server.post(PATH, body)
    error = answer.json()["error"]
    assert answer.status_code == 400 and sentence in error["message"] and error["param"] == param, answer.text


def test_another_model_and_the_servers_own_carrier(server):
    answer = server.post(PATH, {"model": "other", "pairs": [[TEXT, ANSWER]]})
    assert answer.status_code == 404 and "`other`" in answer.text
    answer = server.post("/v1/completions", {"prompt": TEXT, "vllm_xargs": {"vllm_dllm.target": 1}})
    assert answer.status_code == 400 and "vllm_dllm.target is not allowed in a request" in answer.text


def test_scores_are_the_same_while_others_are_answered(server):
    alone = ask(server, [[TEXT, ANSWER]])[0]["token_logprobs"]
    stop = threading.Event()

    def chat():
        while not stop.is_set():
            server.post("/v1/completions", {"prompt": TEXT, "max_tokens": 64}).raise_for_status()

    threads = [threading.Thread(target=chat) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    found = [ask(server, [[TEXT, ANSWER]] * 3) for _ in range(3)]
    stop.set()
    for thread in threads:
        thread.join()
    for pair in (pair for data in found for pair in data):
        np.testing.assert_allclose(pair["token_logprobs"], alone, atol=1e-3)
