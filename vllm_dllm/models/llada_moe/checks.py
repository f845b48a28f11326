"""What a LLaDA-MoE checkpoint's `config.json` may ask for, as modeling_lladamoe.py reads it.

It does not read `norm_topk_prob`, `routed_scaling_factor`, `router_num_group` and `router_topk_group`.
"""

from transformers import PretrainedConfig

from vllm_dllm.models.checks import check_experts, check_rope, check_sizes, refusal, require

# option -> the value that the layers are right for
OPTIONS = {
    "hidden_act": "silu",
    "attention_bias": False,
    "qk_layernorm": True,
    "moe_router_score_function": "softmax",
    "partial_rotary_factor": 1,
}


def check(hf: PretrainedConfig) -> None:
    """Raise SettingError for a config.json that the layers do not honour."""
    require(hf, OPTIONS)
    check_rope(hf)
    check_sizes(hf)
    kinds = hf.moe_layer_freq
    if len(kinds) != hf.num_hidden_layers or set(kinds) - {0, 1}:
        raise refusal("moe_layer_freq", kinds, f"a 0 or 1 for each of num_hidden_layers={hf.num_hidden_layers}")
    check_experts(hf)
