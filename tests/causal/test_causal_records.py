"""Records where blocks reach beyond the response: the canvases that the model saw, overflow and all."""

import pytest
from causal_cases import as_prompts, asked, prompts
from common import MASK
from recorded import check

import vllm_dllm


def test_canvases_are_those_that_the_model_saw(sdar, plain_sdar):
    """At a temperature and greedy, with and without a cache, in blocks of all kinds, to an end token and to the length:
    log probabilities on the replayed canvases, whose attention is causal by blocks."""
    kinds = [
        dict(temperature=1.5, seed=3),
        dict(dllm_cache="none"),
        dict(dllm_block_length=16, dllm_threshold=0.4),
        dict(dllm_block_length=16, dllm_template=[[27, 8], 5, [8, 29], 3]),
        dict(ignore_eos=False, temperature=2.0, seed=4, dllm_block_length=8),
        dict(dllm_block_length=7, dllm_tokens_per_step=2, presence_penalty=0.5),
    ]
    params = [asked(None if "dllm_template" in k else 21, dllm_record=True, **k) for k in kinds]
    beyond = 0
    for own, (output, trace) in zip(kinds, sdar.run(as_prompts(prompts(len(kinds), 12)), params), strict=True):
        record, tokens = output.outputs[0].dllm_record, list(output.outputs[0].token_ids)
        check(record, trace, tokens)
        block, length = own.get("dllm_block_length", 4), trace["gen_length"]
        assert record["causal_block"] == block and record["gen_length"] == length
        whole = len(record["prompt_ids"]) + len(record["output_ids"])
        assert whole % block == 0 and whole - block < len(record["prompt_ids"]) + length
        assert record["suffix_ids"] == [] and trace["output_ids"] == record["output_ids"][:length]
        start = len(record["prompt_ids"])
        for canvas, unmasked in zip(vllm_dllm.replay(record), record["unmasked"], strict=False):
            assert len(canvas) % block == 0
            want = plain_sdar.logits(canvas, block)[start:].log_softmax(-1) if unmasked else None
            for i in unmasked:
                assert canvas[start + i] == MASK
                logprob = float(want[i][record["output_ids"][i]])
                assert record["logprobs"][i] == pytest.approx(logprob, abs=1e-3)
                beyond += i >= length
        commits = [
            queries for queries, part in zip(record["query_tokens"], record["unmasked"], strict=True) if not part
        ]
        assert bool(commits) == (record["cache"] == "block"), "a pass that commits blocks unmasks nothing"
    assert beyond > 5
