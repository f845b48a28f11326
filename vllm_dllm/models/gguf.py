"""A checkpoint in the GGUF format alone, of whatever model, is refused with what to do."""

from pathlib import Path

from vllm_dllm.options import SettingError

WEIGHTS = ("*.safetensors", "*.bin", "*.pt")  # what vLLM reads


def refuse_gguf(model: str) -> None:
    """Raise SettingError if `model` is a file, or a folder of files, in the GGUF format and nothing else."""
    path = Path(model)
    alone = path.is_file() and path.suffix == ".gguf"
    if alone or (any(path.glob("*.gguf")) and not any(any(path.glob(pattern)) for pattern in WEIGHTS)):
        raise SettingError(
            f"model={model!r} is not allowed: it has weights in the GGUF format alone, which this vLLM does not read; it "
            "must have a config.json and safetensors, as the checkpoint has that the GGUF was made from"
        )
