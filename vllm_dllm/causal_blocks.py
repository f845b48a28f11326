"""The frontier of models whose attention is causal by blocks: a position sees its own block and those before it.

      prompt              response                                  overflow
    | t t t t | t t t t | t t m m | .  .  .  . | .  .  .  . | .  .  .  o |
      finished  finished  active    does not exist yet
    0         b         2b

Blocks of b positions are counted from the canvas's start, so that the first decoded one may begin with the prompt's tail.
Nothing behind the active block is seen, so nothing there exists; what is before it never changes again.
Sources: SDAR (arXiv:2510.06303), LLaDA2.0 (arXiv:2512.15745).
"""

from vllm_dllm.frontier import Blocks, Positions, num_blocks


def whole_blocks(length: int, block_length: int) -> int:
    """The positions of as many blocks as hold `length` positions."""
    return -(-length // block_length) * block_length


class CausalBlocks(Blocks):
    """One block is active, the first with masked positions. The canvas ends with it.

    `commits`: blocks are computed once more when all of their tokens are there, before the next one exists, so that their
    keys and values can stay. The canvas then ends with them, and nothing is a candidate.
    """

    def __init__(self, block_length: int, commits: bool):
        super().__init__(block_length)
        self.commits = commits

    def start(self, canvas):
        self.count = num_blocks(canvas.length, self.block_length)
        self._to(canvas, 0)
        self.advance(canvas)

    def _to(self, canvas: Positions, number: int) -> None:
        self.number = number
        self.began = canvas.passes
        self.begin = min(number * self.block_length, canvas.length)
        self.first_stop = self.stop = min(self.begin + self.block_length, canvas.length)

    def advance(self, canvas):
        if canvas.end <= self.begin:  # the pass was of what is before the block
            self.began = canvas.passes
        super().advance(canvas)

    def extent(self, canvas):
        return self.begin if self.commits and canvas.computed < self.begin else self.stop

    def opened_blocks(self, canvas):
        starts = range(0, self.stop, self.block_length)
        return [(start, min(start + self.block_length, self.stop)) for start in starts]
