"""Golden cases in a real engine whose attention is xformers', in Triton's interpreter. Run by test_split_k.py.

The smallest case of some policies, all at once: prints what is not as it should be, and how many were asked.
"""

import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path += [str(HERE.parent), str(HERE.parent / "golden"), str(HERE.parent.parent / "checkpoints")]

from common import Engine  # noqa: E402
from golden_cases import Case, cases, differences  # noqa: E402

POLICIES = ("none", "dual", "entropy", "elastic", "d2")


def smallest(policy: str) -> Case:
    """Of those that say how many positions they compute, the one with the fewest."""
    of_policy = [case for case in cases("tiny-llada") if case.settings["dllm_cache"] == policy]
    return min((c for c in of_policy if "query_tokens" in c.case), key=lambda c: sum(c.case["query_tokens"]))


if __name__ == "__main__":
    chosen = [smallest(policy) for policy in POLICIES]
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(
            "tiny-llada",
            Path(folder) / "trace.jsonl",
            additional_config={"dllm_hidden_cache": True},
            attention_backend="CUSTOM",
            max_num_batched_tokens=512,
        )
        found = [difference for difference in differences(engine, chosen) if difference]
        engine.close()
    print("differences:", found)
    print("asked:", len(chosen))
