"""How a request's record gets from the scheduler to its answer: as JSON lines, in a field that vLLM carries.

    scheduler   carry(decoding)     the passes since the last call          EngineCoreOutput.routed_experts
    vLLM        puts together what came with an answer's tokens, and hands it out with its end
    answer      read(carried)       the record                              CompletionOutput.routed_experts

vLLM's field is for the experts that each token went through; an engine for our models refuses to return those. Every
answer has its own, whether it ends in the engine or at a stop string that the front end finds, and with `n` as well.
Of what comes with surplus tokens behind a stop string vLLM cuts off as many entries, so there are line ends for them.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
from vllm.v1.engine import EngineCoreOutputs

from vllm_dllm.decoding import Decoding
from vllm_dllm.records import PassRecord, ranges


def carry(decoding: Decoding) -> bytes:
    """The passes since the last call, in one line; before the first of them what is known from the start."""
    first = not decoding.told
    line: dict[str, Any] = {"passes": [_pass(decoding, p) for p in decoding.take_passes()]}
    if first:
        line["start"] = _start(decoding)
    return msgspec.json.encode(line)


def attach(outputs: Mapping[int, EngineCoreOutputs], lines: Mapping[str, bytes]) -> None:
    """Add each request's line to its part of a step's outputs, which are by client."""
    if not lines:
        return
    for step in outputs.values():
        for output in step.outputs:
            if output.request_id in lines:
                ends = b"\n" * (1 + len(output.new_token_ids))
                output.routed_experts = np.frombuffer(lines[output.request_id] + ends, np.uint8)


def read(carried: np.ndarray | None) -> dict[str, Any] | None:
    """The record of an answer, None if it has none."""
    if carried is None or carried.dtype != np.uint8 or carried.ndim != 1:
        return None
    lines = [msgspec.json.decode(line) for line in carried.tobytes().split(b"\n") if line]
    record = lines[0]["start"]
    passes = [p for line in lines for p in line["passes"]]
    for number, one in enumerate(passes):
        for position, token, logprob in zip(one["unmasked"], one.pop("tokens"), one.pop("logprobs"), strict=True):
            record["output_ids"][position] = token
            record["unmasked_in"][position] = number
            record["logprobs"][position] = logprob
    return record | {key: [p[key] for p in passes] for key in (passes[0] if passes else ("unmasked", "end"))}


def _start(decoding: Decoding) -> dict[str, Any]:
    canvas = decoding.canvas
    decoded = np.where(canvas.given, canvas.tokens, decoding.mask_id)[canvas.prompt_len : canvas.decoded_end]
    return {
        "cache": decoding.policy.name,
        "mask_id": decoding.mask_id,
        "gen_length": canvas.gen_length,
        "causal_block": decoding.settings.causal_block,
        "prompt_ids": canvas.tokens[: canvas.prompt_len].tolist(),
        "suffix_ids": canvas.tokens[canvas.decoded_end :].tolist(),
        "output_ids": decoded.tolist(),
        "unmasked_in": [-1] * len(decoded),
        "logprobs": [0.0] * len(decoded),
    }


def _pass(decoding: Decoding, done: PassRecord) -> dict[str, Any]:
    assert decoding.logprobs is not None
    return {
        "tokens": decoding.canvas.decoded[done.unmasked].tolist(),
        "logprobs": [float(decoding.logprobs[i][1][0]) for i in done.unmasked],
        "computed": ranges(done.queries),
        "end": done.end,
    } | done.columns()
