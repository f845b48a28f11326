"""Models whose attention is causal by blocks, cut over two ranks: the authors' tokens and passes, 16 requests at once."""

from contextlib import closing

from causal_cases import differences
from common import Engine, golden
from sampling import Sampling


def test_golden(tmp_path, sampling: Sampling):
    """LLaDA2.0, whose q, k and v are one weight, and whose experts are cut too; both of its caches."""
    ranks = {"tensor_parallel_size": 2, "distributed_executor_backend": "mp"}
    cases = sampling.take(golden("tiny-llada2", "llada2"), lambda case: case["block_length"], least=8)
    with closing(Engine("tiny-llada2", tmp_path / "trace.jsonl", **ranks)) as engine:
        assert not differences(engine, cases)
        assert not differences(engine, cases, dllm_cache="block")
