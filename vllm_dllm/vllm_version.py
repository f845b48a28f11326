"""Which vLLM this package works with."""

SUPPORTED = "0.32"


def check_vllm() -> None:
    """Raise RuntimeError on a vLLM whose code this package does not know."""
    import vllm

    if vllm.__version__.split(".")[:2] != SUPPORTED.split("."):
        raise RuntimeError(
            f"vllm-dllm does not work with vllm {vllm.__version__}: it must be {SUPPORTED}.x (pip install 'vllm=={SUPPORTED}.*')"
        )
