from setuptools import setup

setup(
    name="sliding-policy",
    version="0.2.0",
    description="For vllm-dllm: a KV-cache policy, one with a probe of its own, and an unmasking rule",
    py_modules=["sliding_policy", "attended_policy", "attended_worker", "share_rule"],
    install_requires=["vllm-dllm"],
    # what makes them `--dllm-cache sliding`, `--dllm-cache attended` and `--dllm-share`, in every process of vLLM's
    entry_points={
        "vllm_dllm.cache_policies": ["sliding = sliding_policy:Sliding", "attended = attended_policy:MostAttended"],
        "vllm_dllm.unmasking_rules": ["share = share_rule:Share"],
    },
)
