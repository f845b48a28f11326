"""What vLLM's worker asks of every model runner, about things that ours has not got."""

from types import SimpleNamespace


class UnusedCalls:
    """The model runner's answers to them."""

    # what vLLM's `profile_cudagraph_memory` reads of its own runner
    lora_config = None
    model_state = SimpleNamespace(supports_mm_inputs=False)

    def maybe_remove_all_loras(self, lora_config: None) -> None:
        """There are none."""

    def reset_lora_state(self) -> None:
        """Nor here."""

    def get_draft_model(self) -> None:
        """There is no speculative decoding."""

    def update_max_model_len(self, max_model_len: int) -> None:
        """Nothing here depends on it."""

    def reset_mm_cache(self) -> None:
        """That of images as pixels: there is none here."""

    def get_encoder_timing_stats(self) -> dict[str, dict[str, float | int]]:
        return {}
