"""What a model family is: all that the rest of the package knows of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from transformers import PretrainedConfig


@dataclass(frozen=True)
class Family:
    """One family of models, described.

    `sampler`, `steps` and `masks` are names of what lives elsewhere (worker/readout.py, unmasking/, likelihood/): models
    import nothing of decoding.
    """

    name: str
    architectures: tuple[str, ...]  # as config.json has them
    model: str  # "module:Class" of the layers, imported when they are needed
    config: type[PretrainedConfig]  # reads config.json
    check: Callable[
        [PretrainedConfig], None
    ]  # raises SettingError for what config.json asks for and the layers do not do
    row_shift: int  # position i is predicted at row i + row_shift
    sampler: Literal["gumbel", "categorical"]  # how the authors' code draws a token at a temperature
    steps: Literal["llada", "dream"]  # which rule counts a fixed number of passes
    end_of_turn: str | None  # the token that its chat template puts behind a turn
    drop_behind_end: bool = False  # the default of `dllm_drop_behind_end`
    # `blocks`: causal by blocks, of as many positions as its config's `block_size` says unless a request does
    attention: Literal["full", "blocks"] = "full"
    dynamic_threshold: float | None = None  # with blocks: what its authors' rule has, which is the default
    # what the authors' own loop, without a cache, ranks fixed steps by (unmasking/scores.py); None: `confidence`
    steps_rank_by: str | None = None
    masks: Literal["counts", "times"] = "counts"  # how the authors' evaluation masks a target (likelihood/draws.py)
    # what config.json has as `model_type` besides the config class's own; None: whatever it is
    other_types: tuple[str, ...] | None = ()
    mask_token_id: int | None = None  # where neither config.json nor the tokenizer names one
    ends_with_turn: bool = False  # an answer ends there, too
    never: tuple[str, ...] = ()  # tokens that the authors' code never chooses
    # what of a chat the template gets, where the authors' code does more than fill it in; may raise SettingError
    conversation: Callable[[Sequence[Any]], list[Any]] | None = None
    tokenizer: type | None = None  # a class for the `tokenizer_class` that transformers does not know
    # what tells other models under these architectures, which are decoded in another way: an option of config.json or
    # generation_config.json, or a token -> that model's name
    foreign: Mapping[str, str] = field(default_factory=dict, hash=False)

    def has_type(self, model_type: Any) -> bool:
        """Whether its checkpoints may have this `model_type`."""
        return self.other_types is None or model_type in (self.config.model_type, *self.other_types)
