"""Golden cases by xformers' attention, in Triton's interpreter. Run by test_split_k.py.

Scheduler and model runner in one process, step by step: the smallest cases of two policies at once, one of which reads
keys from the pages. Prints whose canvas is not the file's, and how many were asked.
"""

import sys
from pathlib import Path

HERE = Path(__file__).parent
TESTS = HERE.parent
sys.path += [str(TESTS), str(TESTS / "models"), str(TESTS / "golden"), str(TESTS.parent / "checkpoints")]

import torch  # noqa: E402
from common import CHECKPOINTS, EOS  # noqa: E402
from golden_cases import Case, cases  # noqa: E402
from loaded import PAGE, Loaded, one_rank  # noqa: E402
from vllm.config import set_current_vllm_config  # noqa: E402
from vllm.v1.request import Request  # noqa: E402
from vllm.v1.structured_output import StructuredOutputManager  # noqa: E402

from vllm_dllm.patches import cpu_attention  # noqa: E402

POLICIES = ("dual", "elastic")


def smallest(policy: str) -> Case:
    """Of those with four passes or more, the one with the fewest over the shortest canvas."""
    of_policy = [c for c in cases("tiny-llada") if c.settings["dllm_cache"] == policy and c.case.get("passes", 0) >= 4]
    return min(of_policy, key=lambda c: c.case["passes"] * (len(c.case["prompt_ids"]) + c.max_tokens))


def answers(loaded: Loaded, chosen: list[Case]) -> list[list[int]]:
    """Each case's whole response."""
    from vllm_dllm.scheduler import DllmScheduler

    caches = loaded.runner.kv_cache_config
    loaded.config.cache_config.num_gpu_blocks = caches.num_blocks
    scheduler = DllmScheduler(loaded.config, caches, StructuredOutputManager(loaded.config), block_size=PAGE)
    for i, case in enumerate(chosen):
        params = case.params
        params.stop_token_ids = [EOS] if case.ends_at_eos else []
        scheduler.add_request(Request(str(i), case.case["prompt_ids"], params, None))
    decodings = {}
    with set_current_vllm_config(loaded.config):
        while scheduler.requests:
            step = scheduler.schedule()
            decodings |= {i: running.decoding for i, running in scheduler.active.items()}
            scheduler.update_from_output(step, loaded.runner.run(step.batch, list(step.num_scheduled_tokens)))
    return [decodings[str(i)].canvas.response.tolist() for i in range(len(chosen))]


if __name__ == "__main__":
    torch.set_num_threads(1)
    cpu_attention.apply()
    chosen = [smallest(policy) for policy in POLICIES]
    settings = {"dllm_hidden_cache": True}
    with one_rank():
        loaded = Loaded(
            CHECKPOINTS / "tiny-llada",
            attention_backend="CUSTOM",
            max_model_len=256,
            max_num_batched_tokens=1024,
            additional_config=settings,
        )
        assert loaded.runner.attn_groups[0][0].backend.__name__ == "SplitKBackend"
        got = answers(loaded, chosen)
    print("differences:", [str(c) for c, ids in zip(chosen, got, strict=True) if ids != c.case["output_ids"]])
    print("asked:", len(chosen))
