"""What another package brings: policies, a probe and a rule, found through entry points, their settings checked."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from third_party import ATTENDED, EXAMPLE, PATHS, SHARE, SLIDING, install


def python(folder: Path, code: str) -> subprocess.CompletedProcess:
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), *PATHS])}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=300)


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
from vllm_dllm.catalogue import options
from vllm_dllm.settings import resolve
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
    result = python(tmp_path, "from vllm_dllm.catalogue import options; options()")
    assert result.returncode and words in result.stderr, result.stderr
