"""LLaDA-V over two ranks, tower and all, in a real engine: the authors' tokens and passes, 16 requests at once."""

import random
from contextlib import closing

from common import Engine
from golden_cases import differences, sample


def test_golden(tmp_path, sampling):
    ranks = {"tensor_parallel_size": 2, "distributed_executor_backend": "mp"}
    batch = sample("tiny-llada-v", sampling, 0.4)
    random.Random(sampling.seed).shuffle(batch)
    with closing(Engine("tiny-llada-v", tmp_path / "trace.jsonl", **ranks)) as engine:
        sampling.check(differences(engine, batch))
