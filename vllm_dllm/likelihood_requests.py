"""Likelihoods of pairs as vLLM requests, for whoever sends them: an offline engine (here) or a server (endpoints/)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from vllm.config import VllmConfig
from vllm.inputs import TokensPrompt
from vllm.outputs import RequestOutput
from vllm.sampling_params import RequestOutputKind, SamplingParams

from vllm_dllm import validation
from vllm_dllm.catalogue import (
    BLOCK_LENGTH,
    CACHE,
    CFG_SCALE,
    DEFER_EOS,
    DROP_BEHIND_END,
    EARLY_STOP,
    SCORE,
    SUPPRESS_EOS,
)
from vllm_dllm.engine_config import model_traits, server_settings
from vllm_dllm.likelihood.asked import Asked, Plan
from vllm_dllm.likelihood.result import Likelihood
from vllm_dllm.models import family_of
from vllm_dllm.options import SettingError
from vllm_dllm.scored import CARRIER, Target
from vllm_dllm.settings import Settings
from vllm_dllm.unmasking.registry import RULES

if TYPE_CHECKING:
    from vllm import LLM

LEAST = 4  # passes of a request: fewer are not worth one


class Pair(NamedTuple):
    prompt: list[int]
    target: list[int]
    plan: Plan


class Sent(NamedTuple):
    """One vLLM request."""

    pair: int
    prompt: TokensPrompt
    params: SamplingParams
    scores: bool  # or it decodes, for `greedy`


class Likelihoods:
    """What is asked about some pairs, as `requests`; `results` makes of their outputs, in the same order, what is told.

    A pair's passes are cut into as many requests as fill the engine's batch. Raises SettingError for what cannot be
    answered.
    """

    def __init__(self, config: VllmConfig, pairs: Sequence[tuple[list[int], list[int]]], asked: Asked):
        """`pairs` as `token_ids` makes them."""
        if not pairs:
            raise SettingError("pairs must have at least one pair of a prompt and a target", "pairs")
        asked.check_count(len(pairs))
        traits = model_traits(config)
        asked.check_attention(traits.attention)
        self.attention = traits.attention
        self.asked = asked
        self.settings = {} if asked.cfg_scale is None else {CFG_SCALE.key: _cfg_scale(asked.cfg_scale)}
        settings = server_settings(config).of_request(self.settings)
        self.pairs = [self._pair(config, settings, i, *pair) for i, pair in enumerate(pairs)]
        total = sum(len(pair.plan.passes) for pair in self.pairs)
        most = max(LEAST, -(-total // config.scheduler_config.max_num_seqs))
        self.requests = [request for i in range(len(pairs)) for request in self._requests(i, most)]

    def results(self, outputs: Sequence[RequestOutput]) -> list[Likelihood]:
        scores: list[list[np.ndarray]] = [[] for _ in self.pairs]
        greedy: list[bool | None] = [None for _ in self.pairs]
        for sent, output in zip(self.requests, outputs, strict=True):
            answer = output.outputs[0]
            if answer.finish_reason not in ("stop", "length"):
                raise RuntimeError(f"pairs[{sent.pair}] was not scored: {answer.stop_reason or answer.finish_reason}")
            if sent.scores:
                assert output.prompt_token_id_logprobs is not None
                scores[sent.pair].append(output.prompt_token_id_logprobs)
            else:
                greedy[sent.pair] = list(answer.token_ids) == self.pairs[sent.pair].target
        return [
            pair.plan.result(np.concatenate(part) if part else np.empty(0), known)
            for pair, part, known in zip(self.pairs, scores, greedy, strict=True)
        ]

    def _pair(self, config: VllmConfig, settings: Settings, i: int, prompt: list[int], target: list[int]) -> Pair:
        try:
            check_pair(config, prompt, target, settings.cfg_scale, settings.causal_block)
        except SettingError as e:
            raise SettingError(f"pairs[{i}]: {e}", "pairs") from e
        return Pair(prompt, target, self.asked.plan(i, prompt, target, family_of(config.model_config).masks))

    def _requests(self, i: int, most: int) -> list[Sent]:
        prompt, target, plan = self.pairs[i]
        parts: list[dict[str, Any]] = [{CARRIER: Target(target, passes)} for passes in plan.passes.slices(most)]
        if self.asked.greedy:
            parts.append(one_at_a_time(len(target), self.attention))
        return [
            Sent(i, TokensPrompt(prompt_token_ids=prompt), self._params(target, part), CARRIER in part)
            for part in parts
        ]

    def _params(self, target: list[int], extra_args: dict[str, Any]) -> SamplingParams:
        return SamplingParams(
            temperature=0,
            max_tokens=len(target),
            ignore_eos=True,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
            extra_args=extra_args | self.settings,
            skip_clone=True,
        )


def _cfg_scale(value: Any) -> float:
    try:
        return CFG_SCALE.check(value)
    except SettingError as e:  # without the prefix, as it was given
        raise SettingError(str(e).removeprefix("dllm_"), "cfg_scale") from e


def one_at_a_time(length: int, attention: str) -> dict[str, Any]:
    """LLaDA's `suffix_greedy_prediction`: the most confident position of all, pass by pass, whatever its token. Where
    attention is causal by blocks: of the active block."""
    rule = {RULES["tokens_per_step"].option.key: 1, SCORE.key: "confidence"}
    about_ends = {option.key: False for option in (SUPPRESS_EOS, DEFER_EOS, DROP_BEHIND_END)}
    if attention == "blocks":
        return rule | about_ends
    return {CACHE.key: "none", BLOCK_LENGTH.key: length, EARLY_STOP.key: False} | rule | about_ends


def check_pair(config: VllmConfig, prompt: list[int], target: list[int], cfg_scale: float, block: int | None) -> None:
    """Raise SettingError for a pair that cannot be scored. `block`: where attention is causal by blocks, the positions in
    one."""
    size, mask_id = config.model_config.get_vocab_size(), model_traits(config).mask_id
    validation.check_prompt(config, prompt)
    if not target:
        raise SettingError("target=[] is not allowed: it must have at least one token")
    for token in target:
        if not 0 <= token < size or token == mask_id:
            raise SettingError(
                f"target with token {token} is not allowed: a token id must be from 0 to {size - 1} and not {mask_id}, "
                "the mask's"
            )
    canvas, (limit, what) = len(prompt) + len(target), validation.room(config, block)
    if canvas > limit:
        raise SettingError(
            f"target of {len(target)} tokens is not allowed: with the prompt's {len(prompt)} the canvas has {canvas}, and "
            f"it must be at most {limit} ({what})"
        )
    if cfg_scale:
        validation.check_guidance(config, cfg_scale, canvas)


def token_ids(config: VllmConfig, tokenizer: Any, i: int, pair: Any) -> tuple[list[int], list[int]]:
    """Of pair `i`, prompt and target, each a text or a list of token ids. Raises SettingError where it is none."""
    if not isinstance(pair, list | tuple) or len(pair) != 2:
        raise SettingError(
            f"pairs[{i}]={validation.shown(pair)} is not allowed: it must be a pair of a prompt and a target", "pairs"
        )
    try:
        return _encoded(config, tokenizer, *pair)
    except SettingError as e:
        raise SettingError(f"pairs[{i}]: {e}", "pairs") from e


def _encoded(config: VllmConfig, tokenizer: Any, prompt: Any, target: Any) -> tuple[list[int], list[int]]:
    """Two texts are encoded as one, and the target is what is more than the prompt by itself; spaces at the prompt's end
    are the target's (`_encode_pair` of the authors' evaluations)."""
    if not isinstance(prompt, str) or not isinstance(target, str):
        return _ids(config, tokenizer, "prompt", prompt), _ids(config, tokenizer, "target", target, special=False)
    bare = prompt.rstrip()
    if bare:
        prompt, target = bare, prompt[len(bare) :] + target
    alone = _ids(config, tokenizer, "prompt", prompt)
    return alone, _ids(config, tokenizer, "target", prompt + target)[len(alone) :]


def _ids(config: VllmConfig, tokenizer: Any, name: str, given: Any, special: bool = True) -> list[int]:
    if isinstance(given, str):
        if tokenizer is None:
            raise SettingError(f"{name} as text is not allowed: the server has no tokenizer (skip_tokenizer_init)")
        limit = config.model_config.max_model_len
        if len(given) > limit * tokenizer.max_chars_per_token:  # it is not worth the time
            raise SettingError(f"{name} of {len(given)} characters is not allowed: it must have at most {limit} tokens")
        return list(tokenizer.encode(given, add_special_tokens=special))
    whole = (int, np.integer)
    if not isinstance(given, list | tuple | np.ndarray) or not all(
        isinstance(t, whole) and type(t) is not bool for t in given
    ):
        raise SettingError(f"{name}={validation.shown(given)} is not allowed: it must be a text or a list of token ids")
    return [int(t) for t in given]


def loglikelihood(llm: "LLM", pairs: Sequence[Any], asked: Asked, use_tqdm: bool) -> list[Likelihood]:
    """Of pairs, by an offline engine."""
    config, tokenizer = llm.llm_engine.vllm_config, llm.llm_engine.tokenizer
    likelihoods = Likelihoods(config, [token_ids(config, tokenizer, i, p) for i, p in enumerate(pairs)], asked)
    prompts, params = [r.prompt for r in likelihoods.requests], [r.params for r in likelihoods.requests]
    return likelihoods.results(llm.generate(prompts, params, use_tqdm=use_tqdm) if prompts else [])
