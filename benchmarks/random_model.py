"""A LLaDA checkpoint of random weights, of a chosen size, in the official layout."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

WIDTH, HEADS, FEED_FORWARD, VOCABULARY = 1024, 16, 2816, 16384
MASK, EOS = VOCABULARY - 1, VOCABULARY - 2
CACHE = Path.home() / ".cache" / "vllm-dllm"


def parameter_count(text: str) -> int:
    """200M, 1B: so many parameters."""
    return int(float(text[:-1]) * {"M": 1e6, "B": 1e9}[text[-1]])


def random_model(parameters: int, cache: Path = CACHE) -> Path:
    """The folder of a checkpoint with about `parameters` parameters; made once, then found in `cache`."""
    layer = 4 * WIDTH**2 + 3 * WIDTH * FEED_FORWARD
    layers = max(1, round((parameters - 2 * VOCABULARY * WIDTH) / layer))
    folder = cache / f"random-llada-{layers}x{WIDTH}"
    if not (folder / "config.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        save_file(_weights(layers), folder / "model.safetensors", metadata={"format": "pt"})
        # last: it says that the folder is complete
        (folder / "config.json").write_text(json.dumps(_config(layers), indent=2) + "\n")
    return folder


def _weights(layers: int) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(0)

    def matrix(rows: int, columns: int, scale: float = 1.0) -> torch.Tensor:
        values = torch.randn(rows, columns, generator=random)
        return (values * (scale * columns**-0.5)).to(torch.bfloat16)

    ones = torch.ones(WIDTH, dtype=torch.bfloat16)
    top = "model.transformer."
    weights = {
        top + "wte.weight": matrix(VOCABULARY, WIDTH, WIDTH**0.5),
        top + "ln_f.weight": ones,
        # a sharper distribution than the flat one of scale 1, so that confidences differ
        top + "ff_out.weight": matrix(VOCABULARY, WIDTH, 3.0),
    }
    for i in range(layers):
        block = f"{top}blocks.{i}."
        weights |= {block + f"{part}.weight": ones.clone() for part in ("attn_norm", "ff_norm")}
        weights |= {
            block + f"{part}.weight": matrix(WIDTH, WIDTH) for part in ("q_proj", "k_proj", "v_proj", "attn_out")
        }
        weights |= {block + f"{part}.weight": matrix(FEED_FORWARD, WIDTH) for part in ("ff_proj", "up_proj")}
        weights[block + "ff_out.weight"] = matrix(WIDTH, FEED_FORWARD)
    return weights


def _config(layers: int) -> dict:
    return {
        "architectures": ["LLaDAModelLM"],
        "model_type": "llada",
        "activation_type": "silu",
        "alibi": False,
        "attention_dropout": 0.0,
        "attention_layer_norm": False,
        "block_group_size": 1,
        "block_type": "llama",
        "d_model": WIDTH,
        "embedding_dropout": 0.0,
        "embedding_size": VOCABULARY,
        "eos_token_id": EOS,
        "flash_attention": False,
        "include_bias": False,
        "include_qkv_bias": False,
        "init_device": "meta",
        "input_emb_norm": False,
        "layer_norm_type": "rms",
        "layer_norm_with_affine": True,
        "mask_token_id": MASK,
        "max_sequence_length": 1024,
        "mlp_hidden_size": FEED_FORWARD,
        "mlp_ratio": 4,
        "multi_query_attention": None,
        "n_heads": HEADS,
        "n_kv_heads": HEADS,
        "n_layers": layers,
        "pad_token_id": EOS,
        "residual_dropout": 0.0,
        "rms_norm_eps": 1e-5,
        "rope": True,
        "rope_full_precision": True,
        "rope_theta": 500000.0,
        "scale_logits": False,
        "torch_dtype": "bfloat16",
        "use_cache": False,
        "vocab_size": VOCABULARY,
        "weight_tying": False,
    }
