"""Which masked positions become tokens. One file for each rule; `RULES` lists them."""

from vllm_dllm.unmasking.base import UnmaskingRule
from vllm_dllm.unmasking.dream_steps import DreamSteps
from vllm_dllm.unmasking.entropy_bound import EntropyBound
from vllm_dllm.unmasking.factor import Factor
from vllm_dllm.unmasking.steps import Steps
from vllm_dllm.unmasking.threshold import Threshold
from vllm_dllm.unmasking.tokens_per_step import TokensPerStep

# by the setting that chooses it; a Dream model's `steps` is DreamSteps
RULES: dict[str, type[UnmaskingRule]] = {
    rule.option.name: rule for rule in (Threshold, Steps, TokensPerStep, Factor, EntropyBound)
}

__all__ = ["RULES", "DreamSteps", "UnmaskingRule"]
