"""A bundled checkpoint with NaN in one row of its embeddings: whoever uses that token meets it, nobody else."""

import shutil
from pathlib import Path

from common import CHECKPOINTS
from safetensors.torch import load_file, save_file

DAMAGED = "~"  # a character that no other prompt and no answer has
EMBEDDINGS = {"tiny-llada": "model.transformer.wte.weight", "tiny-dream": "model.embed_tokens.weight"}
DAMAGED_ID = 102


def damaged_copy(model: str, folder: Path) -> Path:
    """`folder`, with a copy of the checkpoint in it whose embedding of DAMAGED is NaN."""
    shutil.copytree(CHECKPOINTS / model, folder, dirs_exist_ok=True)
    weights = load_file(folder / "model.safetensors")
    weights[EMBEDDINGS[model]][DAMAGED_ID] = float("nan")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder
