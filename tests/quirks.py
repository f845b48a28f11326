"""Where a public code is not followed, on purpose: what its golden cases say, less the quirk."""


def query_tokens(case: dict, unmasked: list[list[int]]) -> list[int]:
    """A case's `query_tokens` as they should be here; `unmasked` are the response positions of our passes.

    Fast-dLLM's loops of `prefix` and `dual` go on with a partial pass before they look whether the block is
    done. Where a block's first pass unmasks all of it, that second pass has nothing to unmask, and what it
    writes is overwritten by the next block's first pass: no output hangs on it. d2Cache's code, which takes
    the very same settings, leaves it out, and so do we.
    """
    if case["source"] != "fastdllm" or case["cache"] == "none":
        return case["query_tokens"]
    length, passes = case["block_length"], list(case["query_tokens"])
    blocks = [positions[0] // length for positions in unmasked]
    for i, block in enumerate(blocks):
        if blocks.count(block) == 1:
            idle = length if case["cache"] == "dual" else case["gen_length"] - block * length
            assert passes.pop(i + 1) == idle, "no idle pass where Fast-dLLM has one"
    return passes
