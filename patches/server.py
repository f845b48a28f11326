"""The patches of the API server's own code, applied where a server for one of our models starts.

What: when vLLM's AsyncLLM is made for one of our architectures, the patches of dead_engine.py, early_refusals.py,
  endpoints.py, failed_requests.py, max_tokens.py, request_fields.py, request_formats.py, served_records.py and
  stopped_engine.py that concern the server's protocols and handlers are applied.
Why: the first place where a server's process knows its model. Offline engines and other models do without the
  seconds that importing the server takes, and without the changes.
Applied: in every process.
Checked on: vLLM 0.32.0; the source of 0.33.0.
Until: the last of those patches is gone.
"""

from vllm.v1.engine.async_llm import AsyncLLM

from vllm_dllm.models import is_ours
from vllm_dllm.patches import (
    dead_engine,
    early_refusals,
    endpoints,
    failed_requests,
    image_urls,
    max_tokens,
    request_fields,
    request_formats,
    served_records,
    stopped_engine,
)
from vllm_dllm.patches.wrap import wrap


def _init(original, self, vllm_config, *args, **kwargs):
    if is_ours(vllm_config.model_config):  # first of all: a vLLM that does not fit is refused before an engine starts
        dead_engine.apply()
        early_refusals.apply()
        endpoints.apply()
        failed_requests.apply()
        image_urls.apply()
        max_tokens.apply()
        request_fields.apply()
        request_formats.apply()
        served_records.apply()
        stopped_engine.apply()
    original(self, vllm_config, *args, **kwargs)


def apply() -> None:
    wrap(AsyncLLM, "__init__", _init)
