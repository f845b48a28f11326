"""Answers and scores from an engine of this process, which batches all that is asked for at once."""

from collections.abc import Iterator, Sequence
from typing import Any

from vllm import LLM, SamplingParams
from vllm.inputs import TokensPrompt
from vllm.sampling_params import RequestOutputKind

from vllm_dllm import loglikelihood
from vllm_dllm.lm_eval.arguments import Arguments
from vllm_dllm.models import family_of
from vllm_dllm.options import SettingError

AT_ONCE = 64  # pairs whose scoring passes share the engine's batches; then the progress bar moves


class Offline:
    def __init__(self, arguments: Arguments):
        self.arguments = arguments
        engine = arguments.engine | ({"tokenizer": arguments.tokenizer} if arguments.tokenizer else {})
        config = engine.pop("additional_config", {}) | arguments.settings
        self.llm = LLM(arguments.pretrained, additional_config=config, **engine)
        model = self.llm.model_config
        self.name = model.model
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
        for start in range(0, len(pairs), AT_ONCE):
            part = pairs[start : start + AT_ONCE]
            for i, found in enumerate(loglikelihood(self.llm, part, **self.arguments.asked, use_tqdm=False)):
                yield start + i, found.logprob, found.greedy
