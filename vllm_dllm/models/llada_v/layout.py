"""How an image becomes tiles, and how many of the tiles' features are left in which order. Plain numbers.

    image W x H  -->  tile 0, the whole image squeezed, and a grid of tiles that shows it larger, with black borders

    the grid's features      rows x columns, less those of the borders; where they are too many, scaled down
    in the prompt            tile 0's, row by row; then the grid's, row by row, a newline behind each row

Source: LLaVA's `mm_utils.py` and `llava_arch.py` (`anyres_max_N`, `spatial_unpad`), in LLaDA-V's repository.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from transformers.image_processing_utils import select_best_resolution

SCALED_FROM = 1.1  # how many times more features than `most` tiles have (a side's ratio) are still left as they are


class Layout(NamedTuple):
    """The features of one image."""

    down: int  # tiles of the grid
    across: int
    top: int  # rows cut off above, and as many below
    left: int
    rows: int  # what is left between
    columns: int
    scaled: tuple[int, int] | None  # rows and columns after scaling down
    of_tile: int  # features of a tile, one way: a tile has the square of it

    @property
    def shown(self) -> tuple[int, int]:
        """Rows and columns in the prompt."""
        return self.scaled or (self.rows, self.columns)

    @property
    def positions(self) -> int:
        """How many positions of the prompt the image takes."""
        rows, columns = self.shown
        return self.of_tile**2 + rows * (columns + 1)


def layout(width: int, height: int, resolutions: Sequence[Sequence[int]], tile: int, of_tile: int, most: int) -> Layout:
    """Of an image of `width` x `height` pixels. `resolutions`: [width, height] in pixels that the grid may have, of tiles
    of `tile` pixels a side, with `of_tile` features a side; beyond `most` tiles' features they are scaled down."""
    tall, wide = select_best_resolution((height, width), [(h, w) for w, h in resolutions])
    return cut(width, height, tall // tile, wide // tile, of_tile, most)


def cut(width: int, height: int, down: int, across: int, of_tile: int, most: int) -> Layout:
    """The same, once the grid is chosen: `down` x `across` tiles."""
    rows, columns = down * of_tile, across * of_tile
    top = left = 0
    if width / height > columns / rows:
        top = (rows - int(height * (columns / width))) // 2
    else:
        left = (columns - int(width * (rows / height))) // 2
    rows, columns = rows - 2 * top, columns - 2 * left
    ratio = math.sqrt(rows * columns / (most * of_tile**2))
    scaled = (int(rows // ratio), int(columns // ratio)) if ratio > SCALED_FROM else None
    return Layout(down, across, top, left, rows, columns, scaled, of_tile)


def most_positions(resolutions: Sequence[Sequence[int]], tile: int, of_tile: int, most: int) -> int:
    """More positions than this no image takes."""
    found = 0
    for wide, tall in resolutions:
        down, across = tall // tile, wide // tile
        # borders above and below of an image that is so much wider than the grid, or left and right
        for shown in range(down * of_tile + 1):
            found = max(found, cut(across * of_tile, max(shown, 1), down, across, of_tile, most).positions)
        for shown in range(across * of_tile + 1):
            found = max(found, cut(max(shown, 1), down * of_tile, down, across, of_tile, most).positions)
    return found
