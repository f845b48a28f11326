"""The server's own HTTP routes are there without being asked for.

What: a server of one of our models attaches the routes of vllm_dllm.endpoints beside vLLM's own, as endpoint plugins.
Why: vLLM loads endpoint plugins only where VLLM_PLUGINS names them, and then nothing but what it names. These are part
  of what serving such a model means, as vLLM's routes are, and are behind --api-key as they are.
Applied: by server.py.
Checked on: vLLM 0.32.0; the source of 0.33.0.
Until: an endpoint plugin can say for which models it is to be loaded.
"""

from vllm import plugins

from vllm_dllm.patches.wrap import wrap


def _load_endpoint_plugins(original, supported_tasks=None):
    from vllm_dllm.endpoints import ENDPOINTS  # imports the server's protocols

    return [*original(supported_tasks), *(endpoint() for endpoint in ENDPOINTS)]


def apply() -> None:
    """For a process that serves one of our models."""
    wrap(plugins, "load_endpoint_plugins", _load_endpoint_plugins)
