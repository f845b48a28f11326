"""Settings that touch the machine, tried before anything is loaded."""

import os
from typing import Any

from vllm_dllm.catalogue import GEN_LENGTH, TRACE
from vllm_dllm.options import SettingError


def check_machine(settings: dict[str, Any], max_model_len: int) -> None:
    """Raise SettingError for a server's setting that would fail later; `settings` are those given.

    Every process of an engine calls this, the first one before it starts the others.
    """
    if TRACE.key in settings:
        check_trace(settings[TRACE.key])
    length = settings.get(GEN_LENGTH.key)
    if length is not None and length >= max_model_len:
        raise SettingError(
            f"{GEN_LENGTH.key}={length} is not allowed: it must be at most {max_model_len - 1}, one less than "
            "max_model_len, to leave room for a prompt"
        )


def check_trace(path: str) -> None:
    """Raise SettingError unless lines can be appended to the file, which is made if need be, as the engine does."""
    try:
        # not blocking: a pipe that nobody reads is refused instead of waited for
        os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK, 0o666))
    except (OSError, ValueError) as e:  # ValueError: a zero byte
        why = e.strerror if isinstance(e, OSError) else e
        raise SettingError(
            f"{TRACE.key}={path!r} is not allowed: it must be a file that can be appended to ({why})"
        ) from e
