"""Log probabilities are those of the pass in which a token was unmasked."""

import numpy as np
import pytest
from prompts import as_prompt, head, params, task_prompts, token_ids


def unmasked_in(trace: dict) -> dict[int, int]:
    return {position: i for i, part in enumerate(trace["unmasked"]) for position in part}


@pytest.mark.parametrize("name", ["llada", "dream"])
def test_values(name, request):
    engine, plain = request.getfixturevalue(name), request.getfixturevalue(f"plain_{name}")
    ids = head("calc 12+34-5+6")
    kinds = [
        params(48, logprobs=4, ignore_eos=True, dllm_block_length=16),
        params(40, logprobs=0, ignore_eos=True, dllm_tokens_per_step=3, temperature=1.2, seed=3),
        params(24, logprobs=1, ignore_eos=True, dllm_steps=6, dllm_block_length=8, dllm_score="margin"),
    ]
    others = [params(30), params(64, seed=1, temperature=1.0), params(20, logprobs=2)]
    results = engine.run([as_prompt(ids)] * 3 + task_prompts(3, seed=1), kinds + others)
    for kind, (output, trace) in zip(kinds, results, strict=False):
        logprobs = output.outputs[0].logprobs
        tokens = token_ids(output)
        assert len(logprobs) == len(tokens) == kind.max_tokens
        for logits, _, unmasked in plain.passes(ids, trace):
            want = logits.double().log_softmax(-1).numpy()
            for position in unmasked:
                at, row = logprobs[position], want[position]
                order = np.argsort(-row)
                assert set(at) == {tokens[position], *order[: kind.logprobs].tolist()}
                for token, entry in at.items():
                    assert entry.logprob == pytest.approx(row[token], abs=2e-3)
                    near = np.abs(row - row[token]) < 2e-3  # ties to rounding may fall either way
                    assert abs(entry.rank - (1 + (row > row[token]).sum())) < near.sum()
        assert sorted(unmasked_in(trace)) == list(range(len(tokens)))
        total = sum(at[token].logprob for at, token in zip(logprobs, tokens, strict=True))
        assert output.outputs[0].cumulative_logprob == pytest.approx(total, abs=1e-3)


def test_an_answer_that_ends_early_has_as_many_as_tokens(llada):
    outputs = llada.generate(task_prompts(12, seed=2), params(96, logprobs=2, stop=["3"]))
    for output in outputs:
        assert len(output.outputs[0].logprobs) == len(token_ids(output))
        for token, at in zip(token_ids(output), output.outputs[0].logprobs, strict=True):
            assert token in at and 2 <= len(at) <= 3


def test_the_whole_vocabulary(llada):
    """`logprobs=-1`, where the engine allows that many."""
    (output,) = llada.generate([as_prompt(head("echo ab"))], params(8, logprobs=20, ignore_eos=True))
    for at in output.outputs[0].logprobs:
        ranks = sorted(entry.rank for entry in at.values())
        assert ranks[:20] == list(range(1, 21))


def test_none_are_given_unasked(llada):
    (output,) = llada.generate([as_prompt(head("echo ab"))], params(8))
    assert output.outputs[0].logprobs is None
