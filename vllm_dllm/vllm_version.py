"""Which vLLM this package works with.

A version is told by its number, which costs nothing at a start. What of another version does not fit,
`tools/seams.py` lists from its source; and where a version with a number of these differs all the same, an import
fails, or patches/wrap.py refuses the function by name.
"""

RUN = ("0.32",)  # the tests have run on it
READ = ("0.33",)  # its source fits, by tools/seams.py and by reading what has changed; nobody has run it yet


def number() -> str:
    import vllm

    return ".".join(vllm.__version__.split(".")[:2])


def check_vllm() -> None:
    """Raise RuntimeError on a vLLM whose code this package does not know."""
    import vllm

    if number() not in (*RUN, *READ):
        known = " or ".join(f"{n}.x" for n in (*RUN, *READ))
        raise RuntimeError(
            f"vllm-dllm does not work with vllm {vllm.__version__}: it must be {known} (pip install 'vllm=={RUN[-1]}.*'; "
            "`python tools/seams.py` in vllm-dllm's repository lists what does not fit another one)"
        )


def note_vllm() -> None:
    """A line in the log on a vLLM that nobody has run this package with; for when vLLM has set up its log."""
    import vllm
    from vllm.logger import init_logger

    if number() in READ:
        logger = init_logger(f"vllm.{__name__}")  # below vLLM's own, which has the handler and the level
        logger.info("vLLM %s: vllm-dllm was checked against its source, not run", vllm.__version__)
