"""The embeddings of images, which stand in the prompt in place of tokens: made once, and kept while they are needed."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.encoder_budget import MultiModalBudget
from vllm.multimodal.utils import group_and_batch_mm_kwargs
from vllm.utils.torch_utils import PIN_MEMORY, async_tensor_h2d

from vllm_dllm.messages import Batch, Placed


class ImageEmbeddings:
    """What the scheduler says is held (vllm_dllm/images.py)."""

    def __init__(self, model: nn.Module, device: torch.device):
        self.model = model
        self.device = device
        self.kept: dict[str, torch.Tensor] = {}  # by key: [positions, hidden size]

    def update(self, batch: Batch) -> None:
        """Forget what is not needed any more, and embed what is new. One image at a time: what else is new changes none
        of its bits."""
        for key in batch.forget:
            del self.kept[key]
        for key, item in batch.embed.items():
            self.kept[key] = self._embed(item)

    def _embed(self, item: Any) -> torch.Tensor:
        ((_, _, arguments),) = group_and_batch_mm_kwargs([("image", item)], device=self.device, pin_memory=PIN_MEMORY)
        (embeddings,) = self.model.embed_multimodal(**arguments)
        return embeddings

    def inputs(self, token_ids: torch.Tensor, placed: Sequence[Placed]) -> torch.Tensor:
        """The embeddings [N, hidden size] of `token_ids` [N], with the images' where they are `placed`."""
        hidden = self.model.embed_input_ids(token_ids)
        for key, places, rows in placed:
            hidden[self._index(places)] = self.kept[key][self._index(rows)].to(hidden.dtype)
        return hidden

    def _index(self, numbers: np.ndarray) -> slice | torch.Tensor:
        """Ascending numbers: without a gap nothing has to be copied to the device."""
        first, last = int(numbers[0]), int(numbers[-1])
        if last - first + 1 == len(numbers):
            return slice(first, last + 1)
        return async_tensor_h2d(numbers.astype(np.int64), self.device)

    def profile(self, config: Any) -> None:
        """Embed the largest image, so that vLLM sees the memory it takes."""
        if config.model_config.get_multimodal_config().skip_mm_profiling:
            return
        for _, item in MultiModalBudget(config, MULTIMODAL_REGISTRY).get_dummy_encoder_profile_inputs("image", 1):
            self._embed(item)

    def clear(self) -> None:
        self.kept.clear()
