"""Models whose attention is causal by blocks, cut over two ranks: the authors' tokens and passes, 16 requests at once.

LLaDA2.0's q, k and v are one weight, and its experts are cut too.
"""

from contextlib import closing

import pytest
from causal_cases import differences
from common import Engine, golden
from sampling import Sampling


@pytest.mark.parametrize("model, source, other", [("tiny-sdar", "sdar", "none"), ("tiny-llada2", "llada2", "block")])
def test_golden(model, source, other, tmp_path, sampling: Sampling):
    ranks = {"tensor_parallel_size": 2, "distributed_executor_backend": "mp"}
    cases = sampling.take(golden(model, source), lambda case: case["block_length"], least=6)
    with closing(Engine(model, tmp_path / "trace.jsonl", **ranks)) as engine:
        assert not differences(engine, cases)
        assert not differences(engine, cases[::3], dllm_cache=other)
