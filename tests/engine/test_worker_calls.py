"""What vLLM asks of a worker besides passes."""

from common import golden
from vllm import SamplingParams

PROMPTS = [{"prompt_token_ids": case["prompt_ids"]} for case in golden("tiny-llada", "llada")[:3]]
PARAMS = SamplingParams(temperature=0, max_tokens=32)


def answers(engine) -> list[list[int]]:
    return [list(output.outputs[0].token_ids) for output in engine.generate(PROMPTS, PARAMS)]


def test_weights_can_be_reloaded_in_place(small):
    expected = answers(small)
    small.llm.collective_rpc("reset_weights")  # to zero
    assert answers(small) != expected
    small.llm.collective_rpc("reload_weights")
    assert answers(small) == expected


def test_a_dummy_batch_changes_nothing(small):
    expected = answers(small)
    small.llm.collective_rpc("execute_dummy_batch")
    assert answers(small) == expected


def test_there_are_no_encoders_to_be_timed(small):
    assert small.llm.collective_rpc("get_encoder_timing_stats") == [{}]
