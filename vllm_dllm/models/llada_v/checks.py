"""What a LLaDA-V checkpoint's `config.json` may ask for, as llava_llada.py and its tower read it."""

from typing import Any

from transformers import PretrainedConfig

from vllm_dllm.models.checks import check_rope, check_sizes, refusal, require

# option -> the value that the layers are right for
OPTIONS = {
    "hidden_act": "silu",
    "mm_patch_merge_type": "spatial_unpad",
    "mm_projector_type": "mlp2x_gelu",
    "mm_vision_select_feature": "patch",
    "mm_newline_position": "grid",  # of images: that of videos is another matter
    "mm_resampler_type": None,
    "mm_use_im_start_end": False,
    "mm_use_im_patch_token": False,
    "image_crop_resolution": None,
    "image_split_resolution": None,
}
ASPECT = "anyres_max_"


def check(hf: PretrainedConfig) -> None:
    """Raise SettingError for a config.json that the layers do not honour."""
    require(hf, OPTIONS)
    check_rope(hf)
    check_sizes(hf)
    _check_tower(hf)
    _check_tiles(hf)


def _check_tower(hf: PretrainedConfig) -> None:
    tower = hf.vision_config
    if not 1 <= hf.tower_layers <= tower.num_hidden_layers:
        raise refusal(
            "mm_vision_select_layer",
            hf.mm_vision_select_layer,
            f"from {-tower.num_hidden_layers} to -1, one of the tower's layers",
        )
    if getattr(hf, "mm_hidden_size", tower.hidden_size) != tower.hidden_size:
        raise refusal("mm_hidden_size", hf.mm_hidden_size, f"{tower.hidden_size}, the vision tower's hidden_size")
    if tower.hidden_size % tower.num_attention_heads:
        raise refusal("vision_config.num_attention_heads", tower.num_attention_heads, "a divisor of its hidden_size")


def _check_tiles(hf: PretrainedConfig) -> None:
    side = hf.vision_config.image_size
    most = hf.image_aspect_ratio.removeprefix(ASPECT)
    if not hf.image_aspect_ratio.startswith(ASPECT) or not most.isdigit() or not int(most):
        raise refusal("image_aspect_ratio", hf.image_aspect_ratio, f"{ASPECT} with a number of tiles behind it")
    if not isinstance(hf.image_grid_pinpoints, list) or not all(map(_is_pair, hf.image_grid_pinpoints)):
        raise refusal("image_grid_pinpoints", hf.image_grid_pinpoints, "a list of [width, height] in pixels")
    for pinpoint in hf.image_grid_pinpoints or [[0, 0]]:
        if not all(length > 0 and length % side == 0 for length in pinpoint):
            raise refusal("image_grid_pinpoints", pinpoint, f"multiples of {side}, the vision tower's image_size")


def _is_pair(pinpoint: Any) -> bool:
    return isinstance(pinpoint, list) and len(pinpoint) == 2 and all(type(length) is int for length in pinpoint)
