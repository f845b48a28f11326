"""An engine in this process, stepped by hand."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vllm import LLM, SamplingParams

NUMBERS = itertools.count()


def start(folder: Path, more: dict, **arguments: Any):
    """vLLM's engine (`LLMEngine`) with one process for all of it, and room for every policy of ours."""
    ours: dict[str, Any] = {
        "skip_tokenizer_init": True,
        "additional_config": {"dllm_hidden_cache": True},
        "distributed_executor_backend": "uni",
        "kv_cache_memory_bytes": 1 << 28,
        "gpu_memory_utilization": 0.1,  # so much has to be free at least
    }
    return LLM(str(folder), **(ours | arguments | more)).llm_engine


def submit(engine, prompts: Sequence[list[int]], response: int, settings: dict) -> list[str]:
    """Requests that decode `response` tokens, EOS or not. Their ids."""
    params = SamplingParams(temperature=0, max_tokens=response, ignore_eos=True, detokenize=False, extra_args=settings)
    ids = [f"{next(NUMBERS)}" for _ in prompts]
    for name, prompt in zip(ids, prompts, strict=True):
        engine.add_request(name, {"prompt_token_ids": prompt}, params)
    return ids


def stop(engine, ids: list[str]) -> None:
    """Abort those of the requests that are still running."""
    engine.abort_request(ids)
    while engine.has_unfinished_requests():
        engine.step()
