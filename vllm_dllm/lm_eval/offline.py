"""Answers and scores from an engine of this process, which batches all that is asked for at once."""

from collections.abc import Iterator, Sequence
from typing import Any

from vllm import LLM, SamplingParams
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
        self.asked = 0

    def generate(self, requests: Sequence[tuple[list[int], dict[str, Any]]]) -> Iterator[tuple[int, str]]:
        """(place in `requests`, text) of each prompt with its sampling parameters, as they end.

        Raises SettingError for parameters that are refused, and RuntimeError for a request that fails.
        """
        engine = self.llm.llm_engine
        defaults = self.llm.model_config.get_diff_sampling_param()  # as a server has them
        places = {}
        for place, (prompt, params) in enumerate(requests):
            try:
                asked = SamplingParams(**(defaults | params), output_kind=RequestOutputKind.FINAL_ONLY)
            except TypeError as e:
                raise SettingError(f"generation_kwargs are not allowed: {e}") from None
            self.asked += 1
            places[str(self.asked)] = place
            engine.add_request(str(self.asked), {"prompt_token_ids": prompt}, asked)
        while engine.has_unfinished_requests():
            for output in engine.step():
                answer = output.outputs[0]
                if answer.finish_reason == "error":
                    raise RuntimeError(f"request {places[output.request_id]} failed: {answer.stop_reason}")
                yield places[output.request_id], answer.text

    def loglikelihood(self, pairs: Sequence[tuple[list[int], list[int]]]) -> Iterator[tuple[int, float, bool | None]]:
        """(place in `pairs`, log probability, whether greedy decoding gives the target) of each prompt and target."""
        for start in range(0, len(pairs), AT_ONCE):
            part = pairs[start : start + AT_ONCE]
            for i, found in enumerate(loglikelihood(self.llm, part, **self.arguments.asked, use_tqdm=False)):
                yield start + i, found.logprob, found.greedy
