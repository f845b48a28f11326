"""The layers with torch.compile, as the user may ask: the same tokens and passes."""

import random
import shutil
from contextlib import closing

import pytest
from common import Engine
from golden_cases import differences, sample


@pytest.mark.skipif(shutil.which("g++") is None, reason="Inductor needs a C++ compiler")
def test_golden_cases(tmp_path, sampling):
    """Policies mixed, 16 running at any time. The cases that look into layers run those one by one, as ever."""
    batch = sample("tiny-llada", sampling, 1 / 30)
    random.Random(sampling.seed).shuffle(batch)
    compiled = {"mode": "VLLM_COMPILE"}
    with closing(
        Engine(
            "tiny-llada",
            tmp_path / "trace.jsonl",
            compilation_config=compiled,
            additional_config={"dllm_hidden_cache": True},
        )
    ) as engine:
        config = engine.llm.llm_engine.vllm_config.compilation_config
        assert config.mode.name == "DYNAMO_TRACE_ONCE" and config.backend == "inductor"
        sampling.check(differences(engine, batch))
