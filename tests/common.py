"""What tests share: where the checkpoints and golden files are, and an offline engine with its trace."""

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
GOLDEN = Path(__file__).parent / "golden"
CHECKPOINTS = ROOT / "checkpoints"

# one small engine of each kind, in float32: what the golden files were written in
ENGINE = {"dtype": "float32", "max_model_len": 512, "max_num_seqs": 16, "kv_cache_memory_bytes": 1 << 28}

EOS, MASK = 0, 1  # of the bundled checkpoints


def golden(model: str, source: str) -> list[dict]:
    """The cases of one golden file."""
    return json.loads((GOLDEN / f"{model}.{source}.json").read_text())


class Engine:
    """An offline engine and the trace it writes."""

    def __init__(self, model: str, trace: Path, **arguments: Any):
        from vllm import LLM

        self.trace_file = trace
        self.trace_file.touch()
        settings = {"dllm_trace": str(trace)} | arguments.pop("additional_config", {})
        self.llm = LLM(str(CHECKPOINTS / model), additional_config=settings, **(ENGINE | arguments))
        self.traced = 0

    def close(self) -> None:
        self.llm.llm_engine.engine_core.shutdown()

    def generate(self, prompts, params):
        """`LLM.generate` without a progress bar, and then the integrity check."""
        outputs = self.llm.generate(prompts, params, use_tqdm=False)
        self.check_idle()
        return outputs

    def check_integrity(self) -> int:
        """How many requests the scheduler holds. Raises if requests and KV blocks do not agree."""
        return self.llm.llm_engine.engine_core.call_utility("check_integrity")

    def check_idle(self) -> None:
        """Raises if a request or a KV block was left behind."""
        assert self.check_integrity() == 0
        assert not self.llm.llm_engine.has_unfinished_requests()

    def new_traces(self) -> dict[str, dict]:
        """The trace lines written since the last call, by the request id that `generate` returns."""
        lines = self.trace_file.read_text().splitlines()
        fresh, self.traced = lines[self.traced :], len(lines)
        return {line["request_id"]: line for line in map(json.loads, fresh)}

    def run(self, prompts, params) -> list[tuple[Any, dict]]:
        """(output, trace line) of each prompt, for requests with n = 1."""
        self.new_traces()
        outputs = self.generate(prompts, params)
        traces = self.new_traces()
        return [(output, traces[output.request_id]) for output in outputs]
