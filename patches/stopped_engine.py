"""Requests that wait when a server is stopped are answered.

What: when the engine of a server of one of our models is stopped, what still waits for it gets HTTP 503, or an error
  event where it streams.
Why: vLLM kills the engine's process at once (unless --shutdown-timeout gives it time), so nobody answers these
  requests, and then waits for their connections to close: for as long as the clients have patience.
Applied: by server.py.
Checked on: vLLM 0.32.0; the source of 0.33.0.
Until: vLLM answers them (vllm-project/vllm pull request 36964).
"""

from http import HTTPStatus

from vllm.exceptions import GracefulHTTPError
from vllm.v1.engine.async_llm import AsyncLLM

from vllm_dllm.patches.wrap import wrap


def _shutdown(original, self, timeout=None):
    handler = getattr(self, "output_handler", None)  # absent in an engine that did not start
    original(self, timeout)
    if handler is not None and not handler.get_loop().is_closed():
        error = GracefulHTTPError("The server was stopped.", HTTPStatus.SERVICE_UNAVAILABLE)
        # vLLM calls this from a thread of its own
        handler.get_loop().call_soon_threadsafe(self.output_processor.propagate_error, error)


def apply() -> None:
    """For a process that is about to serve one of our models."""
    wrap(AsyncLLM, "shutdown", _shutdown)
