"""vllm-dllm: a vLLM plugin that serves full-sequence diffusion language models (LLaDA, Dream)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vllm_dllm.records import replay

if TYPE_CHECKING:
    from vllm import LLM

    from vllm_dllm.likelihood.result import Likelihood

__all__ = ["loglikelihood", "register", "replay"]

__version__ = "0.2.0"


def loglikelihood(
    llm: "LLM",
    pairs: Sequence[Any],
    estimator: str = "chain",
    masks: Sequence[Sequence[Sequence[int]]] | None = None,
    *,
    mc_num: int | None = None,
    strata: int | None = None,
    seed: int | None = None,
    cfg_scale: float | None = None,
    greedy: bool = False,
    use_tqdm: bool = True,
) -> "list[Likelihood]":
    """How likely targets are behind their prompts: one `Likelihood` for each of the pairs (docs/likelihood.md).

    `pairs` are (prompt, target), each a text or a list of token ids. `estimator`: `chain`, each token given those before
    it, or `mc`, the mean over masks, which are given (`masks`: for each pair lists of 0 and 1 over its target) or drawn
    as the model's authors draw them: `mc_num` (128), `strata` of them at a time (up to 16), by `seed` (0). `cfg_scale`:
    guidance; None: the engine's own. `greedy`: whether greedy decoding gives the target, too. Raises SettingError for
    what cannot be answered.
    """
    from vllm_dllm.likelihood.asked import Asked
    from vllm_dllm.likelihood_requests import loglikelihood

    asked = Asked(estimator, masks, mc_num, strata, seed, cfg_scale, greedy)
    return loglikelihood(llm, pairs, asked, use_tqdm)


def register() -> None:
    """The plugin's entry point (`vllm.general_plugins`): called in every process, perhaps more than once."""
    from vllm_dllm.vllm_version import check_vllm

    check_vllm()
    from vllm.model_executor.models.config import MODELS_CONFIG_MAP

    from vllm_dllm import models
    from vllm_dllm.engine_config import DllmConfig
    from vllm_dllm.patches import (
        admission,
        answer_records,
        auto_dtype,
        chats,
        command_line,
        foreign_checkpoints,
        generation_defaults,
        integrity,
        quick_start,
        server,
        waiting_steps,
    )

    models.register()
    for architecture in models.ARCHITECTURES:
        MODELS_CONFIG_MAP[architecture] = DllmConfig
    # harmless for other models
    for patch in (
        admission,
        answer_records,
        auto_dtype,
        chats,
        command_line,
        foreign_checkpoints,
        generation_defaults,
        integrity,
        server,
        waiting_steps,
    ):
        patch.apply()
    quick_start.end()
