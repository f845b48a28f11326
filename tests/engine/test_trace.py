"""The trace: one JSON line for each finished request, with what each of its passes did."""

from common import MASK
from prompts import as_prompt, head, params, task_prompts, token_ids


def test_a_line_tells_a_requests_passes(llada):
    prompts = task_prompts(6, seed=1)
    kinds = [
        params(64, ignore_eos=True, dllm_steps=16, dllm_block_length=16),
        params(48, dllm_threshold=0.8),
        params(32, ignore_eos=True, dllm_tokens_per_step=5),
        params(1),
        params(40, temperature=1.0, seed=1, ignore_eos=True),
        params(64, stop=["1"]),
    ]
    for prompt, kind, (output, trace) in zip(prompts, kinds, llada.run(prompts, kinds), strict=True):
        ids, passes = prompt["prompt_token_ids"], len(trace["query_tokens"])
        assert trace["prompt_len"] == len(ids) and trace["gen_length"] == kind.max_tokens
        assert trace["cache"] == "none" and len(trace["output_ids"]) == kind.max_tokens
        assert trace["query_tokens"] == [len(ids) + kind.max_tokens] * passes and trace["full"] == [True] * passes
        assert len(trace["unmasked"]) == passes and len(trace["stale_pages"]) == passes
        unmasked = [i for part in trace["unmasked"] for i in part]
        assert len(set(unmasked)) == len(unmasked)
        assert {i for i, token in enumerate(trace["output_ids"]) if token != MASK} == set(unmasked)
        if kind.ignore_eos:
            assert trace["output_ids"] == token_ids(output) and trace["finish_reason"] == "length"
        assert trace["output_ids"][: len(token_ids(output))] == token_ids(output)
    assert trace["finish_reason"] == "abort", "stop strings are found by the front end, which then aborts"


def test_each_of_n_answers_has_a_line(llada):
    llada.new_traces()
    llada.generate([as_prompt(head("echo ab"))], params(16, n=3, temperature=1.0, seed=1))
    assert len(llada.new_traces()) == 3
