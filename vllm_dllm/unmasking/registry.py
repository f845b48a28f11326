"""Every unmasking rule by the setting that chooses it: ours, and those that other packages register."""

from vllm_dllm.plugins import load
from vllm_dllm.unmasking.base import UnmaskingRule
from vllm_dllm.unmasking.denoising_steps import DenoisingSteps
from vllm_dllm.unmasking.dream_steps import DreamSteps
from vllm_dllm.unmasking.dynamic_factor import DynamicFactor
from vllm_dllm.unmasking.entropy_bound import EntropyBound
from vllm_dllm.unmasking.entropy_threshold import DreamEntropyThreshold, EntropyThreshold
from vllm_dllm.unmasking.factor import Factor
from vllm_dllm.unmasking.steps import Steps
from vllm_dllm.unmasking.threshold import Threshold
from vllm_dllm.unmasking.tokens_per_step import TokensPerStep

GROUP = "vllm_dllm.unmasking_rules"  # the entry point group of other packages' rules
OURS = (Threshold, Steps, DenoisingSteps, TokensPerStep, Factor, DynamicFactor, EntropyBound, EntropyThreshold)
# rules of which Dream's code has its own, for models that count fixed steps as it does
DREAMS: dict[str, type[UnmaskingRule]] = {rule.option.name: rule for rule in (DreamSteps, DreamEntropyThreshold)}

# Kept apart from the package's __init__, which such a package imports: it may be imported before us.
RULES: dict[str, type[UnmaskingRule]] = load(
    GROUP, UnmaskingRule, {rule.option.name: rule for rule in OURS}, lambda rule: rule.option.name
)
# with the rules that stand for another one in some models
ALL_RULES: tuple[type[UnmaskingRule], ...] = (*RULES.values(), *DREAMS.values())


def rule_class(name: str, steps: str) -> type[UnmaskingRule]:
    """The rule that the setting `name` chooses, for a model that counts fixed steps as `steps` says."""
    return DREAMS.get(name, RULES[name]) if steps == "dream" else RULES[name]
