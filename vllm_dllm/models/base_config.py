"""What the families' configs have in common."""

from typing import Any

from transformers import PretrainedConfig


class BaseConfig(PretrainedConfig):
    """A family's `config.json`, whose options are the fields of its own class."""

    def __post_init__(self, **kwargs: Any):
        # vLLM builds its layers without a KV cache where `is_causal` is false; attention is bidirectional because the
        # model runner's metadata says so
        super().__post_init__(**{key: value for key, value in kwargs.items() if key != "is_causal"})
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        if not getattr(self, "use_sliding_window", True):
            self.sliding_window: int | None = None  # vLLM would take the number alone for a window

    # what the layers of all families ask, and few have an option for

    @property
    def head_bias(self) -> bool:
        return False

    @property
    def logit_scale(self) -> float:
        return 1.0
