"""LLaDA-V (arXiv:2505.16933): LLaDA under Llama's names, and a SigLIP2 tower whose features stand in the prompt."""

import re
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import nn
from vllm.config import VllmConfig
from vllm.model_executor.models.interfaces import SupportsMultiModal
from vllm.model_executor.models.siglip import SiglipVisionModel
from vllm.model_executor.models.utils import StageMissingLayer, WeightsMapper, maybe_prefix
from vllm.multimodal import MULTIMODAL_REGISTRY

from vllm_dllm.models.llada_v.chat import IMAGE
from vllm_dllm.models.llada_v.layout import Layout
from vllm_dllm.models.llada_v.processor import DummyInputs, ImageInfo, ImageProcessor, layout_of
from vllm_dllm.models.llama import BidirectionalLlama

TOWER = r"^model\.vision_tower\.vision_tower\.vision_model\."
NAMES = {
    TOWER + r"(post_layernorm|head)\.": None,  # behind the layers that run
    TOWER: "vision_tower.vision_model.",
    r"^model\.mm_projector\.": "projector.",
    r"^model\.image_newline$": "image_newline",
}


def _mapper(names: Mapping[str, str | None]) -> WeightsMapper:
    return WeightsMapper(orig_to_new_regex={re.compile(old): new for old, new in names.items()})


@MULTIMODAL_REGISTRY.register_processor(ImageProcessor, info=ImageInfo, dummy_inputs=DummyInputs)
class LlavaLLaDAModelLM(BidirectionalLlama, SupportsMultiModal):
    """Architecture `LlavaLLaDAModelLM`: GSAI-ML/LLaDA-V.

    Where images stand in a batch is the runner's to know: it gives the embeddings of such passes.
    """

    hf_to_vllm_mapper = _mapper(NAMES) | BidirectionalLlama.hf_to_vllm_mapper

    @classmethod
    def get_placeholder_str(cls, modality: str, i: int) -> str | None:
        if modality == "image":
            return IMAGE
        raise ValueError(f"{modality} is not allowed: only images are")

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = ""):
        config = vllm_config.model_config.hf_config
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        with self._mark_tower_model(vllm_config, "image"):
            self.vision_tower = SiglipVisionModel(
                config.vision_config,
                num_hidden_layers_override=config.tower_layers,
                require_post_norm=False,
                prefix=maybe_prefix(prefix, "vision_tower"),
            )
            self.projector = nn.Sequential(
                nn.Linear(config.vision_config.hidden_size, config.hidden_size),
                nn.GELU(),
                nn.Linear(config.hidden_size, config.hidden_size),
            )
        self.image_newline = nn.Parameter(torch.empty(config.hidden_size))
        self.hf_to_vllm_mapper = _mapper(self._unread()) | self.hf_to_vllm_mapper

    def _unread(self) -> dict[str, None]:
        """Names of weights that a checkpoint may have and that are not loaded."""
        if isinstance(self.vision_tower, StageMissingLayer):  # images are not allowed (--limit-mm-per-prompt)
            return {r"^model\.(vision_tower|mm_projector)\.": None}
        those = "".join(rf"(?!{n}\.)" for n in range(self.config.tower_layers))
        return {TOWER + rf"encoder\.layers\.{those}\d": None}

    def forward(
        self, input_ids: torch.Tensor | None, positions: torch.Tensor, inputs_embeds: torch.Tensor | None = None
    ) -> torch.Tensor:
        """As `BidirectionalLlama.forward`. The layers get embeddings in any case, or torch.compile would trace them twice."""
        if inputs_embeds is None:
            assert input_ids is not None
            inputs_embeds = self.embed_input_ids(input_ids)
        return super().forward(None, positions, inputs_embeds)

    def embed_multimodal(self, **images: object) -> list[torch.Tensor]:
        """Each image's embeddings [its positions, hidden size], of `pixel_values` [tiles, 3, side, side] and `image_sizes`
        [height, width]. One image at a time: what else is in the batch changes none of its bits."""
        tiles, sizes = images["pixel_values"], images["image_sizes"]
        return [
            self._image(pixels, layout_of(self.config, width, height))
            for pixels, (height, width) in zip(tiles, sizes.tolist(), strict=True)  # type: ignore
        ]

    def _image(self, pixels: torch.Tensor, layout: Layout) -> torch.Tensor:
        features = self.projector(self.vision_tower(pixels.to(self.image_newline.dtype)))
        return merge(features, layout, self.image_newline)


def merge(features: torch.Tensor, layout: Layout, newline: torch.Tensor) -> torch.Tensor:
    """An image's embeddings in the order of the prompt, [positions, hidden size], of its tiles' features
    [1 + tiles, features of a tile, hidden size]."""
    side, size = layout.of_tile, features.shape[-1]
    grid = features[1:].view(layout.down, layout.across, side, side, size)
    grid = grid.permute(4, 0, 2, 1, 3).reshape(size, layout.down * side, layout.across * side)
    grid = grid[:, layout.top : layout.top + layout.rows, layout.left : layout.left + layout.columns]
    if layout.scaled is not None:
        grid = F.interpolate(grid[None], layout.scaled, mode="bilinear")[0]
    lines = torch.cat((grid.permute(1, 2, 0), newline.expand(grid.shape[1], 1, size)), dim=1)
    return torch.cat((features[0], lines.reshape(-1, size)))
