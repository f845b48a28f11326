"""A family's description is true of its layers."""

import pytest
import torch
from block_causal import BlockCausal
from block_causal_configs import LLADA2, SDAR_MOE
from loaded import Loaded, engine_config
from official import DREAM, LLADA, Checkpoint
from official_moe import LLADA_MOE, MoECheckpoint

from vllm_dllm.engine_config import model_traits
from vllm_dllm.models import ARCHITECTURES, FAMILIES, family_of
from vllm_dllm.settings import ModelTraits


def test_each_architecture_is_of_one_family():
    assert len(ARCHITECTURES) == sum(len(family.architectures) for family in FAMILIES)
    assert len({family.config.model_type for family in FAMILIES}) == len(FAMILIES)


@pytest.mark.parametrize(
    "base, traits, sampler",
    [(LLADA, ModelTraits(1, 0, "llada"), "gumbel"), (DREAM, ModelTraits(1, -1, "dream"), "categorical")],
    ids=["llada", "dream"],
)
def test_what_decoding_and_the_worker_get_of_it(base, traits, sampler, tmp_path):
    config = engine_config(Checkpoint(base).save(tmp_path))
    assert model_traits(config) == traits
    assert family_of(config.model_config).sampler == sampler


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "made",
    [
        Checkpoint(LLADA),
        Checkpoint(DREAM),
        MoECheckpoint(LLADA_MOE | {"num_key_value_heads": 2, "clip_qkv": 1.5}),
        BlockCausal(LLADA2),
        BlockCausal(SDAR_MOE),
    ],
    ids=["llada", "dream", "llada-moe", "llada2", "sdar-moe"],
)
def test_layer_queries_are_those_that_the_attention_gets(made, dtype, tmp_path):
    loaded = Loaded(made.save(tmp_path), dtype=dtype)
    inputs: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
    queries: dict[int, torch.Tensor] = {}

    def keep_inputs(number):
        def hook(_, args):
            positions, hidden, residual = args
            inputs[number] = positions.clone(), hidden.clone() if residual is None else hidden + residual

        return hook

    def keep_queries(number):
        return lambda _, args: queries.update({number: args[0].clone()})

    for number, layer in enumerate(loaded.model.model.layers):
        layer.register_forward_pre_hook(keep_inputs(number))
        layer.self_attn.attn.register_forward_pre_hook(keep_queries(number))
    loaded.log_probs(list(range(2, 50)))

    assert set(queries) == {0, 1}
    for number, layer in enumerate(loaded.model.model.layers):
        positions, hidden = inputs[number]
        with torch.inference_mode():
            some = torch.tensor([3, 17, 40])
            got = loaded.model.layer_queries(layer, positions[some], hidden[some])
        attention = layer.self_attn.attn
        assert got.shape == (3, attention.num_heads, attention.head_size)
        exact = {"atol": 1e-5, "rtol": 1e-5} if dtype == "float32" else {"atol": 0.05, "rtol": 0.02}
        torch.testing.assert_close(got, queries[number].view(48, *got.shape[1:])[some], **exact)
