"""Answers and scores from a running server, many requests at once."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from openai import APIConnectionError, APIStatusError, OpenAI
from transformers import AutoTokenizer, PretrainedConfig

from vllm_dllm import models
from vllm_dllm.catalogue import CFG_SCALE, GEN_LENGTH
from vllm_dllm.lm_eval.arguments import Arguments
from vllm_dllm.options import SettingError

# fields of the OpenAI API itself; others go beside them, as vLLM takes them
OPENAI = ("max_tokens", "temperature", "top_p", "stop", "seed", "presence_penalty", "frequency_penalty")


class Served:
    def __init__(self, arguments: Arguments):
        self.arguments = arguments
        url = (arguments.base_url or "").rstrip("/").removesuffix("/completions").removesuffix("/v1") + "/v1"
        key = os.environ.get("OPENAI_API_KEY", "none")
        self.client = OpenAI(base_url=url, api_key=key, timeout=None)  # a long queue is no failure
        card = self._card()
        self.name = card.id
        self.max_length = card.max_model_len
        place = arguments.tokenizer or arguments.pretrained or card.root
        self.tokenizer, self.family = _tokenizer(place), _family(arguments.pretrained or card.root, place)
        self.settings = {k: v for k, v in arguments.settings.items() if k != GEN_LENGTH.key}

    def _card(self) -> Any:
        try:
            cards = {card.id: card for card in self.client.models.list().data}
        except (APIConnectionError, APIStatusError) as e:
            raise SettingError(
                f"base_url={self.arguments.base_url!r} is not allowed: it must be the address of a running server ({e})"
            ) from e
        name = self.arguments.model or next(iter(cards))
        if name not in cards:
            raise SettingError(f"model={name!r} is not allowed: it must be one of {', '.join(cards)}")
        return cards[name]

    def generate(self, requests: Sequence[tuple[list[int], dict[str, Any]]]) -> Iterator[tuple[int, str]]:
        """(place in `requests`, text) of each prompt with its sampling parameters, as they end.

        Raises SettingError with the server's words for a request that is refused.
        """

        def ask(request: tuple[list[int], dict[str, Any]]) -> str:
            prompt, params = request
            own = {k: v for k, v in params.items() if k in OPENAI}
            more = {k: v for k, v in params.items() if k not in OPENAI}
            if self.settings:
                more["vllm_xargs"] = self.settings
            return (
                self.client.completions.create(model=self.name, prompt=prompt, extra_body=more, **own).choices[0].text
            )

        return self._each(ask, requests)

    def loglikelihood(self, pairs: Sequence[tuple[list[int], list[int]]]) -> Iterator[tuple[int, float, bool | None]]:
        """(place in `pairs`, log probability, whether greedy decoding gives the target) of each prompt and target, as they
        are scored. Raises SettingError with the server's words for what is refused."""
        asked = self.arguments.asked("full" if self.family is None else self.family.attention) | {"model": self.name}
        if CFG_SCALE.key in self.settings:
            asked[CFG_SCALE.name] = self.settings[CFG_SCALE.key]

        def ask(pair: tuple[list[int], list[int]]) -> dict[str, Any]:
            answer: Any = self.client.post("/dllm/loglikelihood", body=asked | {"pairs": [pair]}, cast_to=object)
            return answer["data"][0]

        for place, found in self._each(ask, pairs):
            yield place, found["logprob"], found.get("greedy")

    def _each(self, ask: Callable[[Any], Any], requests: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """(place, `ask`'s answer) of each request, as they come; the first that is refused ends it."""
        pool = ThreadPoolExecutor(self.arguments.num_concurrent)
        try:
            places = {pool.submit(ask, request): place for place, request in enumerate(requests)}
            for future in as_completed(places):
                yield places[future], future.result()
        except APIStatusError as e:
            body = e.body if isinstance(e.body, dict) else {}
            raise SettingError(f"the server refused a request: {body.get('message', e.message)}") from e
        finally:
            pool.shutdown(cancel_futures=True)


def _tokenizer(place: str) -> Any:
    models.register()  # for tokenizers that transformers does not know
    try:
        return AutoTokenizer.from_pretrained(place)
    except (OSError, ValueError) as e:
        raise SettingError(
            f"tokenizer={place!r} is not allowed: it must be the folder or the name of one on the Hugging Face hub, that of "
            "the server's model"
        ) from e


def _family(*places: str) -> models.Family | None:
    """The family of the first of these whose config.json is found."""
    for place in places:
        try:
            config, _ = PretrainedConfig.get_config_dict(place)
        except OSError:
            continue
        for architecture in config.get("architectures") or ():
            if architecture in models.ARCHITECTURES:
                return models.ARCHITECTURES[architecture]
    return None
