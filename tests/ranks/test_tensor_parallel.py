"""Two ranks, each with half of the heads, over both executors: the same tokens and the same passes as with one."""

import os
import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from unittest import mock

import pytest
from common import ROOT, Engine
from golden_cases import check, differences, sample

RANKS = 2
# elastic can be chosen where there is a hidden-state cache
MODELS = {"tiny-llada": {"additional_config": {"dllm_hidden_cache": True}}, "tiny-dream": {}}
LAYERS, WIDTH, VOCABULARY, SIZE = 6, 128, 128, 4  # of tiny-llada in float32


def start(model: str, executor: str, folder: Path, environment: dict[str, str], **more) -> Engine:
    with mock.patch.dict(os.environ, environment):  # several ranks leave their mark on it: engine_config.share_cores
        ranks = {"tensor_parallel_size": RANKS, "distributed_executor_backend": executor}
        return Engine(model, folder / "trace.jsonl", **MODELS[model], **ranks, **more)


def check_golden(engine: Engine, model: str) -> None:
    """Some cases of each policy of each golden file in one go, 16 running at any time, policies and settings mixed."""
    batch = sample(model, seed=4, least=3)
    random.Random(4).shuffle(batch)
    check(differences(engine, batch), len(batch))


@pytest.fixture(scope="module")
def llada(tmp_path_factory) -> Iterator[Engine]:
    """Two processes of this machine, whose workers can be looked into."""
    with pytest.MonkeyPatch.context() as patch:  # the engine's processes inherit the path
        for folder in (Path(__file__).parent, ROOT / "benchmarks"):
            patch.syspath_prepend(str(folder))
        folder = tmp_path_factory.mktemp("llada")
        with closing(start("tiny-llada", "mp", folder, {}, worker_extension_cls="looking_in.LookingIn")) as engine:
            yield engine


def test_golden_llada(llada):
    check_golden(llada, "tiny-llada")


def test_golden_dream(tmp_path):
    with closing(start("tiny-dream", "mp", tmp_path, {})) as engine:
        check_golden(engine, "tiny-dream")


@pytest.mark.parametrize("model", MODELS)
def test_golden_over_ray(model, cluster, tmp_path):
    with closing(start(model, "ray", tmp_path, cluster.environment)) as engine:
        check_golden(engine, model)


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


def test_the_first_rank_decides_where_ranks_do_not_agree(llada):
    """The last test of this engine."""
    llada.llm.collective_rpc("disagree")
    elastic = [c for c in sample("tiny-llada", seed=4, least=3) if c.settings["dllm_cache"] == "elastic"]
    assert elastic
    check(differences(llada, elastic), len(elastic))
