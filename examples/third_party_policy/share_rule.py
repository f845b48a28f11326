"""An unmasking rule from outside vllm-dllm.

vllm serve MODEL --dllm-share 0.25
"""

from vllm_dllm.options import Option
from vllm_dllm.unmasking import UnmaskingRule, top


class Share(UnmaskingRule):
    """A share of the candidates, the best ones; at least one."""

    option = Option("share", float, None, "unmask this share of the candidates each pass", low=0, high=1)

    def __init__(self, share: float):
        self.share = share

    def select(self, canvas, scores, seen, rng):
        return top(canvas, scores, max(1, int(self.share * len(canvas.candidates))))
