"""A fixed number of tokens each pass. Source: `num_transfer_tokens` of Kamichanw/d2Cache."""

from vllm_dllm.options import Option
from vllm_dllm.unmasking.base import UnmaskingRule


class TokensPerStep(UnmaskingRule):
    """The `tokens_per_step` largest scores of the active block, every pass."""

    option = Option("tokens_per_step", int, None, "unmask this many positions each pass", low=1)

    def __init__(self, tokens_per_step: int):
        self.tokens_per_step = tokens_per_step

    def number(self, canvas, ranked):
        return min(self.tokens_per_step, len(ranked))
