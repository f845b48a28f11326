"""What another package brings: policies, a probe and a rule, found through entry points, their settings checked."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from common import GOLDEN, ROOT

EXAMPLE = ROOT / "examples" / "third_party_policy"
PATHS = [str(ROOT / "checkpoints"), str(ROOT / "tests"), str(GOLDEN), str(Path(__file__).parent)]


def install(folder: Path, entry_points: str, module: str | None = None, rules: str = "") -> None:
    """What pip leaves of a package in `folder`: its metadata and its modules."""
    info = folder / "sliding_policy-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sliding-policy\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text(
        f"[vllm_dllm.cache_policies]\n{entry_points}\n[vllm_dllm.unmasking_rules]\n{rules}\n"
    )
    for file in EXAMPLE.glob("*_*.py"):
        (folder / file.name).write_text(file.read_text())
    if module is not None:
        (folder / "sliding_policy.py").write_text(module)


def python(folder: Path, code: str) -> subprocess.CompletedProcess:
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), *PATHS])}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=300)


SLIDING, ATTENDED, SHARE = (
    "sliding = sliding_policy:Sliding",
    "attended = attended_policy:MostAttended",
    "share = share_rule:Share",
)


def test_the_examples_entry_points_are_those_tested_here():
    setup = (EXAMPLE / "setup.py").read_text()
    assert f'"vllm_dllm.cache_policies": ["{SLIDING}", "{ATTENDED}"]' in setup
    assert f'"vllm_dllm.unmasking_rules": ["{SHARE}"]' in setup


@pytest.mark.parametrize("first", ["import vllm_dllm.settings", "import sliding_policy"])  # whoever is imported first
def test_a_request_chooses_it(tmp_path, first):
    install(tmp_path, SLIDING)
    code = f"""
{first}
from common import MASK
from dense import decode
from vllm_dllm.settings import options, resolve
from vllm_dllm.options import SettingError

assert options()["dllm_lookback"].default == 16
for model in ("tiny-llada", "tiny-dream"):
    keys = {{"dllm_cache": "sliding", "dllm_lookback": 2, "dllm_tokens_per_step": 1, "dllm_block_length": 8}}
    decoding = decode(model, [9] * 5, 16, keys)
    queries = [p.query_tokens for p in decoding.record]
    assert queries[0] == queries[8] == 21 and all(1 <= n <= 11 for n in queries[1:8] + queries[9:]), queries
    assert MASK not in decoding.canvas.response
    try:
        decode(model, [9], 8, {{"dllm_cache": "dual", "dllm_lookback": 2}})
    except SettingError as e:
        assert "dllm_lookback=2 is not read by dllm_cache=dual" in str(e)
    else:
        raise SystemExit("not refused")
print("decoded")
"""
    result = python(tmp_path, code)
    assert result.stdout.endswith("decoded\n"), result.stderr


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


OTHER_BASE = "class Sliding: name = 'sliding'\n"
BROKEN = "import a_module_that_nobody_has\n"
NAME_TAKEN = "from vllm_dllm.caching import CachePolicy\nclass Sliding(CachePolicy): name = 'dual'\n"
OPTION_TAKEN = """
from vllm_dllm.caching import CachePolicy
from vllm_dllm.options import Option
class Sliding(CachePolicy):
    name = "sliding"
    options = (Option("threshold", str, "", "another threshold"),)
"""


@pytest.mark.parametrize(
    ("point", "module", "words"),
    [
        ("sliding", OTHER_BASE, "sliding = sliding_policy:Sliding of vllm_dllm.cache_policies is not a subclass"),
        ("sliding", BROKEN, "sliding = sliding_policy:Sliding of vllm_dllm.cache_policies cannot be imported"),
        ("other", None, "has another name: sliding"),
        ("dual", NAME_TAKEN, "has a name that is taken"),
        ("sliding", OPTION_TAKEN, "caching policy sliding declares dllm_threshold"),
    ],
)
def test_a_policy_that_cannot_be_registered_is_refused_at_start(tmp_path, point, module, words):
    install(tmp_path, f"{point} = sliding_policy:Sliding", module)
    result = python(tmp_path, "from vllm_dllm.settings import options; options()")
    assert result.returncode and words in result.stderr, result.stderr
