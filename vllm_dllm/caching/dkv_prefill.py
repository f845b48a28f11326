"""Caching of the prompt alone. Source: dKV-Cache (arXiv:2505.15781), horseee/dKV-Cache."""

import numpy as np

from vllm_dllm.caching.base import CachePolicy


class DKVPrefill(CachePolicy):
    """Everything but the prompt; the prompt in the first pass only.

    For Dream the prompt's last position is computed too: its row predicts the first response position.
    The public code has it for Dream alone; nothing in it depends on the model.
    """

    name = "dkv-prefill"

    def positions(self, canvas):
        return np.arange(canvas.prompt_len + self.row_shift, canvas.end)
