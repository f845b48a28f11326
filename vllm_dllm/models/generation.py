"""What a checkpoint's `generation_config.json` gives for requests that name no value of their own.

What can be honoured is. The rest is set aside, with a line in the log, or requests would be refused for values that
nobody sent. What the server's user gives (`override_generation_config`) is honoured or refused.
"""

import json
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from transformers.utils import cached_file
from vllm.config import ModelConfig
from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import SamplingParams

from vllm_dllm.options import SettingError

FILE = "generation_config.json"
HONOURED = ("temperature", "top_k", "top_p")
# what a checkpoint's authors do not mean for their own code, which has no such thing, but a server's user may
USERS = (*HONOURED, "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty")
# of no consequence: who wrote the file, and ids that are read elsewhere or by nobody
SILENT = ("_from_model_config", "transformers_version", "do_sample", "bos_token_id", "pad_token_id", "mask_token_id")


def read_generation_config(model: ModelConfig) -> tuple[str, dict[str, Any] | None]:
    """The file that has the defaults, and what it holds, None if that is no JSON object.

    Without such a file, the end tokens of config.json, as vLLM has it. Raises SettingError for a folder that the
    server's user named and that has no such file.
    """
    named = model.generation_config not in ("auto", "vllm")
    folder = model.generation_config if named else model.hf_config_path or model.model
    revision = None if named else model._hf_config_revision or model.revision
    try:
        path = cached_file(folder, FILE, revision=revision, token=model.hf_token)
    except OSError:  # there is none
        if named:
            raise SettingError(
                f"generation_config={folder!r} is not allowed: it must be auto, vllm, or a folder with a {FILE}"
            ) from None
        ids = getattr(model.hf_config, "eos_token_id", None)
        return f"{folder}/config.json", {} if ids is None else {"eos_token_id": ids}
    try:
        options = json.loads(Path(path).read_bytes())
    except ValueError:
        options = None
    return str(path), options if isinstance(options, dict) else None


def defaults(model: ModelConfig) -> tuple[dict[str, Any], list[str]]:
    """The defaults that are honoured, and a line on each of the others."""
    file, options = read_generation_config(model)
    if options is None:
        return {}, [f"{file} is set aside: it is no JSON object"]
    if model.generation_config == "vllm":  # then vLLM takes nothing else from it
        options = {key: value for key, value in options.items() if key == "eos_token_id"}
    kept: dict[str, Any] = {}
    lines: list[str] = []
    for key, value in options.items():
        why = _why_not(key, value)
        if key == "eos_token_id":
            ids = value if isinstance(value, list) else [value]
            good = [i for i in ids if type(i) is int and 0 <= i < model.hf_config.vocab_size]
            kept |= {key: good} if good else {}
            for other in [i for i in ids if i not in good]:
                lines.append(_line(file, key, other, "it is no token's id"))
        elif why:
            lines.append(_line(file, key, value, why))
        elif key in HONOURED:
            kept[key] = value
    return kept, lines


def check_override(override: Mapping[str, Any]) -> None:
    """Raise SettingError for a default of the server's user that cannot be honoured; None takes back the checkpoint's."""
    for key, value in override.items():
        if value is None:
            continue
        why = "it is not read" if key in (*SILENT, "eos_token_id") else _why_not(key, value, USERS)
        if why is not None:
            raise SettingError(f"{key}={value!r} is not allowed in override_generation_config: {why}")


def _why_not(key: str, value: Any, honoured: tuple[str, ...] = HONOURED) -> str | None:
    """Why a default is not honoured; None where it is, or changes nothing."""
    if value is None:
        return "it says nothing"
    if key in SILENT or key == "eos_token_id":
        return None
    if key == "max_new_tokens":
        return "the response length is set by dllm_gen_length"
    if key in honoured:
        return _refused(key, value)
    if value == getattr(SamplingParams(), key, None):
        return None
    return f"of such defaults a diffusion model has {', '.join(honoured)}"


def _refused(key: str, value: Any) -> str | None:
    """Why a request with `key` at `value` would be refused, on its way to the engine and there."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "it must be a number"
    try:
        msgspec.msgpack.decode(msgspec.msgpack.encode(SamplingParams(**{key: value})), type=SamplingParams)
    except VLLMValidationError as e:
        return str(e).partition(" (parameter=")[0].rstrip(".")
    except (OverflowError, msgspec.ValidationError) as e:
        return str(e)
    return None


def _line(file: str, key: str, value: Any, why: str) -> str:
    return f"{file}: {key}={textwrap.shorten(repr(value), 80)} is set aside: {why}"
