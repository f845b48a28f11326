"""Records: what an answer tells of its passes, and the canvases that follow from it."""

import pytest
from prompts import DREAMS, POLICIES, as_prompt, head, params, task_prompts, token_ids
from recorded import check, given
from vllm.sampling_params import StructuredOutputsParams

import vllm_dllm

SHORT = {"dllm_record": True, "dllm_block_length": 16, "dllm_tokens_per_step": 3}
TEXT = {"dllm_template": ["3 7 ", 5, " 19 ", 9], "dllm_suffix": " 27"}


@pytest.mark.parametrize("kind", ["llada", "dream"])
def test_every_policy_is_recorded(kind, request):
    engine = request.getfixturevalue(kind)
    names = list(POLICIES) if kind == "llada" else DREAMS
    asked = [
        params(48, ignore_eos=True, logprobs=1, dllm_record=True, dllm_cache=name, **POLICIES[name]) for name in names
    ]
    for name, (output, trace) in zip(names, engine.run(task_prompts(len(names), seed=3), asked), strict=True):
        record = output.outputs[0].dllm_record
        check(record, trace, token_ids(output))
        want = [row[t].logprob for row, t in zip(output.outputs[0].logprobs, token_ids(output), strict=True)]
        assert record["cache"] == name and record["logprobs"] == pytest.approx(want, abs=1e-6)
        computed = [sum(high - low for low, high in part) for part in record["computed"]]
        assert computed == record["query_tokens"], name


def test_every_kind_of_canvas_is_recorded(llada):
    question = as_prompt(head("count 3 by 4 x6"))
    asked = [
        params(None, ignore_eos=True, **SHORT, **TEXT),
        params(64, ignore_eos=True, dllm_horizon=4, **SHORT),
        params(32, dllm_cfg_scale=1.0, dllm_cache="entropy", **SHORT),
        params(32, structured_outputs=StructuredOutputsParams(regex="[0-9]{3}( [0-9]{3}){2}"), **SHORT),
        params(40, stop=["11"], **SHORT),
        params(1, **SHORT),
    ]
    results = llada.run([question] * len(asked), asked)
    records = [output.outputs[0].dllm_record for output, _ in results]
    for record, (output, trace) in zip(records, results, strict=True):
        check(record, trace, token_ids(output))
    assert given(records[0]) == [*range(4), *range(9, 13)] and not any(map(given, records[1:]))
    assert records[0]["suffix_ids"] == [8, 26, 31] and records[0]["logprobs"][:4] == [0.0] * 4
    assert records[1]["end"] == [18 + 20] * 6 + [18 + 36] * 6 + [18 + 52] * 6 + [18 + 64] * 6
    assert records[2]["query_tokens"][0] == 2 * (18 + 32), "both canvases"
    assert results[4][0].outputs[0].text == "3 7 "


def test_log_probabilities_are_the_models_own_on_the_canvas_before(llada, plain_llada):
    """At a temperature, under a penalty and a format as well: what a trainer computes on the replayed canvases."""
    more = [{"temperature": 1.5, "seed": 4, "presence_penalty": 1.0}, {"logit_bias": {27: 2.0}}, {}]
    for output in llada.generate(task_prompts(3, seed=5), [params(32, ignore_eos=True, **SHORT, **m) for m in more]):
        record = output.outputs[0].dllm_record
        start = len(record["prompt_ids"])
        for canvas, unmasked in zip(vllm_dllm.replay(record), record["unmasked"], strict=False):
            want = plain_llada.logits(canvas)[start:].log_softmax(-1)
            for i in unmasked:
                assert record["logprobs"][i] == pytest.approx(float(want[i][record["output_ids"][i]]), abs=2e-3)


def test_each_of_n_answers_has_its_own(llada):
    """Some end at a stop string in the middle of a block, which the engine does not know of."""
    unsure = as_prompt(head("calc 37+38-22+39"))
    asked = params(48, n=6, temperature=2.0, seed=3, stop=["9"], **SHORT)
    llada.new_traces()
    (output,) = llada.generate([unsure], asked)
    traces = {int(key.split("_")[0]): trace for key, trace in llada.new_traces().items()}
    assert len({tuple(o.token_ids) for o in output.outputs}) == 6
    assert {o.stop_reason for o in output.outputs} == {"9"}
    for answer in output.outputs:
        assert answer.logprobs is None
        check(answer.dllm_record, traces[answer.index], answer.token_ids)


def test_none_is_made_unasked(llada):
    (output,) = llada.generate([as_prompt(head("echo ab"))], params(8))
    assert output.outputs[0].dllm_record is None and output.outputs[0].routed_experts is None
