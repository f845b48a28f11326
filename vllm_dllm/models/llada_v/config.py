"""The config of the official LLaDA-V checkpoints, under the names vLLM reads.

Fields carry the default that the authors' own config class (LLaMA's) gives an option which `config.json` leaves out.
What a value means for us, honoured or refused, is in checks.py.
"""

from typing import Any

from transformers import SiglipVisionConfig

from vllm_dllm.models.base_config import BaseConfig

# the tower that `mm_vision_tower` names, SigLIP2 so400m with patches of 14 pixels: the authors' code has it built in
TOWER = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "num_channels": 3,
    "image_size": 384,
    "patch_size": 14,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
}


class LLaDAVConfig(BaseConfig):
    """`config.json` of GSAI-ML/LLaDA-V. `vision_config`, which it need not have, is the tower's.

    `image_grid_pinpoints` are [width, height] in pixels, multiples of the tower's `image_size`.
    """

    model_type = "llava_llada"
    sub_configs = {"vision_config": SiglipVisionConfig}

    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int | None = None
    hidden_act: str = "silu"
    max_position_embeddings: int = 2048
    vocab_size: int = 32000
    mask_token_id: int | None = None  # the released config has none
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    rope_scaling: dict | None = None
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    vision_config: Any = None
    image_grid_pinpoints: Any = None
    image_aspect_ratio: str = "anyres_max_4"
    mm_patch_merge_type: str = "spatial_unpad"
    mm_projector_type: str = "mlp2x_gelu"
    mm_vision_select_layer: int = -2
    mm_vision_select_feature: str = "patch"
    mm_newline_position: str = "grid"

    def __post_init__(self, **kwargs):
        if not isinstance(self.vision_config, SiglipVisionConfig):
            self.vision_config = SiglipVisionConfig(**TOWER | (self.vision_config or {}))
        super().__post_init__(**kwargs)
        if self.image_grid_pinpoints is None:
            side = self.vision_config.image_size
            self.image_grid_pinpoints = [[side * w, side * h] for w in range(1, 7) for h in range(1, 7)]

    @property
    def qkv_bias(self) -> bool:
        return self.attention_bias

    @property
    def tower_layers(self) -> int:
        """How many of the tower's layers run: the last one's output is not read (`mm_vision_select_layer`)."""
        return self.vision_config.num_hidden_layers + 1 + self.mm_vision_select_layer
