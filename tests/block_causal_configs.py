"""config.json of block-causal models' official checkpoints, whole, with small sizes and the bundled checkpoints' tokens."""

import json

from common import CHECKPOINTS, MASK

# config.json of the bundled checkpoint, whose options are those of inclusionAI/LLaDA2.0-mini, with two layers
LLADA2 = json.loads((CHECKPOINTS / "tiny-llada2" / "config.json").read_text()) | {"num_hidden_layers": 2}
# likewise of JetLM/SDAR-8B-Chat
SDAR = json.loads((CHECKPOINTS / "tiny-sdar" / "config.json").read_text()) | {"num_hidden_layers": 2}
# the options of JetLM/SDAR-30B-A3B-Chat's, which are Qwen3-MoE's and SDAR's
SDAR_MOE = {
    "architectures": ["SDARMoeForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "auto_map": {
        "AutoConfig": "configuration_sdar_moe.SDARMoeConfig",
        "AutoModelForCausalLM": "modeling_sdar_moe.SDARMoeForCausalLM",
    },
    "block_size": 4,
    "bos_token_id": 0,
    "decoder_sparse_step": 1,
    "eos_token_id": 0,
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 128,
    "initializer_range": 0.02,
    "intermediate_size": 192,
    "mask_token_id": MASK,
    "max_position_embeddings": 256,
    "max_window_layers": 2,
    "mlp_only_layers": [],
    "model_type": "sdar_moe",
    "moe_intermediate_size": 64,
    "norm_topk_prob": True,
    "num_attention_heads": 4,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "output_router_logits": False,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000.0,
    "router_aux_loss_coef": 0.001,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "use_sliding_window": False,
    "vocab_size": 128,
}
