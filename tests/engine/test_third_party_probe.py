"""A policy with a probe, and a rule, of another package, in a real engine."""

import os
import subprocess
import sys

from third_party import ATTENDED, PATHS, SHARE, install


def test_an_engine_serves_a_policy_with_a_probe_and_a_rule(tmp_path):
    """In vLLM's processes: the worker imports the probe's other half, which is in a module of its own."""
    install(tmp_path, ATTENDED, rules=SHARE)
    code = f"""
import sys
from pathlib import Path
from contextlib import closing
from common import MASK, Engine
from vllm import SamplingParams

if __name__ == "__main__":
    with closing(Engine("tiny-llada", Path({str(tmp_path)!r}) / "trace.jsonl")) as engine:
        def ask(**settings):
            extra = {{"dllm_" + k: v for k, v in settings.items()}}
            return SamplingParams(temperature=0, max_tokens=32, ignore_eos=True, extra_args=extra)
        prompt = {{"prompt_token_ids": [2, 3, 75, 87, 93, 86, 92, 8, 27, 28, 4]}}
        params = [ask(cache="attended", attended_k=3, share=0.5, block_length=16), ask(cache="dual", tokens_per_step=4)]
        (a, passes), _ = engine.run([prompt] * 2, params)
        assert passes["attended"][0] and all(len(p) == 3 for p in passes["attended"]), passes
        assert [len(p) for p in passes["unmasked"]] == [8, 4, 2, 1, 1] * 2, passes
        assert passes["query_tokens"][0] == passes["query_tokens"][5] == 43, passes
        assert all(n <= 8 + 8 + 3 for i, n in enumerate(passes["query_tokens"]) if i % 5), passes
        assert MASK not in a.outputs[0].token_ids
        print("served", file=sys.stderr)
"""
    (tmp_path / "served.py").write_text(code)
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *PATHS])}
    command = [sys.executable, str(tmp_path / "served.py")]
    result = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert "served\n" in result.stderr and not result.returncode, result.stderr[-3000:]
