"""`vllm-dllm compare`: which caching policy for these prompts? What it measures with, benchmarks/ measure with too."""
