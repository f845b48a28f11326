"""Canvases and observations made by hand. Positions are numbered within the response here, to be read easily."""

import numpy as np

from vllm_dllm.canvas import Canvas
from vllm_dllm.frontier import Blocks
from vllm_dllm.messages import Observation

MASK = 1


def new_canvas(gen_length: int, block_length: int | None = None, prompt_len: int = 3) -> Canvas:
    return Canvas([5] * prompt_len, gen_length, MASK, Blocks(block_length or gen_length))


def candidates(canvas: Canvas) -> list[int]:
    return (canvas.candidates - canvas.prompt_len).tolist()


def observe(canvas: Canvas, confidence, entropy=None, margin=None) -> Observation:
    """What a pass over `canvas` read: values for its candidates, in their order."""
    positions = canvas.candidates
    assert len(positions) == len(confidence)

    def floats(values):
        return None if values is None else np.asarray(values, np.float32)

    return Observation(positions, positions + 10, floats(confidence), floats(margin), floats(entropy))


def full_scores(canvas: Canvas, values) -> np.ndarray:
    """`values` of the candidates as the array of scores that rules get."""
    scores = np.full(canvas.length, -np.inf, np.float32)
    scores[canvas.candidates] = values
    return scores


def select(rule, canvas: Canvas, confidence, entropy=None, rng=None) -> list[int]:
    """The positions the rule picks by confidence, ascending."""
    seen = observe(canvas, confidence, entropy)
    chosen = rule.select(canvas, full_scores(canvas, seen.confidence), seen, rng)
    return sorted((chosen - canvas.prompt_len).tolist())


def unmask(canvas: Canvas, positions) -> None:
    positions = np.sort(np.asarray(positions, np.int64))
    canvas.unmask(positions + canvas.prompt_len, (positions + 10).astype(np.int32))
