"""LLaDA-MoE: its layers are those of the authors' code, whatever shares the batch."""

import json
import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from common import CHECKPOINTS, MASK
from decoded import decode, new_decoding
from golden_cases import cases
from loaded import Loaded, engine_config
from official_moe import LLADA_MOE, MoECheckpoint
from vllm.forward_context import set_forward_context

from vllm_dllm.caching.registry import FULL
from vllm_dllm.catalogue import RULE_OPTIONS
from vllm_dllm.options import SettingError

pytestmark = pytest.mark.usefixtures("world")

IDS = [2, 3, 40, 50, 60, 70, 80, 90, 4] + [MASK] * 40


@pytest.fixture(scope="module")
def bundled(world) -> Loaded:
    hidden = {"dllm_hidden_cache": True}  # so that requests may choose elastic
    more = {"max_model_len": 512, "max_num_seqs": 16, "max_num_batched_tokens": 4096, "additional_config": hidden}
    return Loaded(CHECKPOINTS / "tiny-llada-moe", **more)


def test_forward_of_the_authors_code(bundled):
    """Of the public modelling code, in float32; the mask token is there in all of them."""
    for case in json.loads((Path(__file__).parent / "tiny-llada-moe.forwards.json").read_text()):
        found = bundled.log_probs(case["ids"])[case["positions"]]
        torch.testing.assert_close(found, torch.tensor(case["logprobs"]), atol=1e-4, rtol=0)


OPTIONS = [
    {"model_type": "lladamoe"},
    {"num_key_value_heads": 2, "moe_layer_freq": [0, 1], "clip_qkv": 0.5},
    {"shared_expert_intermediate_size": 96, "moe_router_enable_expert_bias": True},
    {"num_key_value_heads": None, "num_experts": 5, "num_experts_per_tok": 3, "tie_word_embeddings": True},
    {"norm_topk_prob": True, "routed_scaling_factor": 2.5, "router_num_group": 4, "router_topk_group": 2},  # not read
]


@pytest.mark.parametrize("options", OPTIONS, ids="-".join)
def test_forward(options, tmp_path):
    checkpoint = MoECheckpoint(LLADA_MOE | options)
    found = Loaded(checkpoint.save(tmp_path)).log_probs(IDS)
    torch.testing.assert_close(found, checkpoint.forward(IDS), atol=2e-4, rtol=0)


REFUSED = [  # options, the one that is named, what is allowed
    ({"qk_layernorm": False}, "qk_layernorm", "True"),
    ({"attention_bias": True}, "attention_bias", "False"),
    ({"hidden_act": "gelu"}, "hidden_act", "'silu'"),
    ({"moe_router_score_function": "sigmoid"}, "moe_router_score_function", "'softmax'"),
    ({"partial_rotary_factor": 0.5}, "partial_rotary_factor", "1"),
    ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling", "without scaling"),
    ({"moe_layer_freq": [1]}, "moe_layer_freq", "a 0 or 1 for each of num_hidden_layers=2"),
    ({"moe_layer_freq": [1, 2]}, "moe_layer_freq", "a 0 or 1 for each of num_hidden_layers=2"),
    ({"num_experts_per_tok": 9}, "num_experts_per_tok", "from 1 to num_experts=8"),
    ({"model_type": "olmoe"}, "model_type", "'lladamoe' or 'llada' with the architecture LLaDAMoEModelLM"),
]


@pytest.mark.parametrize("options, named, allowed", REFUSED, ids=lambda v: v if isinstance(v, str) else "")
def test_what_the_layers_do_not_do_is_refused(options, named, allowed, tmp_path):
    path = MoECheckpoint(LLADA_MOE).save(tmp_path)
    (path / "config.json").write_text(json.dumps(LLADA_MOE | options))
    sentence = f"{named}={options[named]!r} in the model's config.json is not allowed: it must be"
    with pytest.raises((SettingError, ValueError), match=re.escape(sentence) + ".*" + re.escape(allowed)):
        engine_config(path)


def test_experts_in_parallel_are_refused_on_a_cpu(tmp_path):
    """vLLM's kernel there would take every rank's experts for the first ones."""
    path = MoECheckpoint(LLADA_MOE).save(tmp_path)
    ranks = {"tensor_parallel_size": 2, "distributed_executor_backend": "mp"}
    engine_config(path, **ranks)
    with pytest.raises(ValueError, match="enable_expert_parallel=True is not allowed .*: it must be False"):
        engine_config(path, enable_expert_parallel=True, **ranks)


def test_ranks_must_divide_the_experts_columns(tmp_path):
    path = MoECheckpoint(LLADA_MOE | {"expert_intermediate_size": 70}).save(tmp_path)
    with pytest.raises(ValueError, match="tensor_parallel_size=4 is not allowed: .* expert_intermediate_size=70"):
        engine_config(path, tensor_parallel_size=4, distributed_executor_backend="mp")


def test_the_mask_token_that_nobody_names(tmp_path):
    """The released config.json has none: the tokenizer's counts, or else the one that the authors' code was given."""
    options = {k: v for k, v in LLADA_MOE.items() if k != "mask_token_id"}
    path = MoECheckpoint(LLADA_MOE).save(tmp_path / "named")
    (path / "config.json").write_text(json.dumps(options))
    assert engine_config(path).model_config.hf_config.mask_token_id == MASK
    path = path.rename(tmp_path / "not named")
    tokenizer = json.loads((path / "tokenizer_config.json").read_text())
    del tokenizer["mask_token"]
    (path / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    (path / "config.json").write_text(json.dumps(options | {"vocab_size": 157184}))
    assert engine_config(path).model_config.hf_config.mask_token_id == 156895


def test_a_token_has_the_same_experts_whatever_shares_the_batch(bundled):
    """And the same sums: bit for bit."""
    mlp = bundled.model.model.layers[1].mlp
    hidden = torch.randn(33, 128, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode(), set_forward_context(None, bundled.config):
        together = mlp(hidden.clone())
        for rows in (slice(0, 1), slice(7, 8), slice(3, 20)):
            assert torch.equal(mlp(hidden[rows].clone()), together[rows])


def requests() -> list[tuple[list[int], int, dict]]:
    """One of each policy, with its example settings."""
    rng, found = random.Random(0), []
    for number, (name, policy) in enumerate(FULL.items()):
        length, settings = 32 + number, {"dllm_cache": name} | policy.example
        if not settings.keys() & {option.key for option in RULE_OPTIONS}:
            settings["dllm_threshold"] = 0.5
        if policy.window_length is None:
            settings["dllm_block_length"] = 16
        if settings.get("dllm_score") == "random":
            settings["dllm_scores"] = [rng.random() for _ in range(length)]
        found.append(([rng.randrange(8, 100) for _ in range(rng.randrange(5, 40))], length, settings))
    return found


def test_policies_mixed_in_a_batch_answer_as_alone(bundled):
    asked = requests()
    together = [new_decoding(bundled, *request) for request in asked]
    decode(bundled, together)
    for request, other in zip(asked, together, strict=True):
        alone = new_decoding(bundled, *request)
        decode(bundled, [alone])
        assert alone.canvas.response.tolist() == other.canvas.response.tolist(), request
        assert [p.columns() for p in alone.record] == [p.columns() for p in other.record], request
        assert all(np.array_equal(a.queries, b.queries) for a, b in zip(alone.record, other.record, strict=True)), (
            request
        )


def test_golden_over_the_runner_alone(bundled, sampling):
    """Golden cases without an engine around: 16 at once."""
    batch = sampling.take(cases("tiny-llada-moe"), lambda case: case.case["source"], least=8)
    made = [new_decoding(bundled, c.case["prompt_ids"], c.max_tokens, c.settings) for c in batch]
    decode(bundled, made)
    for case, decoding in zip(batch, made, strict=True):
        assert decoding.canvas.response.tolist() == case.case["output_ids"], case.index
        assert [p.unmasked for p in decoding.record] == [sorted(part) for part in case.case["unmasked"]], case.index
        assert [p.query_tokens for p in decoding.record] == case.case["query_tokens"], case.index


WRONG = [  # a change of the tensors, what is said
    ({"model.layers.1.mlp.experts.3.up_proj.weight": None}, "lacks weights for model.layers.1.mlp.experts.3.up_proj"),
    ({"model.layers.0.mlp.gate.weight": None}, "lacks weights for model.layers.0.mlp.gate"),
    ({"model.layers.0.self_attn.q_norm.weight": None}, "lacks weights for model.layers.0.self_attn.q_norm"),
    ({"model.layers.1.mlp.experts.8.up_proj.weight": (64, 128)}, "experts.8.up_proj.weight' of shape .*has no layer"),
    ({"model.layers.1.mlp.expert_bias": (8,)}, "expert_bias' of shape .*has no layer"),
    ({"model.layers.1.shared_expert.up_proj.weight": (64, 128)}, "shared_expert.up_proj.weight' of shape .*has no lay"),
    ({"model.layers.1.mlp.up_proj.weight": (64, 128)}, "mlp.up_proj.weight' of shape .*has no layer"),
]


@pytest.mark.parametrize("change, said", WRONG, ids=lambda v: next(iter(v)) if isinstance(v, dict) else "")
def test_loaded_whole_or_refused(change, said, tmp_path):
    checkpoint = MoECheckpoint(LLADA_MOE)
    weights = dict(checkpoint.weights)
    for name, shape in change.items():
        weights.pop(name, None)
        if shape:
            weights[name] = torch.ones(shape)
    with pytest.raises(ValueError, match=said):
        Loaded(checkpoint.save(tmp_path, weights))
