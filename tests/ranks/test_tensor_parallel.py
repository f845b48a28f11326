"""Two ranks, each with half of the heads: the same tokens and the same passes as with one.

Over the executor for several processes. test_killed_rank.py asks servers of tiny-dream the same, over both executors,
before it kills a rank; test_two_nodes.py asks one of tiny-llada over Ray.
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
from vllm import SamplingParams

from vllm_dllm.engine_config import BIND, THREADS

RANKS = 2
HIDDEN = {"dllm_hidden_cache": True}  # so that requests may choose elastic
LAYERS, WIDTH, VOCABULARY, SIZE = 6, 128, 128, 4  # of tiny-llada in float32


@pytest.fixture(scope="module")
def llada(tmp_path_factory) -> Iterator[Engine]:
    """Two processes of this machine, whose workers can be looked into."""
    with pytest.MonkeyPatch.context() as patch:  # the engine's processes inherit the path
        for folder in (Path(__file__).parent, ROOT / "benchmarks"):
            patch.syspath_prepend(str(folder))
        more = {"tensor_parallel_size": RANKS, "distributed_executor_backend": "mp", "additional_config": HIDDEN}
        more["worker_extension_cls"] = "looking_in.LookingIn"
        trace = tmp_path_factory.mktemp("llada") / "trace.jsonl"
        # several ranks leave their mark on the environment: engine_config.share_cores
        with mock.patch.dict(os.environ, {BIND: "nobind"}):  # as a user may set it; the other engines are without
            engine = Engine("tiny-llada", trace, **more)
        with closing(engine):
            yield engine


def test_golden(llada, sampling):
    """A case of each policy of each golden file in one go, 16 running at any time, policies and settings mixed, and
    likelihoods among them."""
    batch = sample("tiny-llada", sampling)
    sampling.check(together(llada, likelihood_cases.sample("tiny-llada", sampling, 3), batch, sampling.seed))


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


def test_ranks_collect_their_garbage(llada):
    """Which they did not while they started: patches/quick_start.py."""
    assert llada.llm.collective_rpc("collects") == [True] * RANKS


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
