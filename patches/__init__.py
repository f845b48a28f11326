"""Changes to vLLM's own behaviour, one file each: what, why, the versions it was checked on, until when.

| file | what |
| --- | --- |
| integrity.py | the engine answers `check_integrity`, for tests |
"""


def apply() -> None:
    """Apply every patch that a process of any kind may need. May be called more than once."""
    from vllm_dllm.patches import integrity

    integrity.apply()
