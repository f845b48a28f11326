"""Likelihoods of given targets: the golden files' numbers whatever else runs, and the same by every way to ask."""

import itertools

import numpy as np
import pytest
from common import EOS, MASK
from golden_cases import sample as decoding_cases
from likelihood_cases import asked, difference, pairs, sample, together
from prompts import as_prompt, head, params

from vllm_dllm import loglikelihood
from vllm_dllm.likelihood.draws import EPS
from vllm_dllm.options import SettingError

MODELS = pytest.mark.parametrize(("name", "model"), [("llada", "tiny-llada"), ("dream", "tiny-dream")])
PAIR = (head("count 3 by 4 x6"), [27, 8, 31, 8, 25, 25])  # "3 7 11"
OTHER = (head("echo abc"), [73, 74, 75, EOS])


def score(engine, asked_pairs, *more, **settings):
    found = loglikelihood(engine.llm, asked_pairs, *more, use_tqdm=False, **settings)
    engine.check_idle()
    return found


@MODELS
def test_golden_beside_decoding(name, model, request, sampling):
    """Both estimators, with requests of every policy in the same batches; the decoded answers are golden too."""
    engine = request.getfixturevalue(name)
    decoded = {case.settings["dllm_cache"]: case for case in decoding_cases(model, sampling)}.values()  # of each, one
    found = together(engine, sample(model, sampling, 6), list(decoded), sampling.seed)
    sampling.check(found)


@MODELS
def test_golden_alone(name, model, request, sampling):
    engine = request.getfixturevalue(name)
    for case in sample(model, sampling, 1):
        chain, mc = (score(engine, pairs([case]), e, asked([case], e).masks)[0] for e in ("chain", "mc"))
        assert chain.logprob == pytest.approx(sum(chain.token_logprobs))
        np.testing.assert_allclose(mc.each, case["mc_each"], atol=1e-3)  # of up to -400
        found = [
            difference(case, "chain", chain.logprob, chain.token_logprobs),
            difference(case, "mc", mc.logprob, None),
        ]
        sampling.check(found)


@MODELS
def test_the_drawn_estimator_expects_what_all_masks_give(name, model, request):
    """Every mask of a short target is scored, and its chance known; 2,000 draws are within three standard errors."""
    engine = request.getfixturevalue(name)
    prompt, target = PAIR
    length = len(target)
    masks = [m for m in itertools.product((0, 1), repeat=length) if any(m) and not (name == "dream" and m[-1])]
    (every,) = score(engine, [PAIR], "mc", [masks])
    counts = np.asarray(masks).sum(1)
    sums = np.asarray(every.each) * counts / length
    if name == "llada":  # in a batch of as many draws as tokens each count comes once
        of_count = {c: sums[counts == c].mean() for c in range(1, length + 1)}
        exact = np.mean([length / c * of_count[c] for c in of_count])
    else:
        chances = (EPS + (1 - EPS) * (np.arange(5000) + 0.5) / 5000)[:, None]
        exact = (sums * chances ** (counts - 1.0) * (1 - chances) ** (length - 1 - counts)).sum(1).mean()
    (drawn,) = score(engine, [PAIR], "mc", mc_num=2004, strata=6, seed=2)
    assert abs(drawn.logprob - exact) < 3 * drawn.stderr and drawn.stderr < abs(exact) / 10


@MODELS
def test_guidance_and_greedy(name, model, request):
    """As the plain model has them: two canvases, and one position a pass."""
    engine, plain = request.getfixturevalue(name), request.getfixturevalue(f"plain_{name}")
    wanted = [PAIR, OTHER]
    for (prompt, target), found in zip(wanted, score(engine, wanted, cfg_scale=1.5, greedy=True), strict=True):
        start = len(prompt)
        for i, logprob in enumerate(found.token_logprobs):
            rest = target[:i] + [MASK] * (len(target) - i)
            own, second = plain.logits(prompt + rest), plain.logits([MASK] * start + rest)
            want = (second + 2.5 * (own - second)).double().log_softmax(-1)[start + i, target[i]]
            assert logprob == pytest.approx(float(want), abs=1e-3)
        answer, masked = [MASK] * len(target), set(range(len(target)))
        while masked:
            own, second = plain.logits(prompt + answer), plain.logits([MASK] * start + answer)
            best = (second + 2.5 * (own - second)).softmax(-1)[start:].max(-1)
            position = max(masked, key=lambda i: best.values[i])
            answer[position] = int(best.indices[position])
            masked.remove(position)
        assert found.greedy == (answer == target)


def test_what_greedy_decoding_gives_is_known(llada):
    prompt = head("count 3 by 4 x6")
    (answer,) = llada.generate(
        [as_prompt(prompt)], params(16, ignore_eos=True, dllm_block_length=16, dllm_tokens_per_step=1)
    )
    given = list(answer.outputs[0].token_ids)
    right, wrong = score(llada, [(prompt, given), (prompt, [*given[:-1], 30])], greedy=True)
    assert right.greedy and not wrong.greedy and right.logprob > wrong.logprob


def test_texts_are_the_tokens_that_they_are_together(llada):
    text = "<|startoftext|><|user|>count 3 by 4 x6<|assistant|>"
    ids = head("count 3 by 4 x6")
    texts = [(text, "3 7 11"), (text + " ", "3 7"), (ids, "3 7 11"), (text, [27, 8, 31])]
    tokens = [PAIR, (ids, [8, 27, 8, 31]), PAIR, (ids, [27, 8, 31])]
    for a, b in zip(score(llada, texts), score(llada, tokens), strict=True):
        np.testing.assert_allclose(a.token_logprobs, b.token_logprobs, atol=1e-4)


@MODELS
def test_prompt_logprobs_are_the_chain_over_the_prompt(name, model, request):
    """And then the request is answered as it is without them."""
    engine = request.getfixturevalue(name)
    ids = PAIR[0] + PAIR[1]
    asked_with, plain = params(24, prompt_logprobs=2, logprobs=1, dllm_block_length=8), params(24, dllm_block_length=8)
    with_them, without = engine.generate([as_prompt(ids)] * 2, [asked_with, plain])
    assert with_them.outputs[0].token_ids == without.outputs[0].token_ids and without.prompt_logprobs is None
    first, *others = with_them.prompt_logprobs
    (chain,) = score(engine, [(ids[:1], ids[1:])])
    assert first is None and len(others) == len(ids) - 1
    np.testing.assert_allclose(
        [o[t].logprob for o, t in zip(others, ids[1:], strict=True)], chain.token_logprobs, atol=1e-3
    )
    for entries in others:
        best = [entry for entry in entries.values() if entry.rank <= 2]
        assert len(best) == 2 and max(e.logprob for e in entries.values()) == min(best, key=lambda e: e.rank).logprob
    (alone,) = engine.generate([as_prompt(ids[:1])], params(4, prompt_logprobs=1))
    assert alone.prompt_logprobs == [None]


def test_the_trace_and_the_pages_of_a_request_that_scores(llada):
    llada.new_traces()
    score(llada, [PAIR], cfg_scale=1.0)
    lines = sorted(llada.new_traces().values(), key=lambda line: -len(line["query_tokens"]))
    length = len(PAIR[0]) + len(PAIR[1])
    assert [line["query_tokens"] for line in lines] == [[2 * length] * 4, [2 * length] * 2]
    assert all(line["output_ids"] == PAIR[1] and line["finish_reason"] == "stop" for line in lines)


REFUSED = [
    ([], {}, "pairs must have at least one pair"),
    ([PAIR, (PAIR[0], [])], {}, "pairs[1]: target=[] is not allowed: it must have at least one token"),
    ([(PAIR[0], "")], {}, "pairs[0]: target=[] is not allowed"),
    (
        [(PAIR[0], [5, MASK])],
        {},
        "pairs[0]: target with token 1 is not allowed: a token id must be from 0 to 127 and not 1",
    ),
    ([(PAIR[0], [128])], {}, "pairs[0]: target with token 128 is not allowed"),
    ([([], [5])], {}, "pairs[0]: prompt=[] is not allowed"),
    ([([999], [5])], {}, "pairs[0]: prompt[0]=999 is not allowed"),
    ([([5], [6] * 512)], {}, "the canvas has 513, and it must be at most 512 (max_model_len)"),
    ([([5], [6.5])], {}, "pairs[0]: target=[6.5] is not allowed: it must be a text or a list of token ids"),
    ([([5], [True])], {}, "pairs[0]: target=[True] is not allowed"),
    ([PAIR[0]], {}, "is not allowed: it must be a pair of a prompt and a target"),
    ([PAIR], {"cfg_scale": -1}, "cfg_scale=-1 is not allowed: it must be a number from 0 to 1000"),
    ([PAIR], {"estimator": "mc", "masks": []}, "one list for each of the 1 pairs"),
]


@pytest.mark.parametrize("wanted, settings, sentence", REFUSED, ids=[r[2][:50] for r in REFUSED])
def test_what_is_refused(llada, wanted, settings, sentence):
    with pytest.raises(SettingError) as refusal:
        loglikelihood(llada.llm, wanted, use_tqdm=False, **settings)
    assert sentence in str(refusal.value)
    llada.check_idle()


def test_a_canvas_may_be_as_long_as_the_model(llada):
    (found,) = score(llada, [([5] * 510, [6, 7])])
    assert len(found.token_logprobs) == 2
