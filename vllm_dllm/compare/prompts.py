"""A user's prompts from a file, as requests of the OpenAI API."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from vllm import LLM, SamplingParams
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest

from vllm_dllm.settings import given
from vllm_dllm.validation import Unnamed

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"


class PromptError(ValueError):
    """A line of the file that is no prompt. The message names file, line, and what is allowed."""


@dataclass(frozen=True)
class Prompt:
    """One line."""

    line: dict[str, Any]  # as it was given, for a grader
    request: ChatCompletionRequest | CompletionRequest
    length: int | None  # of the response; None: it names none, and has the server's
    where: str  # file and line, for messages

    @property
    def settings(self) -> dict[str, Any]:
        """Its own `dllm_*` settings."""
        return given(self.request.vllm_xargs)

    def rendered(self, llm: LLM) -> Any:
        """The prompt as vLLM's engine takes it."""
        tokens = self.request.build_tok_params(llm.model_config)
        if isinstance(self.request, ChatCompletionRequest):
            chat = self.request.build_chat_params(None, "auto")
            return llm.renderer.render_chat([self.request.messages], chat, tokens)[1][0]
        text = self.request.prompt
        prompt = {"prompt": text} if isinstance(text, str) else {"prompt_token_ids": text}
        return llm.renderer.render_cmpl([prompt], tokens)[0]

    def params(self, settings: dict[str, Any]) -> SamplingParams:
        """Its parameters, greedy, one answer, with `settings` for its own `dllm_*`."""
        request = self.request.model_copy(update={"temperature": 0.0, "n": 1, "stream": False, "logprobs": None})
        params = request.to_sampling_params(self.length or 16, {})
        if self.length is None:
            params.max_tokens = Unnamed(16)
        params.extra_args = {k: v for k, v in (params.extra_args or {}).items() if k not in self.settings} | settings
        return params


def read_prompts(file: Path) -> list[Prompt]:
    """The prompts of a file. Raises PromptError, OSError.

    A line is one of

        {"messages": [...], "max_tokens": 96, ...}     a body of /v1/chat/completions
        {"prompt": "..."}, "..."                       one user turn
        {"text": "..."}                                a text that the model goes on from, as it is
        {"custom_id": ..., "url": ..., "body": {...}}  a line of an OpenAI batch file

    Fields beside are a body's, or a grader's (`want`, ...). In a file whose name does not end in json or jsonl, a line is
    a user turn.
    """
    lines = [(number, line) for number, line in enumerate(file.read_text().splitlines(), 1) if line.strip()]
    plain = file.suffix not in (".json", ".jsonl")
    found = [_prompt(json.dumps(line) if plain else line, f"{file}, line {number}") for number, line in lines]
    if not found:
        raise PromptError(f"{file} has no prompts: it must have one on each line")
    return found


def _prompt(text: str, where: str) -> Prompt:
    try:
        line = json.loads(text)
    except json.JSONDecodeError as e:
        raise PromptError(f"{where} is no JSON: {e}") from None
    if isinstance(line, str):
        line = {"prompt": line}
    if not isinstance(line, dict):
        raise PromptError(f"{where} is {text[:40]!r}: it must be a JSON object or a text")
    url, body = _body(line, where)
    kind: Any = {CHAT: ChatCompletionRequest, TEXT: CompletionRequest}.get(url)
    if kind is None:
        raise PromptError(f"{where} has the url {url!r}: it must be {CHAT} or {TEXT}")
    # fields that the API does not have are the grader's
    fields = {key: value for key, value in body.items() if key in kind.model_fields}
    try:
        request = kind.model_validate(fields | {"model": ""})
    except ValidationError as e:
        error = e.errors()[0]
        raise PromptError(f"{where}: {'.'.join(map(str, error['loc']))}: {error['msg']}") from None
    except ValueError as e:
        raise PromptError(f"{where}: {e}") from None
    if url == TEXT and not _is_one(request.prompt):
        raise PromptError(f"{where} has several prompts: it must have one, a text or token ids")
    return Prompt(line, request, fields.get("max_completion_tokens") or fields.get("max_tokens"), where)


def _body(line: dict[str, Any], where: str) -> tuple[str, dict[str, Any]]:
    """What of the API a line asks, and the request's body."""
    if isinstance(body := line.get("body"), dict):
        return line.get("url", CHAT if "messages" in body else TEXT), body
    if "messages" in line:
        return CHAT, line
    if isinstance(line.get("text"), str):
        return TEXT, line | {"prompt": line["text"]}
    if isinstance(prompt := line.get("prompt"), str):
        return CHAT, line | {"messages": [{"role": "user", "content": prompt}]}
    raise PromptError(f"{where} is no prompt: it must have messages, prompt, text or body")


def _is_one(prompt: Any) -> bool:
    return isinstance(prompt, str) or (isinstance(prompt, list) and all(type(token) is int for token in prompt))
