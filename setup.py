"""The package's metadata is in pyproject.toml; here is what cannot be said there."""

from setuptools import find_packages, setup

setup(
    # The folder patches/ holds every change made to vLLM's own classes.  It
    # lies at the top of the repository, to be found and reviewed at a glance,
    # and is installed inside the plugin's package as vllm_dllm.patches.
    packages=[*find_packages(include=["vllm_dllm*"]), "vllm_dllm.patches"],
    package_dir={"vllm_dllm.patches": "patches"},
)
