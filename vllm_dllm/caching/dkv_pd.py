"""Delayed caching, the prompt refreshed less often. Source: dKV-Cache (arXiv:2505.15781), horseee/dKV-Cache."""

import numpy as np

from vllm_dllm.caching.dkv_decode import REFRESH_INTERVAL, SHIFT, DKVDecode
from vllm_dllm.options import Option

PROMPT_INTERVAL = Option(
    "prompt_interval", int, 3, "recompute the prompt each time this many passes are done; 0: never again", low=0
)


class DKVPD(DKVDecode):
    """As `dkv-decode`, but where that recomputes everything, this recomputes the response.

    The prompt is recomputed, with everything else, each time `prompt_interval` passes of the request are
    done; with 0, as in the public code, in the first pass only. For Dream the prompt's last position counts
    as the response's: its row predicts the first response position. The public code has it for Dream alone.
    """

    name = "dkv-pd"
    options = (REFRESH_INTERVAL, PROMPT_INTERVAL, SHIFT)

    def __init__(self, row_shift: int, refresh_interval: int, prompt_interval: int, shift: str = SHIFT.default):
        super().__init__(row_shift, refresh_interval, shift)
        self.prompt_interval = prompt_interval

    def mark(self, canvas, pages):
        if self.prompt_interval and canvas.passes % self.prompt_interval == 0:
            pages.mark_all("interval")

    def positions(self, canvas):
        second = canvas.block_passes == 1 and not self.row_shift
        if second or canvas.block_passes % self.refresh_interval == 0:
            return np.arange(canvas.prompt_len + self.row_shift, canvas.end)
        return super().positions(canvas)
