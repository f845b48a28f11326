"""Golden cases by an engine with xformers' attention, in Triton's interpreter. Run by test_split_k.py.

The smallest cases of some policies at once, one of which reads keys from the pages.
"""

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

TESTS = Path(__file__).parent.parent
sys.path += [str(TESTS), str(TESTS / "golden"), str(TESTS.parent / "checkpoints")]

from common import Engine  # noqa: E402
from golden_cases import Case, cases, differences  # noqa: E402

POLICIES = ("none", "dual", "elastic")


def smallest(policy: str) -> Case:
    """Of those with four passes or more, the one with the fewest over the shortest canvas."""
    of_policy = [c for c in cases("tiny-llada") if c.settings["dllm_cache"] == policy and c.case.get("passes", 0) >= 4]
    return min(of_policy, key=lambda c: c.case["passes"] * (len(c.case["prompt_ids"]) + c.max_tokens))


def backend(model) -> str:
    return model.model.layers[0].self_attn.attn.attn_backend.__name__


def main() -> None:
    os.environ["VLLM_ALLOW_INSECURE_SERIALIZATION"] = "1"  # a function goes to the worker
    settings = {"dllm_hidden_cache": True}
    with TemporaryDirectory() as folder:
        trace = Path(folder) / "trace"
        engine = Engine("tiny-llada", trace, attention_backend="CUSTOM", max_model_len=256, additional_config=settings)
        chosen = [smallest(policy) for policy in POLICIES]
        print("attention:", *engine.llm.apply_model(backend))
        print("differences:", differences(engine, chosen))
        print("asked:", len(chosen))
        engine.close()


if __name__ == "__main__":
    main()
