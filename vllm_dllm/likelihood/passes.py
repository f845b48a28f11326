"""What the passes over a target mask, and which of its tokens they read. Positions are the target's, from 0.

    target    a b c d                 chain                       masks
                              pass 0  m m m m   reads a           m b c m   reads a, d
                              pass 1  a m m m   reads b           a m c d   reads b
                              ...

The canvas of a pass is the prompt and the target, what is masked replaced by the mask token: computed whole each time,
for a key of the prompt depends on what is masked. Where attention is causal by blocks it ends with the block of what is
read, and finished blocks are computed once (scoring.py).
"""

from typing import Any, NamedTuple

import numpy as np


class Chain(NamedTuple):
    """One pass for each of the target's tokens [first, stop): from it on everything is masked, and it is read."""

    first: int
    stop: int
    length: int  # of the target

    def __len__(self) -> int:
        return self.stop - self.first

    def pass_of(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """(what it masks, what it reads): int64 positions, ascending."""
        position = self.first + number
        return np.arange(position, self.length), np.asarray([position])

    def slices(self, most: int) -> list["Passes"]:
        """The same passes in parts of at most so many."""
        starts = range(self.first, self.stop, most)
        return [Chain(low, min(low + most, self.stop), self.length) for low in starts]

    def pack(self) -> list[Any]:
        return ["chain", *self]


class Masks:
    """One pass for each row of `masks`, bool [passes, target's length]: what it masks is read."""

    def __init__(self, masks: np.ndarray):
        self.masks = masks

    def __len__(self) -> int:
        return len(self.masks)

    def pass_of(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """(what it masks, what it reads): int64 positions, ascending."""
        masked = np.flatnonzero(self.masks[number])
        return masked, masked

    def slices(self, most: int) -> list["Passes"]:
        """The same passes in parts of at most so many."""
        return [Masks(self.masks[low : low + most]) for low in range(0, len(self), most)]

    def pack(self) -> list[Any]:
        return ["masks", self.masks.shape[1], np.packbits(self.masks, axis=1).tobytes()]


Passes = Chain | Masks


def unpack(packed: list[Any]) -> Passes:
    """What `pack` made of them, in what a message can carry."""
    if packed[0] == "chain":
        return Chain(*packed[1:])
    _, length, bits = packed
    rows = np.frombuffer(bits, np.uint8).reshape(-1, -(-length // 8))
    return Masks(np.unpackbits(rows, axis=1, count=length).astype(bool))
