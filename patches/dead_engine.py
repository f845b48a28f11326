"""A server whose engine died exits with status 1.

What: in a server of one of our models, where vLLM's server has ended without having been told to, and its engine is
  dead, the process ends with status 1, and says so in the log.
Why: vLLM answers the waiting requests and ends everything, but with status 0, as if it had been told to stop: a
  service manager that restarts what failed does not restart it (vllm-project/vllm issue 48966).
Applied: by server.py.
Checked on: vLLM 0.32.0; the source of 0.33.0.
Until: vllm-project/vllm issue 48966 is closed.
"""

from vllm.logger import init_logger

from vllm_dllm.patches.wrap import wrap

logger = init_logger(f"vllm.{__name__}")


async def _build_and_serve(original, engine_client, *args, **kwargs):
    told_to_stop = False
    shutdown = engine_client.shutdown

    def note_and_shutdown(*args, **kwargs):
        nonlocal told_to_stop
        told_to_stop = True  # a signal: nothing else ends the engine while the server runs
        return shutdown(*args, **kwargs)

    engine_client.shutdown = note_and_shutdown
    rest = await original(engine_client, *args, **kwargs)
    if engine_client.errored and not told_to_stop:
        logger.error("The engine died; the server ends with status 1.")
        await rest
        raise SystemExit(1)
    return rest


def apply() -> None:
    """For a process that is about to serve one of our models."""
    from vllm.entrypoints.launchers.api_server import entry

    wrap(entry, "build_and_serve", _build_and_serve)
