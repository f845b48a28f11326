"""Answers and scores from an engine of this process, which batches all that is asked for at once."""

from collections.abc import Iterator, Sequence
from typing import Any

from vllm import LLM, SamplingParams
from vllm.inputs import TokensPrompt
from vllm.sampling_params import RequestOutputKind

from vllm_dllm import loglikelihood
from vllm_dllm.lm_eval.arguments import Arguments
from vllm_dllm.models import ARCHITECTURES, family_of, is_ours
from vllm_dllm.options import SettingError

PASSES = 2048  # that score are asked for at once: many batches; then the progress bar moves


class Offline:
    def __init__(self, arguments: Arguments):
        self.arguments = arguments
        engine = arguments.engine | ({"tokenizer": arguments.tokenizer} if arguments.tokenizer else {})
        config = engine.pop("additional_config", {}) | arguments.settings
        try:
            self.llm = LLM(arguments.pretrained, additional_config=config, **engine)
        except SettingError:
            raise
        except (OSError, ValueError) as e:
            raise SettingError(f"the engine did not start with pretrained={arguments.pretrained!r}: {e}") from e
        model = self.llm.model_config
        if not is_ours(model):
            served = ", ".join(ARCHITECTURES)
            raise SettingError(
                f"pretrained={arguments.pretrained!r} is not allowed: it must be a diffusion model ({served})"
            )
        self.max_length = model.max_model_len
        self.family = family_of(model)
        self.tokenizer = self.llm.get_tokenizer()

    def generate(self, requests: Sequence[tuple[list[int], dict[str, Any]]]) -> Iterator[tuple[int, str]]:
        """(place in `requests`, text) of each prompt with its sampling parameters, as they end.

        Raises SettingError for parameters that are refused, and RuntimeError for a request that fails.
        """
        defaults = self.llm.model_config.get_diff_sampling_param()  # as a server has them
        final = {"output_kind": RequestOutputKind.FINAL_ONLY}
        try:
            asked = [SamplingParams(**(defaults | params | final)) for _, params in requests]
        except TypeError as e:
            raise SettingError(f"generation_kwargs are not allowed: {e}") from None
        prompts = [TokensPrompt(prompt_token_ids=prompt) for prompt, _ in requests]
        ids = self.llm.enqueue(prompts, asked, use_tqdm=False)
        places = {request_id.split("-")[0]: place for place, request_id in enumerate(ids)}  # vLLM has made them unique
        engine = self.llm.llm_engine
        while engine.has_unfinished_requests():
            for output in engine.step():
                place, answer = places[output.request_id], output.outputs[0]
                if answer.finish_reason == "error":
                    raise RuntimeError(f"request {place} failed: {answer.stop_reason}")
                yield place, answer.text

    def loglikelihood(self, pairs: Sequence[tuple[list[int], list[int]]]) -> Iterator[tuple[int, float, bool | None]]:
        """(place in `pairs`, log probability, whether greedy decoding gives the target) of each prompt and target."""
        asked = self.arguments.asked(self.family.attention)
        start, passes = 0, 0
        for stop, (_, target) in enumerate(pairs, 1):
            passes += asked.get("mc_num", len(target))
            if passes < PASSES and stop < len(pairs):
                continue
            for i, found in enumerate(loglikelihood(self.llm, pairs[start:stop], **asked, use_tqdm=False), start):
                yield i, found.logprob, found.greedy
            start, passes = stop, 0
