"""What a record has to be, whoever made it."""

from collections.abc import Sequence

from common import MASK

import vllm_dllm

OWN = (
    "request_id",
    "finish_reason",
    "prompt_len",
    "gen_length",
    "cache",
    "output_ids",
)  # what a trace says of a request as a whole


def check(record: dict, trace: dict, tokens: Sequence[int]) -> None:
    """It is what the trace says of the request, and the canvases go from one to the next. `tokens` are the answer's."""
    passes = len(record["unmasked"])
    assert record["cache"] == trace["cache"]
    for key in trace.keys() - OWN:
        assert record[key] == trace[key][:passes], key
    assert record["output_ids"][: len(tokens)] == list(tokens) and len(record["prompt_ids"]) == trace["prompt_len"]
    assert record["gen_length"] == trace["gen_length"] == len(trace["output_ids"])
    missing = [i for i, token in enumerate(trace["output_ids"]) if record["output_ids"][i] != token]
    assert all(record["output_ids"][i] == MASK and i >= len(tokens) for i in missing)
    if trace["finish_reason"] != "abort":  # of which the engine may do one pass more than it tells
        assert not missing and passes == len(trace["unmasked"])
    start = len(record["prompt_ids"])
    whole = [*record["prompt_ids"], *record["output_ids"], *record["suffix_ids"]]
    canvases = list(vllm_dllm.replay(record))
    assert len(canvases) == 1 + passes == 1 + len(record["computed"])
    response = range(start, start + len(record["output_ids"]))  # and what overflows it
    decided = {i for i in range(len(whole)) if i not in response} | {start + i for i in given(record)}
    for number, canvas in enumerate(canvases):
        assert canvas == [token if i in decided else MASK for i, token in enumerate(whole)][: len(canvas)]
        if number < passes:
            unmasked, end = record["unmasked"][number], record["end"][number]
            assert len(canvas) == end and [i for i, n in enumerate(record["unmasked_in"]) if n == number] == unmasked
            computed = {i for low, high in record["computed"][number] for i in range(low, high)}
            assert computed <= set(range(end)) and (len(computed) == end) == record["full"][number]
            decided |= {start + i for i in unmasked}


def given(record: dict) -> list[int]:
    """The response positions that were there from the start."""
    both = zip(record["output_ids"], record["unmasked_in"], strict=True)
    return [i for i, (token, number) in enumerate(both) if number < 0 and token != MASK]
