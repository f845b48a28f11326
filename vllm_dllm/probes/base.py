"""A probe: a look into the attention of a pass. This is what is asked; worker.py beside it says who measures it.

policy.probe(canvas) --> Probe --(batch)--> WorkerProbe, in each layer --(signals, by name)--> policy.observe
"""

from typing import ClassVar


class Probe:
    """The scheduler's half: what one request's pass is asked to measure. A picklable, frozen dataclass of numbers and
    arrays, which imports neither PyTorch nor vLLM. It crosses to the worker in the batch, under its name."""

    name: ClassVar[str]
    worker: ClassVar[str]  # "module:class", its other half (a `WorkerProbe`), imported in the worker alone
    needs_hidden: ClassVar[bool] = False  # the worker keeps every layer's inputs (`dllm_hidden_cache`)
    widens: ClassVar[bool] = False  # it may have the rest of a pass compute the whole canvas; needs `needs_hidden`
