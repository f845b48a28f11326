"""Which masked positions become tokens. One file for each rule; `registry.RULES` lists them."""

from vllm_dllm.unmasking.base import UnmaskingRule, top

__all__ = ["UnmaskingRule", "top"]
