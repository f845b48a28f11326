"""Two ranks, each with half of the heads, over both executors: the same tokens and the same passes as with one."""

import os
import random
from contextlib import closing
from pathlib import Path
from unittest import mock

import pytest
from common import Engine
from golden_cases import check, differences, sample

# elastic can be chosen where there is a hidden-state cache
MODELS = {"tiny-llada": {"additional_config": {"dllm_hidden_cache": True}}, "tiny-dream": {}}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("executor", ["mp", "ray"])
def test_golden(executor, model, request, tmp_path, monkeypatch):
    """Some cases of each policy of each golden file in one go, 16 running at any time, policies and settings mixed."""
    cluster = request.getfixturevalue("cluster").environment if executor == "ray" else {}
    batch = sample(model, seed=4, least=3)
    random.Random(4).shuffle(batch)
    ranks = {"tensor_parallel_size": 2, "distributed_executor_backend": executor}
    monkeypatch.syspath_prepend(str(Path(__file__).parent))  # the engine's processes inherit it
    extension = {"worker_extension_cls": "disagreement.Disagreement"} if executor == "mp" else {}
    with mock.patch.dict(os.environ, cluster):  # several ranks leave their mark on it: see engine_config.share_cores
        with closing(Engine(model, tmp_path / "trace.jsonl", **MODELS[model], **ranks, **extension)) as engine:
            check(differences(engine, batch), len(batch))
            elastic = [c for c in batch if c.settings["dllm_cache"] == "elastic"]
            if elastic and extension:  # ranks that do not agree by themselves: the first one decides for all
                engine.llm.collective_rpc("disagree")
                check(differences(engine, elastic), len(elastic))
