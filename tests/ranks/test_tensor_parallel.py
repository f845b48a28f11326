"""Two ranks, each with half of the heads, over both executors: the same tokens and the same passes as with one.

tests/ranks/test_killed_rank.py asks servers of two ranks the same, before it kills one: each model is run over each
executor.
"""

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from unittest import mock

import likelihood_cases
import pytest
import recorded
from common import ROOT, Engine
from golden_cases import differences, sample
from likelihood_cases import together
from sampling import Sampling
from vllm import SamplingParams

from vllm_dllm.engine_config import BIND, THREADS

RANKS = 2
HIDDEN = {"dllm_hidden_cache": True}  # so that requests may choose elastic
LAYERS, WIDTH, VOCABULARY, SIZE = 6, 128, 128, 4  # of tiny-llada in float32


def start(model: str, executor: str, folder: Path, environment: dict[str, str], **more) -> Engine:
    with mock.patch.dict(os.environ, environment):  # several ranks leave their mark on it: engine_config.share_cores
        ranks = {"tensor_parallel_size": RANKS, "distributed_executor_backend": executor}
        return Engine(model, folder / "trace.jsonl", **ranks, **more)


def check_golden(engine: Engine, model: str, sampling: Sampling) -> None:
    """Some cases of each policy of each golden file in one go, 16 running at any time, policies and settings mixed, and
    likelihoods among them."""
    batch = sample(model, sampling, least=2)
    sampling.check(together(engine, likelihood_cases.sample(model, sampling, 3), batch, sampling.seed))


@pytest.fixture(scope="module")
def llada(tmp_path_factory) -> Iterator[Engine]:
    """Two processes of this machine, whose workers can be looked into."""
    with pytest.MonkeyPatch.context() as patch:  # the engine's processes inherit the path
        for folder in (Path(__file__).parent, ROOT / "benchmarks"):
            patch.syspath_prepend(str(folder))
        folder = tmp_path_factory.mktemp("llada")
        more = {"additional_config": HIDDEN, "worker_extension_cls": "looking_in.LookingIn"}
        unbound = {BIND: "nobind"}  # as a user may set it; the other engines are without
        with closing(start("tiny-llada", "mp", folder, unbound, **more)) as engine:
            yield engine


def test_golden(llada, sampling):
    check_golden(llada, "tiny-llada", sampling)


def test_golden_over_ray(cluster, tmp_path, sampling):
    with closing(start("tiny-dream", "ray", tmp_path, cluster.environment, additional_config=HIDDEN)) as engine:
        check_golden(engine, "tiny-dream", sampling)


def test_records(llada):
    """With and without what looks into the attention."""
    asked = [
        SamplingParams(temperature=1.0, max_tokens=32, extra_args={"dllm_record": True, "dllm_cache": name})
        for name in ("none", "elastic")
    ]
    for output, trace in llada.run([{"prompt_token_ids": [2, 3, 75, 4]}] * 2, asked):
        recorded.check(output.outputs[0].dllm_record, trace, output.outputs[0].token_ids)


def test_unbound_ranks_share_the_cores(llada):
    """More on how many threads they get: test_cores.py."""
    threads = os.environ.get(THREADS) or len(os.sched_getaffinity(0)) // RANKS
    assert llada.llm.collective_rpc("threads") == [max(1, int(threads))] * RANKS


def test_bytes_of_passes(llada):
    """What ranks send each other: so much for each query token and row, whatever the canvas's length."""
    from communication import passes_of_request

    for canvas_len in (128, 512):
        passes = passes_of_request(llada.llm, canvas_len)
        # 8 of 32 positions are unmasked in each pass, and those that are still masked are read
        for step, (query_tokens, rows) in zip(passes, [(canvas_len, 32), (32, 24), (32, 16), (32, 8)], strict=True):
            assert step == {
                "query_tokens": query_tokens,
                "canvas_tokens": canvas_len,
                "rows": rows,
                "layers": LAYERS * 2 * query_tokens * WIDTH * SIZE,
                "embedding": query_tokens * WIDTH * SIZE,
                "logits": rows * VOCABULARY // RANKS * SIZE,
                "other": 0,
            }


def test_the_first_rank_decides_where_ranks_do_not_agree(llada, sampling):
    """The last test of this engine."""
    llada.llm.collective_rpc("disagree")
    elastic = [c for c in sample("tiny-llada", sampling, least=3) if c.settings["dllm_cache"] == "elastic"]
    assert elastic
    sampling.check(differences(llada, elastic))
