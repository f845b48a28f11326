from setuptools import setup

setup(
    name="sliding-policy",
    version="0.1.0",
    description="A KV-cache policy for vllm-dllm: a window behind the masked positions",
    py_modules=["sliding_policy"],
    install_requires=["vllm-dllm"],
    # what makes it `--dllm-cache sliding`, in every process of vLLM's
    entry_points={"vllm_dllm.cache_policies": ["sliding = sliding_policy:Sliding"]},
)
