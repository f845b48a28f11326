"""SDAR's, SDAR-MoE's and LLaDA2.0's layers are those of the authors' code, whatever shares the batch.

One pass over a canvas that is one block, all of which attention sees. Blocks are the matter of tests/causal.
"""

import json
import re

import pytest
import torch
from block_causal import BlockCausal
from block_causal_configs import LLADA2, SDAR, SDAR_MOE
from common import MASK
from loaded import Loaded, engine_config
from vllm.forward_context import set_forward_context

from vllm_dllm.options import SettingError

pytestmark = pytest.mark.usefixtures("world")

IDS = [2, 3, 40, 50, 60, 70, 80, 90, 4] + [MASK] * 40


def of(base: dict, **options) -> pytest.param:
    return pytest.param(base, options, id="-".join([base["model_type"], *options]))


@pytest.mark.parametrize(
    "base, options",
    [
        of(LLADA2),
        of(LLADA2, num_experts=32, n_group=8, topk_group=4, num_experts_per_tok=8),  # as the released ones choose
        of(LLADA2, first_k_dense_replace=0, n_group=1, topk_group=1, num_experts_per_tok=3),
        of(LLADA2, num_experts_per_tok=1, num_shared_experts=0, routed_scaling_factor=1.0),
        of(LLADA2, num_shared_experts=2, norm_topk_prob=False, partial_rotary_factor=0.25, rotary_dim=8),
        of(LLADA2, use_qkv_bias=True, use_bias=True, num_key_value_heads=4, head_dim=64, sliding_window=4096),
        of(SDAR),
        of(SDAR, attention_bias=True, head_dim=32, num_key_value_heads=4, tie_word_embeddings=True),
        of(SDAR_MOE),
        of(SDAR_MOE, norm_topk_prob=False, attention_bias=True, tie_word_embeddings=True),
        of(SDAR_MOE, decoder_sparse_step=2, head_dim=32, num_experts_per_tok=3),
        of(SDAR_MOE, mlp_only_layers=[1], num_key_value_heads=4),
    ],
)
def test_forward(base, options, tmp_path):
    checkpoint = BlockCausal(base | options)
    found = Loaded(checkpoint.save(tmp_path)).log_probs(IDS)
    torch.testing.assert_close(found, checkpoint.logits(IDS, len(IDS)).log_softmax(-1), atol=1e-4, rtol=0)


@pytest.mark.parametrize("base", [LLADA2, SDAR_MOE], ids=lambda base: base["model_type"])
def test_a_token_has_the_same_experts_whatever_shares_the_batch(base, tmp_path):
    """And the same sums: bit for bit."""
    loaded = Loaded(BlockCausal(base).save(tmp_path))
    mlp = loaded.model.model.layers[1].mlp
    hidden = torch.randn(33, 128, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode(), set_forward_context(None, loaded.config):
        together = mlp(hidden.clone())
        for rows in (slice(0, 1), slice(7, 8), slice(3, 20)):
            assert torch.equal(mlp(hidden[rows].clone()), together[rows])


REFUSED = [  # config.json, options, the one that is named, what is allowed
    (LLADA2, {"hidden_act": "gelu"}, "hidden_act", "'silu'"),
    (LLADA2, {"use_qk_norm": False}, "use_qk_norm", "True"),
    (LLADA2, {"use_sliding_window": True, "sliding_window": 64}, "use_sliding_window", "False"),
    (LLADA2, {"norm_head": True}, "norm_head", "False"),
    (LLADA2, {"score_function": "softmax"}, "score_function", "'sigmoid'"),
    (LLADA2, {"moe_router_enable_expert_bias": False}, "moe_router_enable_expert_bias", "True"),
    (LLADA2, {"rope_scaling": {"type": "yarn", "factor": 4.0}}, "rope_scaling", "without scaling"),
    (LLADA2, {"num_key_value_heads": 3}, "num_key_value_heads", "a divisor of num_attention_heads=4"),
    (LLADA2, {"num_key_value_heads": 0}, "num_key_value_heads", "a divisor of num_attention_heads=4"),
    (LLADA2, {"n_group": 3}, "n_group", "a divisor of num_experts=8 that leaves two to a group"),
    (LLADA2, {"n_group": 8}, "n_group", "a divisor of num_experts=8 that leaves two to a group"),
    (LLADA2, {"topk_group": 5}, "topk_group", "from 1 to n_group=4"),
    (LLADA2, {"num_experts_per_tok": 5}, "num_experts_per_tok", "from 1 to 4, the experts of topk_group groups"),
    (LLADA2, {"first_k_dense_replace": 3}, "first_k_dense_replace", "from 0 to num_hidden_layers=2"),
    (LLADA2, {"moe_intermediate_size": None}, "moe_intermediate_size", "the number of columns of an MLP"),
    (LLADA2, {"model_type": "bailing_moe"}, "model_type", "'llada2_moe' with the architecture LLaDA2MoeModelLM"),
    (SDAR, {"block_size": 0}, "block_size", "at least 1"),
    (SDAR, {"use_sliding_window": True}, "use_sliding_window", "False"),
    (SDAR, {"num_key_value_heads": 3}, "num_key_value_heads", "a divisor of num_attention_heads=4"),
    (SDAR_MOE, {"hidden_act": "gelu"}, "hidden_act", "'silu'"),
    (SDAR_MOE, {"use_sliding_window": True}, "use_sliding_window", "False"),
    (SDAR_MOE, {"rope_scaling": {"type": "yarn", "factor": 4.0}}, "rope_scaling", "without scaling"),
    (SDAR_MOE, {"num_experts_per_tok": 9}, "num_experts_per_tok", "from 1 to num_experts=8"),
    (SDAR_MOE, {"decoder_sparse_step": 0}, "decoder_sparse_step", "at least 1"),
    (SDAR_MOE, {"model_type": "qwen3_moe"}, "model_type", "'sdar_moe' with the architecture SDARMoeForCausalLM"),
]


@pytest.mark.parametrize("base, options, named, allowed", REFUSED, ids=lambda v: v if isinstance(v, str) else "")
def test_what_the_layers_do_not_do_is_refused(base, options, named, allowed, tmp_path):
    path = BlockCausal(base).save(tmp_path)
    (path / "config.json").write_text(json.dumps(base | options))
    sentence = f"{named}={options[named]!r} in the model's config.json is not allowed: it must be"
    with pytest.raises((SettingError, ValueError), match=re.escape(sentence) + ".*" + re.escape(allowed)):
        engine_config(path)


def test_the_model_that_draws_images_too_is_refused(tmp_path):
    """LLaDA2.0-Uni bears the same names; its tokens from this number on are an image's."""
    path = BlockCausal(LLADA2 | {"image_token_offset": 100}).save(tmp_path)
    with pytest.raises(ValueError, match="image_token_offset=100 .* not allowed: it is LLaDA2.0-Uni's"):
        engine_config(path)


def test_ranks_must_divide_the_columns(tmp_path):
    dense = {"intermediate_size": 190, "moe_intermediate_size": 64}
    cases = [
        (LLADA2 | {"moe_intermediate_size": 70}, "moe_intermediate_size=70"),
        (LLADA2 | dense, "intermediate_size=190"),
        (SDAR_MOE | dense | {"mlp_only_layers": [0]}, "intermediate_size=190"),
    ]
    for number, (options, named) in enumerate(cases):
        path = BlockCausal(LLADA2 if options["model_type"] == "llada2_moe" else SDAR_MOE).save(tmp_path / str(number))
        (path / "config.json").write_text(json.dumps(options))
        with pytest.raises(ValueError, match=f"tensor_parallel_size=4 is not allowed: it must divide {named}"):
            engine_config(path, tensor_parallel_size=4, distributed_executor_backend="mp")
    path = BlockCausal(SDAR_MOE).save(tmp_path / "no dense layer")
    (path / "config.json").write_text(json.dumps(SDAR_MOE | dense))
    engine_config(path, tensor_parallel_size=4, distributed_executor_backend="mp")


AT = "model.layers.1."
WRONG = [  # config.json, a change of the tensors, what is said
    (LLADA2, {f"{AT}mlp.experts.3.up_proj.weight": None}, f"lacks weights for {AT}mlp.experts.3.up_proj"),
    (LLADA2, {f"{AT}mlp.gate.expert_bias": None}, f"lacks weights for {AT}mlp.expert_bias"),
    (LLADA2, {f"{AT}mlp.shared_experts.up_proj.weight": None}, f"lacks weights for {AT}mlp.shared_experts.up_proj"),
    (LLADA2, {"model.layers.0.mlp.up_proj.weight": None}, "lacks weights for model.layers.0.mlp.up_proj"),
    (LLADA2, {f"{AT}attention.query_key_value.weight": None}, f"lacks weights for {AT}self_attn.qkv_proj"),
    (LLADA2, {f"{AT}attention.key_layernorm.weight": None}, f"lacks weights for {AT}self_attn.k_norm"),
    (LLADA2, {f"{AT}attention.query_key_value.weight": (384, 128)}, "with 384 rows: config.json says 256"),
    (LLADA2, {f"{AT}attention.query_key_value.bias": (256,)}, "query_key_value.bias' of shape .* has no layer"),
    (LLADA2, {f"{AT}mlp.up_proj.weight": (64, 128)}, "mlp.up_proj.weight' of shape .* has no layer"),
    (LLADA2, {f"{AT}mlp.experts.8.up_proj.weight": (64, 128)}, "experts.8.up_proj.weight' of shape .* has no layer"),
    (SDAR, {f"{AT}self_attn.k_norm.weight": None}, f"lacks weights for {AT}self_attn.k_norm"),
    (SDAR_MOE, {f"{AT}mlp.experts.3.up_proj.weight": None}, f"lacks weights for {AT}mlp.experts.3.up_proj"),
    (SDAR_MOE, {f"{AT}self_attn.q_norm.weight": None}, f"lacks weights for {AT}self_attn.q_norm"),
    (SDAR_MOE, {f"{AT}mlp.up_proj.weight": (64, 128)}, "mlp.up_proj.weight' of shape .* has no layer"),
]


@pytest.mark.parametrize("base, change, said", WRONG, ids=lambda v: next(iter(v)) if isinstance(v, dict) else "")
def test_loaded_whole_or_refused(base, change, said, tmp_path):
    checkpoint = BlockCausal(base)
    weights = dict(checkpoint.weights)
    for name, shape in change.items():
        weights.pop(name, None)
        if shape:
            weights[name] = torch.ones(shape)
    with pytest.raises(ValueError, match=said):
        Loaded(checkpoint.save(tmp_path, weights))
