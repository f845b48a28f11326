"""Changes to vLLM's own behaviour, one file each: what, why, the versions it was checked on, until when.

| file | what |
| --- | --- |
| admission.py | requests for our models are checked, and get their response length, where they arrive |
| command_line.py | `--dllm-*` flags |
| dead_engine.py | a server whose engine died ends with status 1 |
| early_refusals.py | a streamed request that is refused gets HTTP 400 too |
| integrity.py | the engine answers `check_integrity`, for tests |
| max_tokens.py | a request's own `max_tokens` reaches the engine |
| misplaced_settings.py | a `dllm_*` setting in the wrong place of a request is refused |
| ray_cpu.py | ranks on CPUs through Ray |
| server.py | the patches of the API server's own code are applied where a server for our models starts |
| shared_memory.py | what ranks share in memory leaves nothing behind, however they end |
| stopped_engine.py | requests that wait when a server is stopped are answered |
"""


def apply() -> None:
    """Apply what a process of any kind may need; harmless for other models. May be called more than once."""
    from vllm_dllm.patches import admission, command_line, integrity, server

    admission.apply()
    command_line.apply()
    integrity.apply()
    server.apply()
