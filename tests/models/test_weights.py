"""Checkpoints in the official layout: loaded whole, and computed as their authors' code computes them."""

import json
from pathlib import Path

import pytest
import torch
import train
from common import CHECKPOINTS, MASK
from loaded import Loaded
from official import DREAM, LLADA, Checkpoint
from safetensors.torch import save_file

pytestmark = pytest.mark.usefixtures("world")

IDS = [2, 3, 40, 50, 60, 70, 80, 90, 4] + [MASK] * 40

HONOURED = [
    (LLADA, {}),
    (LLADA, {"n_kv_heads": 2}),
    (LLADA, {"n_kv_heads": None}),
    (LLADA, {"n_kv_heads": None, "multi_query_attention": True}),
    (LLADA, {"weight_tying": True}),
    (LLADA, {"include_qkv_bias": True}),
    (LLADA, {"include_bias": True}),
    (LLADA, {"include_bias": True, "weight_tying": True}),
    (LLADA, {"scale_logits": True}),
    (LLADA, {"mlp_hidden_size": None, "mlp_ratio": 2}),
    (LLADA, {"embedding_size": 192}),
    (LLADA, {"rope_full_precision": False, "rope_theta": 10000.0}),
    (DREAM, {}),
    (DREAM, {"num_key_value_heads": None, "num_attention_heads": 2}),
    (DREAM, {"tie_word_embeddings": True}),
]


@pytest.mark.parametrize("base, options", HONOURED, ids=lambda v: v.get("model_type") or "-".join(v) or "official")
def test_forward(base, options, tmp_path):
    checkpoint = Checkpoint(base | options)
    log_probs = Loaded(checkpoint.save(tmp_path)).log_probs(IDS)
    expected = checkpoint.forward(IDS)
    assert log_probs.shape == expected.shape
    torch.testing.assert_close(log_probs, expected, atol=2e-4, rtol=0)


@pytest.mark.parametrize("model", ["tiny-llada", "tiny-dream"])
def test_bundled_checkpoint(model):
    ids = [2, 3] + [train.TOKEN[c] for c in "count to three"] + [4] + [MASK] * 64
    with torch.inference_mode():
        expected = train.load(CHECKPOINTS / model)(torch.tensor([ids]))[0].log_softmax(-1)
    torch.testing.assert_close(Loaded(CHECKPOINTS / model).log_probs(ids), expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("dtype, tolerance", [("bfloat16", 0.06), ("float16", 0.008)])
@pytest.mark.parametrize("base", [LLADA, DREAM], ids=["llada", "dream"])
def test_half_precision(base, dtype, tolerance, tmp_path):
    checkpoint = Checkpoint(base)
    loaded = Loaded(checkpoint.save(tmp_path), dtype=dtype)
    # a bias apart, which vLLM keeps in float32 where the CPU has AMX
    assert all(p.dtype == getattr(torch, dtype) for n, p in loaded.model.named_parameters() if not n.endswith(".bias"))
    error = (loaded.log_probs(IDS) - checkpoint.forward(IDS)).abs()
    assert error.max() < tolerance


def test_rope_in_full_precision(tmp_path):
    """In bfloat16 the rotation of query and key is computed in float32, unless config.json says otherwise."""
    positions, heads = torch.arange(100, 228), torch.randn(2, 128, 128, generator=torch.Generator().manual_seed(0))
    q, k = heads.bfloat16()
    rotated = {}
    for full in (True, False):
        path = Checkpoint(LLADA | {"rope_full_precision": full}).save(tmp_path / str(full))
        rope = Loaded(path, dtype="bfloat16").model.model.layers[0].self_attn.rotary_emb
        rotated[full] = rope(positions, q.clone(), k.clone())
    exact = Loaded(path).model.model.layers[0].self_attn.rotary_emb(positions, q.float(), k.float())
    for got, worse, want in zip(*rotated.values(), exact, strict=True):
        assert got.dtype == torch.bfloat16
        torch.testing.assert_close(got, want.bfloat16(), atol=0, rtol=0)
        assert not torch.equal(worse, got)


def test_shards(tmp_path):
    """The official checkpoints are several files and an index."""
    checkpoint = Checkpoint(LLADA)
    checkpoint.save(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    names = sorted(checkpoint.weights)
    index = {}
    for i, part in enumerate((names[::2], names[1::2]), 1):
        file = f"model-{i:05}-of-00002.safetensors"
        save_file({n: checkpoint.weights[n] for n in part}, tmp_path / file, metadata={"format": "pt"})
        index |= dict.fromkeys(part, file)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    torch.testing.assert_close(Loaded(tmp_path).log_probs(IDS), checkpoint.forward(IDS), atol=2e-4, rtol=0)


MISSING = [
    (LLADA, "model.transformer.wte.weight", "model.embed_tokens.weight"),
    (LLADA, "model.transformer.ln_f.weight", "model.norm.weight"),
    (LLADA, "model.transformer.ff_out.weight", "lm_head.weight"),
    (LLADA, "model.transformer.blocks.0.k_proj.weight", "model.layers.0.self_attn.k_proj.weight"),
    (LLADA, "model.transformer.blocks.1.attn_out.weight", "model.layers.1.self_attn.o_proj.weight"),
    (LLADA, "model.transformer.blocks.1.up_proj.weight", "model.layers.1.mlp.up_proj.weight"),
    (LLADA, "model.transformer.blocks.1.ff_norm.weight", "model.layers.1.post_attention_layernorm.weight"),
    (DREAM, "model.layers.1.self_attn.v_proj.bias", "model.layers.1.self_attn.v_proj.bias"),
    (DREAM, "lm_head.weight", "lm_head.weight"),
]


@pytest.mark.parametrize("base, name, ours", MISSING, ids=lambda v: v if isinstance(v, str) else "")
def test_a_missing_tensor_is_refused(base, name, ours, tmp_path):
    checkpoint = Checkpoint(base)
    path = checkpoint.save(tmp_path, {k: v for k, v in checkpoint.weights.items() if k != name})
    with pytest.raises(ValueError, match=f"the checkpoint lacks weights for {ours}, which its config.json asks for"):
        Loaded(path)


def test_many_missing_tensors_are_counted(tmp_path):
    checkpoint = Checkpoint(LLADA)
    path = checkpoint.save(tmp_path, {k: v for k, v in checkpoint.weights.items() if "blocks.1" not in k})
    with pytest.raises(ValueError, match="lacks weights for model.layers.1.* and 4 more, which"):
        Loaded(path)


UNEXPECTED = [
    (LLADA, "model.transformer.blocks.2.q_proj.weight", (128, 128)),  # a layer too many
    (LLADA, "model.transformer.blocks.0.q_norm.weight", (128,)),  # attention_layer_norm
    (LLADA, "model.transformer.wpe.weight", (256, 128)),  # learned positions
    (LLADA, "model.transformer.blocks.0.q_proj.bias", (128,)),
    (DREAM, "model.layers.0.self_attn.o_proj.bias", (128,)),
]


@pytest.mark.parametrize("base, name, shape", UNEXPECTED, ids=lambda v: v if isinstance(v, str) else "")
def test_an_unexpected_tensor_is_refused(base, name, shape, tmp_path):
    checkpoint = Checkpoint(base)
    path = checkpoint.save(tmp_path, checkpoint.weights | {name: torch.ones(shape)})
    with pytest.raises(
        ValueError, match=f"the checkpoint has a tensor '{name}' of shape .*, for which its config.json"
    ):
        Loaded(path)


def test_tensors_that_change_nothing_are_let_through(tmp_path):
    """A bias of zeros (GPTQ writes them), the frequencies of the rotation."""
    checkpoint = Checkpoint(DREAM)
    more = {
        "model.layers.0.self_attn.o_proj.bias": torch.zeros(128),
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(16),
    }
    loaded = Loaded(checkpoint.save(tmp_path, checkpoint.weights | more))
    torch.testing.assert_close(loaded.log_probs(IDS), checkpoint.forward(IDS), atol=2e-4, rtol=0)


def test_a_tied_head_may_be_there(tmp_path):
    """LLaDA's code does not look at it."""
    checkpoint = Checkpoint(LLADA | {"weight_tying": True})
    more = {"model.transformer.ff_out.weight": torch.zeros(128, 128)}
    loaded = Loaded(checkpoint.save(tmp_path, checkpoint.weights | more))
    torch.testing.assert_close(loaded.log_probs(IDS), checkpoint.forward(IDS), atol=2e-4, rtol=0)


def test_weights_may_be_updated_in_parts(tmp_path):
    """As trainers do: a part of the weights, over loaded ones or over dummy ones."""
    checkpoint = Checkpoint(LLADA)
    path = checkpoint.save(tmp_path)
    name = "model.transformer.ln_f.weight"  # vLLM packs those of linear layers on the CPU and lets go of them
    for load_format in ("auto", "dummy"):
        loaded = Loaded(path, load_format=load_format)
        loaded.model.load_weights([(name, checkpoint.weights[name] * 2)])
        assert torch.equal(loaded.model.model.norm.weight, checkpoint.weights[name] * 2)
    with pytest.raises(ValueError, match="for which its config.json has no layer"):
        loaded.model.load_weights([("model.transformer.blocks.1.ff_out.scale", torch.ones(1))])


def test_wrong_shape(tmp_path):
    checkpoint = Checkpoint(LLADA)
    name = "model.transformer.blocks.0.ff_out.weight"
    path: Path = checkpoint.save(tmp_path, checkpoint.weights | {name: torch.ones(128, 64)})
    with pytest.raises((AssertionError, ValueError, RuntimeError)):
        Loaded(path)
