from setuptools import find_packages, setup

setup(
    name="vllm-dllm",
    version="0.1.0",
    description="Serve diffusion language models (LLaDA, Dream) with vLLM",
    license="Apache-2.0",
    python_requires=">=3.11",
    # The folder patches/ holds every change made to vLLM's own classes.  It
    # lies at the top of the repository, to be found and reviewed at a glance,
    # and is installed inside the plugin's package as vllm_dllm.patches.
    packages=[
        "vllm_dllm",
        *(f"vllm_dllm.{name}" for name in find_packages("vllm_dllm")),
        "vllm_dllm.patches",
    ],
    package_dir={"vllm_dllm.patches": "patches"},
    install_requires=[
        "vllm>=0.32,<0.34",
        "torch",
        "transformers",
    ],
    extras_require={
        "benchmark": ["matplotlib==3.11.2"],
        "cuda": ["xformers"],
        "ray": ["ray"],
        "test": [
            "httpx==0.28.1",
            "mypy==2.4.1",
            "openai==3.54.0",
            "pytest==9.2.0",
            "pytest-timeout==2.4.0",
            "ray[data]==2.60.0",
            "ruff==0.17.6",
            "triton",
        ],
    },
    entry_points={
        # vLLM calls this function in each of its processes as they start, ...
        "vllm.general_plugins": ["dllm = vllm_dllm:register"],
        # ... and makes one of these in each API server.
        "vllm.stat_logger_plugins": ["dllm = vllm_dllm.metrics:DllmStatLogger"],
    },
)
