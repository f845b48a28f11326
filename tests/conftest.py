"""Engines and servers, started once for all tests: starting one takes half a minute on two cores."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
GOLDEN = Path(__file__).parent / "golden"
CHECKPOINTS = ROOT / "checkpoints"
sys.path += [str(GOLDEN), str(CHECKPOINTS)]

# one small engine of each kind, in float32: what the golden files were written in
ENGINE = {"dtype": "float32", "max_model_len": 512, "kv_cache_memory_bytes": 1 << 28}


def golden(model: str, source: str) -> list[dict]:
    """The cases of one golden file."""
    return json.loads((GOLDEN / f"{model}.{source}.json").read_text())


class Engine:
    """An offline engine and the trace it writes."""

    def __init__(self, model: str, trace: Path, **arguments):
        from vllm import LLM

        self.trace_file = trace
        self.trace_file.touch()
        settings = {"dllm_trace": str(trace)} | arguments.pop("additional_config", {})
        self.llm = LLM(str(CHECKPOINTS / model), additional_config=settings, **(ENGINE | arguments))
        self.traced = 0

    def generate(self, prompts, params):
        """`LLM.generate` without a progress bar, and then the integrity check."""
        outputs = self.llm.generate(prompts, params, use_tqdm=False)
        self.check_integrity()
        return outputs

    def check_integrity(self) -> None:
        """Raises if a request or a KV block was left behind."""
        self.llm.llm_engine.engine_core.call_utility("check_integrity")

    def new_traces(self) -> dict[str, dict]:
        """The trace lines written since the last call, by the request id that `generate` returns."""
        lines = self.trace_file.read_text().splitlines()
        fresh, self.traced = lines[self.traced :], len(lines)
        # vLLM appends a random part to the ids it works with
        return {line["request_id"].rsplit("-", 1)[0]: line for line in map(json.loads, fresh)}


@pytest.fixture(scope="session")
def llada(tmp_path_factory) -> Iterator[Engine]:
    yield Engine("tiny-llada", tmp_path_factory.mktemp("llada") / "trace.jsonl")


@pytest.fixture(scope="session")
def dream(tmp_path_factory) -> Iterator[Engine]:
    yield Engine("tiny-dream", tmp_path_factory.mktemp("dream") / "trace.jsonl")
