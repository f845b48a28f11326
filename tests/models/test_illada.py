"""iLLaDA: its layers, and both ways in which its authors decode."""

import json

import pytest
import torch
import torch.nn.functional as F
from common import EOS
from decoded import decode, new_decoding
from loaded import Loaded, engine_config
from official import Checkpoint

from vllm_dllm.engine_config import model_traits
from vllm_dllm.models.ends import ends_of

pytestmark = pytest.mark.usefixtures("world")

MASK = 5  # nobody names it
# config.json of GSAI-ML/iLLaDA-8B with small sizes; EOS and the vocabulary are the bundled checkpoint's
ILLADA = {
    "architectures": ["ILLaDAForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "auto_map": {
        "AutoConfig": "configuration_illada.ILLaDAConfig",
        "AutoModel": "modeling_illada.ILLaDAForCausalLM",
        "AutoModelForCausalLM": "modeling_illada.ILLaDAForCausalLM",
    },
    "bos_token_id": 2,
    "eos_token_id": 0,
    "hidden_act": "silu",
    "hidden_size": 128,
    "initializer_range": 0.02,
    "intermediate_size": 192,
    "layer_norm_eps": None,
    "max_position_embeddings": 256,
    "mlp_bias": False,
    "model_type": "illada",
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "pad_token_id": 1,
    "resid_pdrop": 0.0,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.57.1",
    "vocab_size": 128,
}
IDS = [2, 3, 40, 50, 60, 70, 80, 90, 4] + [MASK] * 40


class ILLaDA(Checkpoint):
    """With LayerNorms where config.json has an epsilon for them; its tokenizer names no mask token."""

    def __init__(self, config):
        super().__init__(config)
        random = torch.Generator().manual_seed(1)
        if config["layer_norm_eps"] is not None:
            for name in [n for n, w in self.weights.items() if w.dim() == 1 and "norm" in n]:
                bias = 0.1 * torch.randn(self.width, generator=random)
                self.weights[name.removesuffix("weight") + "bias"] = bias

    def save(self, path, weights=None):
        super().save(path, weights)
        named = json.loads((path / "tokenizer_config.json").read_text())
        del named["mask_token"]
        (path / "tokenizer_config.json").write_text(json.dumps(named))
        return path

    def _norm(self, part, layer, x):
        if (eps := self.config["layer_norm_eps"]) is None:
            return super()._norm(part, layer, x)
        weight, bias = (self.weights[self._name(part, layer, kind)] for kind in ("weight", "bias"))
        return F.layer_norm(x, (self.width,), weight, bias, eps)


@pytest.mark.parametrize(
    "options",
    [{}, {"layer_norm_eps": 1e-5, "mlp_bias": True}, {"attention_bias": True, "tie_word_embeddings": False}],
    ids=lambda v: "-".join(v) or "official",
)
def test_forward(options, tmp_path):
    checkpoint = ILLaDA(ILLADA | options)
    found = Loaded(checkpoint.save(tmp_path)).log_probs(IDS)
    torch.testing.assert_close(found, checkpoint.forward(IDS), atol=2e-4, rtol=0)


@pytest.mark.parametrize("model_type", ["illada", "llama", "something", None])
def test_whatever_its_model_type_is(model_type, tmp_path):
    path = ILLaDA(ILLADA).save(tmp_path)
    options = {k: v for k, v in (ILLADA | {"model_type": model_type}).items() if v is not None}
    (path / "config.json").write_text(json.dumps(options))
    config = engine_config(path)
    assert model_traits(config).mask_id == MASK
    assert ends_of(config.model_config).all == {EOS}
    assert config.model_config.hf_config.rope_parameters["rope_theta"] == ILLADA["rope_theta"]


@pytest.fixture(scope="module")
def checkpoint() -> ILLaDA:
    made = ILLaDA(ILLADA)
    made.weights["model.embed_tokens.weight"][EOS] *= 1.3  # so that answers end, some of them
    made.weights["model.embed_tokens.weight"][MASK] *= 0.1  # and are no masks
    return made


@pytest.fixture(scope="module")
def loaded(checkpoint, world, tmp_path_factory) -> Loaded:
    more = {"max_model_len": 256, "max_num_seqs": 16, "max_num_batched_tokens": 4096}
    return Loaded(checkpoint.save(tmp_path_factory.mktemp("illada")), **more)


def unmask(checkpoint: ILLaDA, canvas: list[int], start: int, stop: int, steps: int) -> None:
    """LLaDA's fixed steps over the masks of canvas[start:stop]: all is computed, the surest tokens are taken."""
    masked = stop - start
    for step in range(steps):
        probabilities = checkpoint.forward(canvas)[start:stop].exp()
        sure, tokens = probabilities.max(-1)
        open_ = torch.tensor([token == MASK for token in canvas[start:stop]])
        best = sure.masked_fill(~open_, -1).topk(masked // steps + (step < masked % steps)).indices
        for i in best.tolist():
            canvas[start + i] = int(tokens[i])


PROMPTS = [list(range(10 + 3 * i, 20 + 4 * i)) for i in range(10)]
GEN, BLOCK, STEPS = 64, 16, 6  # a block's steps


def test_fixed_length(checkpoint, loaded):
    """LLaDA's `generate` with another mask token."""
    settings = {"dllm_steps": STEPS * GEN // BLOCK, "dllm_block_length": BLOCK}
    made = [new_decoding(loaded, prompt, GEN, settings) for prompt in PROMPTS[:4]]
    decode(loaded, made)
    for prompt, decoding in zip(PROMPTS, made, strict=False):
        canvas = prompt + [MASK] * GEN
        for start in range(len(prompt), len(canvas), BLOCK):
            unmask(checkpoint, canvas, start, start + BLOCK, STEPS)
        assert decoding.canvas.response.tolist() == canvas[len(prompt) :]


def test_variable_length(checkpoint, loaded):
    """Its evaluations' `var`: a block of masks behind all that is there, decoded; the next one, unless an EOS stands
    in the response. That is `dllm_horizon` 0, where a request ends at its EOS."""
    settings = {"dllm_steps": STEPS * GEN // BLOCK, "dllm_block_length": BLOCK, "dllm_horizon": 0}
    made = [new_decoding(loaded, prompt, GEN, settings) for prompt in PROMPTS]
    decode(loaded, made, stop_at_eos=True)
    lengths = []
    for prompt, decoding in zip(PROMPTS, made, strict=True):
        canvas = list(prompt)
        while len(canvas) < len(prompt) + GEN and EOS not in canvas[len(prompt) :]:
            canvas += [MASK] * BLOCK
            unmask(checkpoint, canvas, len(canvas) - BLOCK, len(canvas), STEPS)
        response = [*canvas[len(prompt) :], EOS]
        answer = response[: response.index(EOS) + 1][:GEN]
        assert decoding.canvas.response[: len(answer)].tolist() == answer
        lengths.append(len(answer))
    assert min(lengths) < BLOCK < 2 * BLOCK < max(lengths), lengths
