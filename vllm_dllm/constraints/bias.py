"""A bias on some tokens' logits."""

from collections.abc import Mapping

import numpy as np

from vllm_dllm.constraints.base import Constraint
from vllm_dllm.messages import Adjustment


class Bias(Constraint):
    """Adds to the logits of some tokens, at every position. As vLLM does, before penalties."""

    lasting = True

    def __init__(self, bias: Mapping[int, float]):
        tokens = np.asarray(list(bias), np.int32)
        self.adjustment = Adjustment(tokens, None, np.asarray(list(bias.values()), np.float32))

    def edit(self, canvas, reads, edits):
        edits.adjusted.append(self.adjustment)
