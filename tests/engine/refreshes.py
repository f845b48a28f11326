"""Requests whose refreshes compete for a step's room, and how long each of them waited."""

BLOCK, PER_STEP = 16, 2
PASSES = BLOCK // PER_STEP  # of a block
DUAL = {"dllm_cache": "dual", "dllm_block_length": BLOCK, "dllm_tokens_per_step": PER_STEP, "ignore_eos": True}


def delays(trace: dict) -> list[int]:
    """How many passes each block's refresh waited."""
    starts = range(0, len(trace["full"]), PASSES)
    return [trace["full"].index(True, start) - start for start in starts]
