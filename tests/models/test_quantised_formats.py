"""Checkpoints in GPTQ's, AWQ's and FP8's formats: what their lists skip is plain, all else is theirs."""

import pytest
import torch
from block_causal import BlockCausal
from block_causal_configs import LLADA2
from loaded import Loaded, engine_config
from official import DREAM, LLADA, Checkpoint
from official_moe import LLADA_MOE, MoECheckpoint
from quantised import GROUP, awq, fp8, gptq, quantise
from vllm.config import set_current_vllm_config
from vllm.model_executor.model_loader.utils import initialize_model
from vllm.utils.torch_utils import set_default_torch_dtype

pytestmark = pytest.mark.usefixtures("world")

IDS = [2, 3, 40, 50, 60, 70, 80, 90, 4] + [1] * 40
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "desc_act": False, "sym": True, "lm_head": False}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": GROUP, "zero_point": True, "version": "gemm"}
FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic"}
HEAD, DOWN = "model.transformer.ff_out", "model.transformer.blocks.1.ff_out"  # LLaDA's
QKV = "model.layers.0.attention.query_key_value"  # LLaDA2.0's

RUN = [  # config.json, what makes it, quantization_config, what is skipped
    # the tensors' types say what is quantised; of a skip list that names the head nothing else is skipped
    (LLADA, gptq, GPTQ | {"dynamic": {r"-:.*transformer\.ff_out$": {}}}, [HEAD]),
    (LLADA, gptq, GPTQ, [HEAD, DOWN]),
    (
        LLADA,
        gptq,
        GPTQ | {"modules_in_block_to_quantize": [["q_proj", "k_proj", "v_proj"], ["ff_out"]]},
        [HEAD, "o gate up"],
    ),
    (LLADA, awq, AWQ | {"modules_to_not_convert": ["transformer.ff_out"]}, [HEAD]),
    (LLADA, awq, AWQ | {"modules_to_not_convert": [HEAD, DOWN]}, [HEAD, DOWN]),
    (DREAM, awq, AWQ | {"modules_to_not_convert": ["lm_head"]}, ["lm_head"]),
    (LLADA_MOE, gptq, GPTQ, ["lm_head"]),
    (LLADA_MOE, awq, AWQ | {"modules_to_not_convert": ["mlp.gate"]}, ["lm_head"]),
    (LLADA2, gptq, GPTQ, ["lm_head"]),
    (LLADA2, awq, AWQ | {"modules_to_not_convert": ["lm_head", QKV]}, ["lm_head", QKV]),
]


def new(base: dict) -> Checkpoint | BlockCausal:
    if base is LLADA2:
        return BlockCausal(base)
    return (MoECheckpoint if "num_experts" in base else Checkpoint)(dict(base))


def made(base: dict, make, quantization: dict, skipped: list[str]):
    """The checkpoint, and its tensors with the linear layers but `skipped` quantised."""
    checkpoint = new(base)
    names = [
        checkpoint.names[part].format(layer)
        for entry in skipped
        for part in entry.split()
        if part in checkpoint.names
        for layer in range(2)
    ]
    weights = quantise(checkpoint, [*skipped, *names], make)
    checkpoint.config = checkpoint.config | {"quantization_config": quantization}
    return checkpoint, weights


@pytest.mark.parametrize("base, make, quantization, skipped", RUN)
def test_four_bits(base, make, quantization, skipped, tmp_path):
    checkpoint, weights = made(base, make, quantization, skipped)
    model = Loaded(checkpoint.save(tmp_path, weights), dtype="bfloat16")
    expected = checkpoint.logits(IDS, len(IDS)).log_softmax(-1) if base is LLADA2 else checkpoint.forward(IDS)
    error = (model.log_probs(IDS) - expected).abs()
    # at most positions: a few may get another expert that is nearly as good. LLaDA2's head here is four times as sharp
    assert error.mean(-1).median() < (0.1 if base is LLADA2 else 0.03)

    def plain(layer) -> bool:
        return type(layer.quant_method).__name__ in ("UnquantizedLinearMethod", "UnquantizedEmbeddingMethod")

    first, second = model.model.model.layers
    assert plain(model.model.lm_head)
    assert plain(first.self_attn.qkv_proj) == (QKV in skipped)
    assert plain(first.self_attn.o_proj) == ("o gate up" in skipped)
    if "num_experts" not in base:
        assert not plain(first.mlp.down_proj)
        assert plain(second.mlp.down_proj) == (DOWN in skipped)


@pytest.mark.parametrize("ignored", [["transformer.ff_out"], [HEAD, DOWN]], ids=["head", "head and down"])
def test_eight_bits(ignored, tmp_path):
    """The CPU build has no kernel for FP8: the weights go into their layers, which are looked at and not run."""
    skipped = [name for name in (HEAD, DOWN) if name == HEAD or name in ignored]
    checkpoint, weights = made(LLADA, fp8, FP8 | {"ignored_layers": ignored}, skipped)
    config = engine_config(checkpoint.save(tmp_path, weights), dtype="bfloat16")
    with set_current_vllm_config(config), set_default_torch_dtype(torch.bfloat16):
        model = initialize_model(config)
        model.load_weights(weights.items())
    layers = model.model.layers
    kinds = [type(layer.mlp.down_proj.quant_method).__name__ for layer in layers]
    assert kinds == ["Fp8LinearMethod", "UnquantizedLinearMethod" if DOWN in ignored else "Fp8LinearMethod"]
    assert type(layers[1].self_attn.o_proj.quant_method).__name__ == "Fp8LinearMethod"
    assert type(model.lm_head.quant_method).__name__ == "UnquantizedEmbeddingMethod"
    name = "model.transformer.blocks.0.attn_out"
    stored = layers[0].self_attn.o_proj
    assert torch.equal(stored.weight.float(), weights[f"{name}.weight"].float())
    assert stored.weight_scale.item() == weights[f"{name}.weight_scale"].item()


def test_a_missing_expert_of_a_quantised_checkpoint_is_refused(tmp_path):
    checkpoint, weights = made(LLADA_MOE, gptq, GPTQ, ["lm_head"])
    gone = "model.layers.1.mlp.experts.5.down_proj"
    weights = {name: tensor for name, tensor in weights.items() if not name.startswith(gone)}
    with pytest.raises(ValueError, match=f"the checkpoint lacks weights for {gone}, which its config.json asks for"):
        Loaded(checkpoint.save(tmp_path, weights), dtype="bfloat16")
