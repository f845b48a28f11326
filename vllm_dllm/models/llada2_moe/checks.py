"""What a LLaDA2.0 checkpoint's `config.json` may ask for, as modeling_llada2_moe.py reads it.

It does not read `rotary_dim`, `router_dtype` (the router is float32) and `norm_topk_prob` (the weights of a token's experts
always are made to sum to 1, unless it has one).
"""

from transformers import PretrainedConfig

from vllm_dllm.models.checks import check_blocks, check_heads, check_rope, refusal, require

# option -> the value that the layers are right for
OPTIONS = {
    "hidden_act": "silu",
    "use_qk_norm": True,
    "use_rmsnorm": True,
    "use_sliding_window": False,
    "using_split_qkv_in_self_attention": False,
    "norm_head": False,
    "norm_softmax": False,
    "score_function": "sigmoid",
    "moe_router_enable_expert_bias": True,
}


def check(hf: PretrainedConfig) -> None:
    """Raise SettingError for a config.json that the layers do not honour."""
    require(hf, OPTIONS)
    check_rope(hf, hf.partial_rotary_factor)
    check_heads(hf)
    check_blocks(hf)
    check_groups(hf)
    layers, dense = hf.num_hidden_layers, hf.first_k_dense_replace
    if not 0 <= dense <= layers:
        raise refusal("first_k_dense_replace", dense, f"from 0 to num_hidden_layers={layers}")
    for option in hf.columns:
        if not getattr(hf, option):
            raise refusal(option, getattr(hf, option), "the number of columns of an MLP")


def check_groups(hf: PretrainedConfig) -> None:
    """Experts are chosen from the best groups of them, and a group is as good as its two best."""
    experts, groups = hf.num_experts, hf.n_group
    if groups < 1 or experts % groups or experts // groups < 2:
        raise refusal("n_group", groups, f"a divisor of num_experts={experts} that leaves two to a group")
    if not 1 <= hf.topk_group <= groups:
        raise refusal("topk_group", hf.topk_group, f"from 1 to n_group={groups}")
    most = hf.topk_group * (experts // groups)
    if not 1 <= hf.num_experts_per_tok <= most:
        raise refusal(
            "num_experts_per_tok", hf.num_experts_per_tok, f"from 1 to {most}, the experts of topk_group groups"
        )
