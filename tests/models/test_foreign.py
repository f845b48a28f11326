"""Checkpoints of other models get a sentence before anything of them is loaded; what is none of ours is left alone."""

import json
import re
from pathlib import Path

import pytest
from loaded import engine_config
from official import DREAM, LLADA, Checkpoint
from vllm import LLM
from vllm.model_executor.models import ModelRegistry

from vllm_dllm.models import ARCHITECTURES
from vllm_dllm.models.unserved import KNOWN, refuse_unserved
from vllm_dllm.options import SettingError

SERVED = "it serves LLaDA (LLaDAModelLM), Dream (DreamModel)"
UNSERVED = [  # architecture, the model_type that its checkpoints have, its name
    ("Fast_dLLM_QwenForCausalLM", "Fast_dLLM_Qwen", "Fast-dLLM v2"),
    ("MMadaModelLM", "mmada", "MMaDA"),
]
MISNAMED = [  # config.json, its model_type, the one that is allowed
    (DREAM, "qwen2", "Dream"),
    (DREAM, "dreamy", "Dream"),
    (DREAM, "llada", "Dream"),
    (DREAM, None, "Dream"),
    (LLADA, "Dream", "llada"),
    (LLADA, "llama", "llada"),
]
BORROWED = [  # config.json, an option of another model's, that model
    (LLADA, "llm_vocab_size", 126464, "MMaDA"),
    (LLADA, "codebook_size", 8192, "MMaDA"),
    (LLADA, "num_vq_tokens", 1024, "MMaDA"),
    (LLADA, "num_experts", 64, "LLaDA-MoE"),
    (DREAM, "expand_token_id", 126, "DreamOn"),
    (DREAM, "delete_token_id", 127, "DreamOn"),
]


def checkpoint(options: dict, path: Path, base: dict = LLADA) -> Path:
    """A whole checkpoint but for its config.json, which is `options`."""
    Checkpoint(base).save(path)
    (path / "config.json").write_text(json.dumps(options))
    return path


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize("architecture, model_type, called", UNSERVED)
def test_known_families_that_are_not_served(architecture, model_type, called, trust, tmp_path):
    """Remote code would help nobody, so it is neither asked for nor run: there is none here."""
    remote = {"AutoConfig": "configuration.Config", "AutoModelForCausalLM": f"modeling.{architecture}"}
    options = DREAM | {"architectures": [architecture], "model_type": model_type, "auto_map": remote}
    with pytest.raises(SettingError) as refusal:
        engine_config(checkpoint(options, tmp_path), trust_remote_code=trust)
    said = str(refusal.value)
    assert f"architectures=['{architecture}'] in the model's config.json is not allowed: {called}" in said
    assert SERVED in said


@pytest.mark.parametrize("base, model_type, allowed", MISNAMED, ids=str)
def test_our_architectures_under_another_model_type(base, model_type, allowed, tmp_path):
    sentence = f"model_type={model_type!r} in the model's config.json is not allowed: it must be {allowed!r}"
    options = {k: v for k, v in (base | {"model_type": model_type}).items() if v is not None}
    with pytest.raises(ValueError, match=re.escape(sentence)):
        engine_config(checkpoint(options, tmp_path))


def test_hf_overrides_can_put_the_model_type_right(tmp_path):
    path = checkpoint(DREAM | {"model_type": "dreamy"}, tmp_path, DREAM)
    assert engine_config(path, hf_overrides={"model_type": "Dream"}).model_config.hf_config.mask_token_id == 1


def test_hf_overrides_that_are_a_function_are_checked_too(tmp_path):
    def rename(config):
        return config.__class__.from_dict(config.to_dict() | {"architectures": ["DreamModel"]})

    with pytest.raises(ValueError, match="model_type='llada' in the model's config.json is not allowed"):
        engine_config(checkpoint(LLADA, tmp_path), hf_overrides=rename)


@pytest.mark.parametrize("base, option, value, other", BORROWED, ids=str)
def test_other_models_under_our_names(base, option, value, other, tmp_path):
    """MMaDA draws images too; DreamOn's canvas grows and shrinks: decoded as ours they would answer, wrongly."""
    sentence = f"{option}={value} in the model's config.json is not allowed: it is {other}'s"
    with pytest.raises(ValueError, match=sentence):
        engine_config(checkpoint(base | {option: value}, tmp_path, base))


def test_dreamon_is_known_by_its_generation_config(tmp_path):
    path = checkpoint(DREAM, tmp_path, DREAM)
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": 0, "expand_token_id": 126}))
    with pytest.raises(ValueError, match="expand_token_id=126 in the model's .*generation_config.json is not allowed"):
        engine_config(path)


def test_dreamon_is_known_by_its_tokenizer(tmp_path):
    path = checkpoint(DREAM, tmp_path, DREAM)
    tokenizer = json.loads((path / "tokenizer.json").read_text())
    flags = {"special": True, "lstrip": False, "rstrip": False, "single_word": False, "normalized": False}
    tokenizer["added_tokens"].append({"id": 128, "content": "<|expand|>"} | flags)
    (path / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ValueError, match=re.escape("<|expand|>=128 in the model's tokenizer is not allowed")):
        engine_config(path)


def test_a_folder_with_gguf_files_alone(tmp_path):
    (tmp_path / "LLaDA-8B-Instruct.Q4_K_M.gguf").write_bytes(b"GGUF\x03\x00\x00\x00")
    (tmp_path / "README.md").write_text("quantised")
    sentence = "is not allowed: it has weights in the GGUF format alone, which this vLLM does not read; it must have"
    for model in (tmp_path, tmp_path / "LLaDA-8B-Instruct.Q4_K_M.gguf"):
        with pytest.raises(SettingError, match=re.escape(f"model={str(model)!r} {sentence}")):
            engine_config(model)
    (tmp_path / "whole").mkdir()
    with_config = checkpoint(LLADA, tmp_path / "whole")
    (with_config / "model.gguf").write_bytes(b"GGUF\x03\x00\x00\x00")
    engine_config(with_config)  # beside safetensors it does no harm
    (with_config / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=re.escape(sentence)):
        engine_config(with_config)


def test_an_adapter_of_one_of_our_models(tmp_path, monkeypatch):
    """The command is that of its base model and of itself; one of another model is vLLM's matter."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    base, adapter = checkpoint(DREAM, tmp_path / "base", DREAM), tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_model.safetensors").write_bytes(b"")
    for name in (str(base), "GSAI-ML/LLaDA-8B-Instruct"):
        (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": name}))
        with pytest.raises(SettingError, match=re.escape(f"it is an adapter of {name}, and must be merged")) as refusal:
            engine_config(adapter)
        command = str(refusal.value).split('python -c "')[1].split('"')[0]
        compile(command, "the command", "exec")
        assert (
            f"AutoModel.from_pretrained({name!r}" in command and f"from_pretrained(base, {str(adapter)!r})" in command
        )
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "Qwen/Qwen2.5-7B"}))
    with pytest.raises(ValueError, match="Invalid repository ID or local directory"):
        engine_config(adapter)


def test_llm_says_it_too(tmp_path):
    with pytest.raises(ValueError, match=re.escape(SERVED)):
        LLM(str(checkpoint(LLADA | {"architectures": ["MMadaModelLM"]}, tmp_path)))


# ---- what is none of ours ----


def test_other_models_are_left_alone(tmp_path):
    """A Qwen is configured as vLLM does it, and what vLLM cannot do is refused in vLLM's words."""
    qwen = {k: v for k, v in DREAM.items() if k not in ("auto_map", "mask_token_id", "use_mrope")}
    qwen |= {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "codebook_size": 1}
    config = engine_config(checkpoint(qwen, tmp_path))
    assert config.scheduler_config.scheduler_cls is None
    with pytest.raises(ValueError, match=r"\['SomethingElse'\] are not supported for now"):
        engine_config(checkpoint(qwen | {"architectures": ["SomethingElse"]}, tmp_path))
    with pytest.raises(ValueError, match="`something` but Transformers does not recognize this architecture"):
        engine_config(checkpoint(qwen | {"architectures": ["SomethingElse"], "model_type": "something"}, tmp_path))
    with pytest.raises(OSError, match="Repo id must be"):
        engine_config(tmp_path / "nothing here")


def test_a_family_that_another_plugin_serves_is_not_refused(monkeypatch):
    options = {"architectures": ["WeDLMForCausalLM"], "model_type": "wedlm"}
    with pytest.raises(SettingError):
        refuse_unserved(options, ARCHITECTURES)
    monkeypatch.setitem(ModelRegistry.models, "WeDLMForCausalLM", ModelRegistry.models["Qwen3ForCausalLM"])
    refuse_unserved(options, ARCHITECTURES)


def test_no_family_is_both_served_and_not():
    assert not set(KNOWN) & set(ARCHITECTURES)
