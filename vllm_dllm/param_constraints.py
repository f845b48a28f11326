"""What a request's sampling parameters and settings ask of its tokens, as constraints.

constraints_of     the request's, for its decoding
check_tokens       at the door: what they name is there
check_leaves       at the door: together they leave a token for each position
"""

import math
from collections.abc import Sequence

import numpy as np
from vllm.config import ModelConfig
from vllm.sampling_params import SamplingParams

from vllm_dllm.canvas import Canvas
from vllm_dllm.catalogue import DEFER_EOS, SUPPRESS_EOS
from vllm_dllm.constraints import Constraint, bars_all
from vllm_dllm.constraints.bad_words import BadWords
from vllm_dllm.constraints.banned import Allowed, Banned
from vllm_dllm.constraints.bias import Bias
from vllm_dllm.constraints.ends import NoEndBeforeGiven
from vllm_dllm.constraints.min_tokens import MinTokens
from vllm_dllm.constraints.penalties import Penalties
from vllm_dllm.given_text import GivenText
from vllm_dllm.models import family_of
from vllm_dllm.models.ends import ends_of
from vllm_dllm.options import SettingError
from vllm_dllm.settings import Settings


def constraints_of(params: SamplingParams, settings: Settings, text: GivenText, model: ModelConfig) -> list[Constraint]:
    """In vLLM's order where it counts: a bias, then penalties. `params` as vLLM has completed them."""
    found: list[Constraint] = []
    if params.logit_bias:
        found.append(Bias(params.logit_bias))
    penalties = (params.repetition_penalty, params.frequency_penalty, params.presence_penalty)
    if penalties != (1.0, 0.0, 0.0):
        found.append(Penalties(*penalties))
    if params.allowed_token_ids is not None:
        found.append(_allowed(params.allowed_token_ids, model.get_vocab_size()))
    words = params.bad_words_token_ids or []
    if alone := [word[0] for word in words if len(word) == 1]:
        found.append(Banned(alone, "bad_words"))
    if longer := [word for word in words if len(word) > 1]:
        found.append(BadWords(longer))
    if params.min_tokens:
        found.append(MinTokens(params.min_tokens, params.all_stop_token_ids))
    if settings.suppress_eos and (eos := ends_of(model).eos) is not None:
        found.append(Banned([eos], SUPPRESS_EOS.key))
    if family_of(model).never and (never := ends_of(model).never):
        found.append(Banned(never, ""))
    if text:
        found.append(NoEndBeforeGiven(ends_of(model).all))
    return found


def _allowed(tokens: Sequence[int], vocab_size: int) -> Constraint:
    """The shorter of the two lists is what crosses to the worker in each pass."""
    if len(tokens) <= vocab_size // 2:
        return Allowed(tokens, "allowed_token_ids")
    return Banned(np.setdiff1d(np.arange(vocab_size), tokens).tolist(), "allowed_token_ids")


def check_ends(settings: Settings, model: ModelConfig) -> None:
    """Raise SettingError for a setting that is about an end token which nobody knows."""
    for option, asked in ((SUPPRESS_EOS, settings.suppress_eos), (DEFER_EOS, settings.defer_eos)):
        if asked and ends_of(model).eos is None:
            raise SettingError(
                f"{option.key}=True is not allowed: the server has no tokenizer (skip_tokenizer_init) that says which token "
                "ends a text"
            )


def check_tokens(params: SamplingParams, vocab_size: int) -> None:
    """Raise SettingError for a parameter that names what is no token, or a number that would leave no finite logits."""
    named = {"logit_bias": params.logit_bias, "allowed_token_ids": params.allowed_token_ids}
    for name, tokens in named.items():
        for token in tokens or ():
            if not 0 <= token < vocab_size:
                raise SettingError(
                    f"{name} with token {token} is not allowed: a token id must be from 0 to {vocab_size - 1} (the model's "
                    "vocabulary)",
                    name,
                )
    if params.allowed_token_ids == []:
        raise SettingError("allowed_token_ids=[] is not allowed: it must have at least one token")
    for token, bias in (params.logit_bias or {}).items():
        if not math.isfinite(bias):
            raise SettingError(
                f"logit_bias with {bias} for token {token} is not allowed: it must be a finite number", "logit_bias"
            )
    if not 1e-30 <= params.repetition_penalty <= 1e30:
        raise SettingError(
            f"repetition_penalty={params.repetition_penalty} is not allowed: it must be from 1e-30 to 1e+30"
        )


def check_leaves(constraints: Sequence[Constraint], canvas: Canvas, vocab_size: int, mask_id: int) -> None:
    """Raise SettingError if they bar every token at some masked position of a new canvas."""
    said = bars_all(constraints, canvas, np.flatnonzero(canvas.masked), vocab_size, mask_id)
    if said:
        raise SettingError(f"{said}, which is not allowed: one besides the mask token must be left", said.split()[0])
