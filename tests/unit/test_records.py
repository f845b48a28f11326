"""Records without an engine: how they travel, and what they are replayed to."""

import dense
import numpy as np
import pytest
from common import MASK
from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs

from vllm_dllm import replay
from vllm_dllm.carried_records import attach, carry, read
from vllm_dllm.records import ranges
from vllm_dllm.settings import resolve

PROMPT = [2, 3, 77, 4]


def sent(line: bytes, tokens: int) -> np.ndarray:
    """What vLLM gets to carry with so many tokens."""
    output = EngineCoreOutput(request_id="a", new_token_ids=[9] * tokens)
    attach({0: EngineCoreOutputs(outputs=[output])}, {"a": line, "b": b"another's"})
    return output.routed_experts


@pytest.mark.parametrize("dropped", [0, 1, 5])
def test_what_is_sent_in_pieces_is_read_whole(dropped):
    """The last piece without its last entries, as vLLM cuts it where a stop string leaves tokens over."""
    decoding = dense.decode("tiny-llada", PROMPT, 12, {"dllm_record": True, "dllm_tokens_per_step": 2})
    passes = decoding.record
    pieces = []
    for stop, tokens in ((2, 3), (3, 1), (len(passes), 5)):
        decoding.record = passes[:stop]
        pieces.append(sent(carry(decoding), tokens))
    pieces[-1] = pieces[-1][: len(pieces[-1]) - dropped]
    record = read(np.concatenate(pieces))
    assert record["prompt_ids"] == PROMPT and record["output_ids"] == decoding.canvas.response.tolist()
    assert record["unmasked"] == [p.unmasked for p in passes] and record["end"] == [16] * 6
    assert record["unmasked_in"] == decoding.canvas.unmasked_in[4:].tolist()
    assert record["computed"] == [[[0, 16]]] * 6 and record["query_tokens"] == [16] * 6
    assert record["logprobs"] == [float(row[1][0]) for row in decoding.logprobs] and max(record["logprobs"]) < 0


def test_an_answer_without_passes_is_one_of_masks():
    """As of a request that fails in its first pass."""
    decoding = dense.new_decoding("tiny-llada", PROMPT, 3, {"dllm_record": True})
    record = read(sent(carry(decoding), 0))
    assert list(replay(record)) == [PROMPT + [MASK] * 3] and record["unmasked"] == []


def test_what_others_have_vllm_carry_is_no_record():
    assert read(None) is None and read(np.zeros((3, 2, 1), np.int16)) is None


def test_a_replay_goes_as_far_as_the_canvas_exists():
    record = {
        "mask_id": MASK,
        "prompt_ids": [5, 6],
        "output_ids": [7, 8, 9, MASK],
        "suffix_ids": [4],
        "unmasked_in": [1, -1, 0, -1],
        "end": [5, 7],
    }
    assert list(replay(record)) == [[5, 6, MASK, 8, MASK], [5, 6, MASK, 8, 9, MASK, 4], [5, 6, 7, 8, 9, MASK, 4]]


def test_ranges():
    assert ranges(np.asarray([0, 1, 2, 5, 7, 8])) == [[0, 3], [5, 6], [7, 9]]
    assert ranges(np.arange(0)) == []


def test_a_request_overrides_the_server():
    traits = dense.TRAITS["tiny-llada"]
    assert not resolve({}, None, traits).record and resolve({"dllm_record": True}, {"dllm_steps": 4}, traits).record
    assert not resolve({"dllm_record": True}, {"dllm_record": False}, traits).record
