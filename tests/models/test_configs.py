"""What config.json may say: honoured, or refused by name."""

import json
import re
from pathlib import Path

import pytest
from loaded import engine_config
from official import DREAM, LLADA, Checkpoint

from vllm_dllm.models import ARCHITECTURES
from vllm_dllm.models.checks import check_tensor_parallel
from vllm_dllm.models.dream.config import DreamConfig
from vllm_dllm.models.llada.config import LLaDAConfig
from vllm_dllm.options import SettingError


def family(options: dict):
    return ARCHITECTURES[options["architectures"][0]]


def config_of(options: dict):
    return family(options).config(**options)


def checked(options: dict):
    config = config_of(options)
    family(options).check(config)
    return config


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256}
REFUSED = [  # config, the options that are refused, the one that is named, what is allowed
    (LLADA, {"alibi": True, "rope": False}, "alibi", "False"),
    (LLADA, {"rope": False}, "rope", "True"),
    (LLADA, {"block_type": "sequential"}, "block_type", "'llama'"),
    (LLADA, {"block_type": "parallel"}, "block_type", "'llama'"),
    (LLADA, {"block_group_size": 2}, "block_group_size", "1"),
    (LLADA, {"activation_type": "swiglu"}, "activation_type", "'silu'"),
    (LLADA, {"activation_type": "gelu"}, "activation_type", "'silu'"),
    (LLADA, {"layer_norm_type": "default"}, "layer_norm_type", "'rms'"),
    (LLADA, {"layer_norm_type": "gemma_rms"}, "layer_norm_type", "'rms'"),
    (LLADA, {"layer_norm_with_affine": False}, "layer_norm_with_affine", "True"),
    (LLADA, {"bias_for_layer_norm": True}, "bias_for_layer_norm", "False"),
    (LLADA, {"bias_for_layer_norm": None, "include_bias": True}, "bias_for_layer_norm", "False"),
    (LLADA, {"attention_layer_norm": True}, "attention_layer_norm", "False"),
    (LLADA, {"input_emb_norm": True}, "input_emb_norm", "False"),
    (LLADA, {"clip_qkv": 8.0}, "clip_qkv", "None"),
    (LLADA, {"multi_query_attention": True}, "multi_query_attention", "None with n_kv_heads=4"),
    (LLADA, {"multi_query_attention": False, "n_kv_heads": 2}, "multi_query_attention", "None with n_kv_heads=2"),
    (LLADA, {"embedding_size": 64}, "embedding_size", "at least vocab_size=128"),
    (LLADA, {"n_heads": 3}, "n_heads", "a divisor of d_model=128"),
    (LLADA, {"n_kv_heads": 3}, "n_kv_heads", "a divisor of n_heads=4"),
    (LLADA, {"head_dim": 64}, "head_dim", "32"),
    (LLADA, {"rope_scaling": YARN}, "rope_scaling", "without scaling"),
    (DREAM, {"hidden_act": "gelu"}, "hidden_act", "'silu'"),
    (DREAM, {"use_sliding_window": True, "sliding_window": 64}, "use_sliding_window", "False"),
    (DREAM, {"rope_scaling": YARN}, "rope_scaling", "without scaling"),
    (DREAM, {"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling", "without scaling"),
    (DREAM, {"rope_parameters": YARN | {"rope_theta": 1e6}}, "rope_parameters", "without scaling"),
    (DREAM, {"use_mrope": True}, "use_mrope", "False"),
    (DREAM, {"attention_bias": True}, "attention_bias", "False"),
    (DREAM, {"mlp_bias": True}, "mlp_bias", "False"),
    (DREAM, {"layer_types": ["sliding_attention", "full_attention"]}, "layer_types", "'full_attention'"),
    (DREAM, {"num_attention_heads": 5}, "num_attention_heads", "a divisor of hidden_size=128"),
    (DREAM, {"num_key_value_heads": 3}, "num_key_value_heads", "a divisor of num_attention_heads=4"),
]


@pytest.mark.parametrize("base, options, named, allowed", REFUSED)
def test_refused_by_name(base, options, named, allowed):
    sentence = f"{named}={options.get(named, base.get(named))!r} in the model's config.json is not allowed: it must be"
    with pytest.raises(SettingError, match=re.escape(sentence) + ".*" + re.escape(allowed)):
        checked(base | options)


@pytest.mark.parametrize("option", ["block_type", "activation_type", "layer_norm_type", "rope"])
def test_the_authors_default_counts_where_an_option_is_missing(option):
    """LLaDA's config class inherits GPT-2-like defaults from OLMo, which its own modelling code then refuses."""
    with pytest.raises(SettingError, match=f"^{option}="):
        checked({k: v for k, v in LLADA.items() if k != option})


@pytest.mark.parametrize("base", [LLADA, DREAM], ids=["llada", "dream"])
def test_options_that_change_nothing_are_accepted(base):
    changed = {
        "attention_dropout": 0.1,
        "residual_dropout": 0.1,
        "embedding_dropout": 0.1,
        "init_device": "cuda",
        "init_fn": "normal",
        "init_std": 0.1,
        "init_cutoff_factor": 3,
        "initializer_range": 0.1,
        "precision": "fp32",
        "flash_attention": True,
        "alibi_bias_max": 4.0,
        "attention_layer_norm_with_affine": False,
        "max_window_layers": 7,
        "use_cache": True,
    }
    checked(base | {k: v for k, v in changed.items() if k in base})


def test_dream_sliding_window_is_off_unless_asked_for():
    for options in ({"sliding_window": 64}, {"sliding_window": 64, "use_sliding_window": None}):
        config = config_of({k: v for k, v in DREAM.items() if k != "use_sliding_window"} | options)
        assert config.sliding_window is None


@pytest.mark.parametrize("base", [LLADA, DREAM], ids=["llada", "dream"])
def test_is_causal_is_not_for_vllm(base):
    """It would build layers without a KV cache."""
    assert getattr(config_of(base | {"is_causal": False}), "is_causal", True)


@pytest.mark.parametrize("base", [LLADA, DREAM], ids=["llada", "dream"])
def test_a_config_saved_by_transformers_reads_the_same(base, tmp_path):
    options = base | ({"n_kv_heads": None, "mlp_hidden_size": None} if base is LLADA else {})
    config = config_of(options)
    config.save_pretrained(tmp_path)
    again = type(config).from_pretrained(tmp_path)
    for option in (
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_key_value_heads",
        "mask_token_id",
        "rope_theta",
    ):
        assert getattr(again, option) == getattr(config, option)


HEADS = [  # query heads, KV heads, tensor-parallel sizes that are right, and that are not
    (32, 32, (1, 2, 4, 8, 16, 32), (3, 5, 64)),
    (28, 4, (1, 2, 4, 28), (3, 8, 7)),
    (12, 6, (1, 2, 3, 6, 12), (4, 8)),
]


@pytest.mark.parametrize("heads, kv_heads, right, wrong", HEADS)
def test_heads_must_divide(heads, kv_heads, right, wrong):
    options = {"n_heads": heads, "n_kv_heads": kv_heads, "d_model": heads * 32, "mlp_hidden_size": 32 * 9 * 7 * 5}
    config = config_of(LLADA | options)
    for size in right:
        check_tensor_parallel(config, size)
    for size in wrong:
        with pytest.raises(
            SettingError, match=f"^tensor_parallel_size={size} is not allowed: it must .* n_(kv_)?heads="
        ):
            check_tensor_parallel(config, size)


def test_feed_forward_must_divide():
    with pytest.raises(SettingError, match="it must divide mlp_hidden_size=190"):
        check_tensor_parallel(config_of(LLADA | {"mlp_hidden_size": 190}), 4)


# ---- through vLLM ----


def saved(options: dict, path: Path) -> Path:
    checkpoint = Checkpoint(LLADA if options["model_type"] == "llada" else DREAM).save(path)
    (checkpoint / "config.json").write_text(json.dumps(options))
    return checkpoint


@pytest.mark.parametrize("base", [LLADA, DREAM], ids=["llada", "dream"])
def test_the_official_config_needs_no_remote_code(base, tmp_path):
    """Its auto_map names files that are not there."""
    assert "auto_map" in base
    config = engine_config(saved(base, tmp_path), trust_remote_code=False)
    assert isinstance(config.model_config.hf_config, LLaDAConfig | DreamConfig)
    assert config.model_config.hf_config.mask_token_id == 1
    assert config.model_config.max_model_len == 128


def test_vllm_shows_the_sentence(tmp_path):
    with pytest.raises(ValueError, match="alibi=True in the model's config.json is not allowed: it must be False"):
        engine_config(saved(LLADA | {"alibi": True}, tmp_path))
    with pytest.raises(ValueError, match="tensor_parallel_size=3 is not allowed: it must divide n_heads=4"):
        engine_config(saved(LLADA, tmp_path), tensor_parallel_size=3, distributed_executor_backend="mp")


def test_hf_overrides_are_checked_too(tmp_path):
    with pytest.raises(ValueError, match="block_type='sequential' in the model's config.json is not allowed"):
        engine_config(saved(LLADA, tmp_path), hf_overrides={"block_type": "sequential"})


@pytest.mark.parametrize("base", [LLADA, DREAM], ids=["llada", "dream"])
def test_mask_token(base, tmp_path):
    without = {k: v for k, v in base.items() if k != "mask_token_id"}
    path = saved(without, tmp_path)
    assert engine_config(path).model_config.hf_config.mask_token_id == 1  # the tokenizer's
    with pytest.raises(ValueError, match="mask_token_id=128 in the model's config.json is not allowed: .* 0 to 127"):
        engine_config(saved(base | {"mask_token_id": 128}, tmp_path))
    path = saved(without, tmp_path / "no-mask-token")
    tokenizer = json.loads((path / "tokenizer_config.json").read_text())
    del tokenizer["mask_token"]
    (path / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ValueError, match="mask_token_id=None in the model's config.json is not allowed: .* tokenizer"):
        engine_config(path)
