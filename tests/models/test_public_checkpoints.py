"""Every public checkpoint of the families, by what its config.json says: in its own sizes as far as the weights, which are
not here, and in small sizes where a layout is no family's own."""

import json
from pathlib import Path

import pytest
import torch
from block_causal_configs import LLADA2, SDAR, SDAR_MOE
from common import CHECKPOINTS, MASK
from loaded import Loaded, engine_config
from official import DREAM, LLADA, Checkpoint
from official_moe import LLADA_MOE
from test_illada import ILLADA

from vllm_dllm.engine_config import model_traits
from vllm_dllm.models import family_of


def older(options: dict) -> dict:
    """A config.json of SDAR that names neither block size nor mask token."""
    return {key: value for key, value in options.items() if key not in ("block_size", "mask_token_id")}


LLADA_8B = LLADA | {
    "d_model": 4096,
    "embedding_size": 126464,
    "eos_token_id": 126081,
    "mask_token_id": 126336,
    "max_sequence_length": 4096,
    "mlp_hidden_size": 12288,
    "n_heads": 32,
    "n_kv_heads": 32,
    "n_layers": 32,
    "pad_token_id": 126081,
    "vocab_size": 126464,
}
DREAM_7B = DREAM | {
    "bos_token_id": 151643,
    "eos_token_id": 151643,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "mask_token_id": 151666,
    "max_position_embeddings": 131072,
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "pad_token_id": 151643,
    "vocab_size": 152064,
}
MOE_7B = {k: v for k, v in LLADA_MOE.items() if k != "mask_token_id"} | {
    "dense_intermediate_size": 8192,
    "eos_token_id": 156892,
    "expert_intermediate_size": 1024,
    "hidden_size": 2048,
    "max_position_embeddings": 8192,
    "moe_layer_freq": [1] * 16,
    "num_attention_heads": 16,
    "num_experts": 64,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 16,
    "num_key_value_heads": 16,
    "pad_token_id": 156892,
    "vocab_size": 157184,
}
ILLADA_8B = ILLADA | {
    "bos_token_id": 0,
    "eos_token_id": 2,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 8192,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "vocab_size": 155136,
}
LLADA2_MINI = {k: v for k, v in LLADA2.items() if k not in ("mask_token_id", "eos_token_id")} | {
    "head_dim": 128,
    "hidden_size": 2048,
    "intermediate_size": 5120,
    "max_position_embeddings": 16384,
    "max_window_layers": 28,
    "moe_intermediate_size": 512,
    "n_group": 8,
    "num_attention_heads": 16,
    "num_experts": 256,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 20,
    "num_key_value_heads": 4,
    "pad_token_id": 156892,
    "rotary_dim": 64,
    "topk_group": 4,
    "vocab_size": 157184,
}
LLADA2_FLASH = LLADA2_MINI | {
    "hidden_size": 4096,
    "intermediate_size": 9216,
    "moe_intermediate_size": 1024,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
}
SDARS = {
    "bos_token_id": 151643,
    "eos_token_id": 151643,
    "head_dim": 128,
    "mask_token_id": 151669,
    "max_position_embeddings": 32768,
    "num_key_value_heads": 8,
    "vocab_size": 151936,
}
SDAR_1_7B = (
    SDAR | SDARS | {"hidden_size": 2048, "intermediate_size": 6144, "num_attention_heads": 16, "num_hidden_layers": 28}
)
SDAR_4B = SDAR_1_7B | {
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_attention_heads": 32,
    "num_hidden_layers": 36,
}
SDAR_8B = SDAR_4B | {"hidden_size": 4096, "intermediate_size": 12288}
SDAR_30B = (
    SDAR_MOE
    | SDARS
    | {
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "max_window_layers": 48,
        "moe_intermediate_size": 768,
        "num_attention_heads": 32,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "num_hidden_layers": 48,
        "num_key_value_heads": 4,
    }
)
NEWER = {"dtype": "bfloat16", "transformers_version": "4.57.1"}  # what a later transformers saves
PUBLIC = {  # checkpoint -> its config.json, mask token and family
    "GSAI-ML/LLaDA-8B-Base": (LLADA_8B, 126336, "LLaDA"),
    "GSAI-ML/LLaDA-8B-Instruct": (LLADA_8B, 126336, "LLaDA"),
    "GSAI-ML/LLaDA-1.5": (LLADA_8B | {"use_cache": True}, 126336, "LLaDA"),
    "Zigeng/dParallel-LLaDA-8B-instruct": (LLADA_8B | NEWER, 126336, "LLaDA"),
    "d3LLM/d3LLM_LLaDA": (LLADA_8B | NEWER, 126336, "LLaDA"),
    "Dream-org/Dream-v0-Base-7B": (DREAM_7B, 151666, "Dream"),
    "Dream-org/Dream-v0-Instruct-7B": (DREAM_7B, 151666, "Dream"),
    "Dream-org/Dream-Coder-v0-Instruct-7B": (DREAM_7B | {"max_position_embeddings": 32768}, 151666, "Dream"),
    "apple/DiffuCoder-7B-Instruct": (DREAM_7B | {"full_attn_mask": True}, 151666, "Dream"),
    "Zigeng/dParallel_Dream_7B_Instruct": (DREAM_7B | NEWER, 151666, "Dream"),
    "d3LLM/d3LLM_Dream": (DREAM_7B | NEWER, 151666, "Dream"),
    "inclusionAI/LLaDA-MoE-7B-A1B-Base": (MOE_7B, 156895, "LLaDA-MoE"),
    "inclusionAI/LLaDA-MoE-7B-A1B-Instruct": (MOE_7B | NEWER, 156895, "LLaDA-MoE"),
    "GSAI-ML/iLLaDA-8B-Base": (ILLADA_8B, 5, "iLLaDA"),
    "GSAI-ML/iLLaDA-8B-Instruct": (ILLADA_8B | NEWER, 5, "iLLaDA"),
    "inclusionAI/LLaDA2.0-mini": (LLADA2_MINI, 156895, "LLaDA2.0"),
    "inclusionAI/LLaDA2.0-flash": (LLADA2_FLASH | NEWER | {"sliding_window": 4096}, 156895, "LLaDA2.0"),
    "JetLM/SDAR-1.7B-Chat": (SDAR_1_7B, 151669, "SDAR"),
    "JetLM/SDAR-4B-Chat": (SDAR_4B, 151669, "SDAR"),
    "JetLM/SDAR-8B-Chat": (SDAR_8B, 151669, "SDAR"),
    "JetLM/SDAR-8B-Chat, older": (older(SDAR_8B), 151669, "SDAR"),
    "JetLM/SDAR-4B-Chat-b32": (SDAR_4B | {"block_size": 32}, 151669, "SDAR"),
    "Gen-Verse/TraDo-4B-Instruct": (older(SDAR_4B), 151669, "SDAR"),
    "Gen-Verse/TraDo-8B-Instruct": (older(SDAR_8B), 151669, "SDAR"),
    "JetLM/SDAR-30B-A3B-Chat": (SDAR_30B, 151669, "SDAR-MoE"),
    "JetLM/SDAR-30B-A3B-Chat, older": (older(SDAR_30B), 151669, "SDAR-MoE"),
}

# family whose attention is causal by blocks -> the block length that nobody names, and its authors' threshold
BLOCKS = {"SDAR": (4, 0.85), "SDAR-MoE": (4, 0.85), "LLaDA2.0": (32, 0.95)}


def folder(path: Path, options: dict) -> Path:
    """A config.json and the bundled tokenizer, less its mask token."""
    path.mkdir()
    for file in ("tokenizer.json", "tokenizer_config.json"):
        content = json.loads((CHECKPOINTS / "tiny-llada" / file).read_text())
        content.pop("mask_token", None)
        (path / file).write_text(json.dumps(content))
    (path / "config.json").write_text(json.dumps(options))
    return path


@pytest.mark.parametrize("name", PUBLIC)
def test_public_configs(name, tmp_path):
    options, mask, family = PUBLIC[name]
    config = engine_config(folder(tmp_path / "model", options))
    shift, steps = (-1, "dream") if family == "Dream" else (0, "llada")
    traits = model_traits(config)
    assert (traits.mask_id, traits.row_shift, traits.steps) == (mask, shift, steps)
    assert family_of(config.model_config).name == family
    block = BLOCKS.get(family, (None, None))
    assert (traits.block_length, traits.dynamic_threshold) == (options.get("block_size", block[0]), block[1])
    assert config.model_config.get_sliding_window() is None


# ---- layouts that no architecture's name tells: the user says which decoding they are for ----

AS_DREAM = {"architectures": ["DreamModel"], "model_type": "Dream"}
LLAMA = {k: v for k, v in DREAM.items() if k not in ("auto_map", "mask_token_id", "use_mrope", "use_sliding_window")}
LAYOUTS = {  # config.json, what is put over it
    "DiffuLLaMA": (
        LLAMA | {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_key_value_heads": 4},
        AS_DREAM | {"qkv_bias": False, "mask_token_id": MASK},
    ),
    "Open-dCoder": (
        LLAMA | {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "tie_word_embeddings": True},
        AS_DREAM | {"mask_token_id": MASK},
    ),
}


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_of_autoregressive_models(name, tmp_path):
    options, overrides = LAYOUTS[name]
    ids = [2, 3, 40, 50, 60, 70, 80, 90, 4] + [MASK] * 40
    checkpoint = Checkpoint(options if name == "DiffuLLaMA" else options | {"model_type": "Dream"})
    path = checkpoint.save(tmp_path)
    (path / "config.json").write_text(json.dumps(options))
    loaded = Loaded(path, hf_overrides=overrides)
    assert model_traits(loaded.config).row_shift == -1
    torch.testing.assert_close(loaded.log_probs(ids), checkpoint.forward(ids), atol=2e-4, rtol=0)
