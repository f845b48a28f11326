"""Experts cut over two ranks, in a real engine: the authors' tokens and passes, 16 requests at once."""

import random
from collections.abc import Iterator
from contextlib import closing

import pytest
from common import Engine
from golden_cases import differences, sample
from sampling import Sampling
from vllm import SamplingParams


@pytest.fixture(scope="module")
def experts(tmp_path_factory) -> Iterator[Engine]:
    ranks = {"tensor_parallel_size": 2, "distributed_executor_backend": "mp"}
    hidden = {"dllm_hidden_cache": True}  # so that requests may choose elastic
    trace = tmp_path_factory.mktemp("experts") / "trace.jsonl"
    with closing(Engine("tiny-llada-moe", trace, additional_config=hidden, **ranks)) as engine:
        yield engine


def test_golden(experts, sampling: Sampling):
    batch = sample("tiny-llada-moe", sampling, least=10)
    random.Random(sampling.seed).shuffle(batch)
    sampling.check(differences(experts, batch))


PROBES = [
    {"dllm_cache": "elastic", "dllm_threshold": 0.6},
    {"dllm_cache": "d2", "dllm_threshold": 0.6, "dllm_block_length": 16},
]


def test_probes_see_all_ranks_heads(experts):
    """What they decide by is added up over the ranks: the same alone and with others."""
    prompt = {"prompt_token_ids": list(range(8, 40))}
    params = [SamplingParams(temperature=0, max_tokens=48, ignore_eos=True, extra_args=s) for s in PROBES]
    together = experts.run([prompt] * 4, [*params, *params])
    for first, second in zip(together[:2], together[2:], strict=True):
        assert first[0].outputs[0].token_ids == second[0].outputs[0].token_ids
    for wanted, (output, trace) in zip(params, together, strict=False):
        ((alone, alone_trace),) = experts.run([prompt], [wanted])
        assert alone.outputs[0].token_ids == output.outputs[0].token_ids
        assert alone_trace["query_tokens"] == trace["query_tokens"]
