"""Images and prompts of LLaDA-V for vLLM's multimodal machinery: pixels as tiles, and where they stand in the prompt."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import BatchFeature, PretrainedConfig
from vllm.exceptions import VLLMValidationError
from vllm.multimodal.image import convert_image_mode
from vllm.multimodal.inputs import MultiModalFieldConfig
from vllm.multimodal.parse import ImageProcessorItems
from vllm.multimodal.processing import (
    BaseDummyInputsBuilder,
    BaseMultiModalProcessor,
    BaseProcessingInfo,
    PromptReplacement,
)

from vllm_dllm.models.llada_v.chat import IMAGE
from vllm_dllm.models.llada_v.checks import ASPECT
from vllm_dllm.models.llada_v.layout import Layout, layout, most_positions

PLACEHOLDER = "<|reserved_token_0|>"  # its id stands in the prompt where an image's embeddings do
HERE = -200  # where an image stands, before that is known to be many positions: an id that no text has
SIDES = (2, 16384)  # pixels that an image may have in each direction


def layout_of(hf: PretrainedConfig, width: int, height: int) -> Layout:
    return layout(width, height, hf.image_grid_pinpoints, **tiles_of(hf))


def tiles_of(hf: PretrainedConfig) -> dict[str, int]:
    """The numbers by which images are cut: a tile's pixels and features, one way, and the tiles beyond which features are
    scaled down."""
    tower = hf.vision_config
    return {
        "tile": tower.image_size,
        "of_tile": tower.image_size // tower.patch_size,
        "most": int(hf.image_aspect_ratio.removeprefix(ASPECT)),
    }


class ImageInfo(BaseProcessingInfo):
    """What vLLM asks about images before it has any."""

    def get_supported_mm_limits(self) -> Mapping[str, int | None]:
        """No more images than could have room: each takes a tile's features at least."""
        tower = self.get_hf_config().vision_config  # asked before config.json is checked
        smallest = (tower.image_size // tower.patch_size) ** 2
        return {"image": max(1, self.ctx.model_config.max_model_len // smallest)}

    def get_mm_max_tokens_per_item(self, seq_len: int, mm_counts: Mapping[str, int]) -> Mapping[str, int]:
        hf = self.get_hf_config()
        return {"image": most_positions(hf.image_grid_pinpoints, **tiles_of(hf))}

    @cached_property
    def pixels(self) -> Any:
        """transformers' processor of pixels, which gives the same bits as the authors' code. By this name it does without
        torchvision everywhere."""
        from transformers import LlavaOnevisionImageProcessorPil

        hf = self.get_hf_config()
        side = hf.vision_config.image_size
        return LlavaOnevisionImageProcessorPil(
            image_mean=[0.5] * 3,
            image_std=[0.5] * 3,
            size={"height": side, "width": side},
            image_grid_pinpoints=[[height, width] for width, height in hf.image_grid_pinpoints],
        )


class DummyInputs(BaseDummyInputsBuilder[ImageInfo]):
    """The image with the most tiles, as often as asked for."""

    def get_dummy_text(self, mm_counts: Mapping[str, int]) -> str:
        return IMAGE * mm_counts.get("image", 0)

    def get_dummy_mm_data(self, seq_len, mm_counts, mm_options):
        width, height = max(self.info.get_hf_config().image_grid_pinpoints, key=lambda size: size[0] * size[1])
        count = mm_counts.get("image", 0)
        overrides = mm_options.get("image")
        return {"image": self._get_dummy_images(width=width, height=height, num_images=count, overrides=overrides)}


class ImageProcessor(BaseMultiModalProcessor[ImageInfo]):
    """A request's images and prompt as the model gets them."""

    def _call_hf_processor(self, hf_data: Mapping[str, object], hf_kwargs: Mapping[str, object]) -> BatchFeature:
        images = [_checked(image) for image in hf_data["images"]]  # type: ignore[attr-defined]
        sizes = [(image.height, image.width) for image in images]
        return BatchFeature({"pixel_values": list(map(self._tiles, images)), "image_sizes": torch.tensor(sizes)})

    def _tiles(self, image: Image.Image) -> torch.Tensor:
        """[1 + tiles, 3, side, side], in the model's dtype."""
        # one image in each call, or it would be padded to the largest one's number of tiles
        pixels = self.info.pixels(image, return_tensors="pt", input_data_format="channels_last")
        return pixels["pixel_values"][0].to(self.info.ctx.model_config.dtype)

    def _get_mm_fields_config(self, hf_inputs: BatchFeature, hf_processor_mm_kwargs: Mapping[str, object]):
        return {
            "pixel_values": MultiModalFieldConfig.batched("image"),
            "image_sizes": MultiModalFieldConfig.batched("image", keep_on_cpu=True),
        }

    def _get_prompt_updates(self, mm_items, hf_processor_mm_kwargs, out_mm_kwargs) -> Sequence[PromptReplacement]:
        placeholder = self.info.get_tokenizer().get_vocab()[PLACEHOLDER]

        def positions(i: int) -> list[int]:
            width, height = mm_items.get_items("image", ImageProcessorItems).get_image_size(i)
            return [placeholder] * layout_of(self.info.get_hf_config(), width, height).positions

        return [PromptReplacement(modality="image", target=[HERE], replacement=positions)]

    def _maybe_apply_prompt_updates(self, mm_items, mm_res):
        count = mm_items.get_count("image", strict=False)
        places = mm_res.prompt_ids.count(HERE)
        if places != count:
            raise VLLMValidationError(
                f"a prompt in which {IMAGE} stands {places} times is not allowed with {count} images: it must stand once "
                "for each of them",
                parameter="prompt",
            )
        return super()._maybe_apply_prompt_updates(mm_items, mm_res)

    def _postprocess_prompt(self, prompt: list[int]) -> list[int]:
        """The prompt with HERE where `<image>` stands in its text, or the placeholder's id among its tokens.

        As the authors' code does it, each piece of the text is made tokens by itself, and of those behind an image the
        first is dropped: the newline that the conversation puts there.
        """
        tokenizer = self.info.get_tokenizer()
        text = tokenizer.decode(prompt)
        if IMAGE not in text:
            placeholder = tokenizer.get_vocab()[PLACEHOLDER]
            return [HERE if token == placeholder else token for token in prompt]
        first, *others = (tokenizer.encode(piece, add_special_tokens=False) for piece in text.split(IMAGE))
        return [*first, *(token for piece in others for token in (HERE, *piece[1:]))]


def _checked(image: Any) -> Image.Image:
    """As RGB, with white behind what is transparent. Raises VLLMValidationError for what is no image that can be shown."""
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3:
        image = Image.fromarray(image)
    if not isinstance(image, Image.Image):
        raise VLLMValidationError(
            f"an image as {type(image).__name__} is not allowed: it must be Pillow's, or an array of uint8 "
            "[height, width, 3]",
            parameter="image",
        )
    low, high = SIDES
    if not low <= min(image.size) <= max(image.size) <= high:
        raise VLLMValidationError(
            f"an image of {image.width} x {image.height} pixels is not allowed: each side must have from {low} to {high}",
            parameter="image",
        )
    return convert_image_mode(image, "RGB")
