"""`--model_args` of `python -m vllm_dllm.lm_eval`, and the commands of docs/evaluation.md."""

import re
import shlex
import subprocess
import sys

import pytest
from common import ROOT

from vllm_dllm.lm_eval.arguments import read
from vllm_dllm.options import SettingError
from vllm_dllm.settings import ModelTraits, ServerSettings

LLADA, DREAM = ModelTraits(1, 0, "llada"), ModelTraits(1, -1, "dream")


@pytest.mark.parametrize(
    "given, message",
    [
        ({}, "pretrained and base_url are missing"),
        ({"estimator": "elbo"}, "estimator='elbo' is not allowed: it must be one of chain, mc"),
        ({"estimator": "chain", "mc_num": 16}, "mc_num=16 is not allowed with estimator=chain"),
        ({"estimator": "chain", "strata": 16}, "strata=16 is not allowed with estimator=chain"),
        ({"mc_num": 0}, "mc_num=0 is not allowed: it must be a whole number of at least 1"),
        ({"mc_num": 100, "strata": 32}, "strata=32 is not allowed with mc_num=100: it must divide it"),
        ({"greedy": "yes"}, "greedy='yes' is not allowed: it must be true or false"),
        ({"cache": "duel"}, "dllm_cache='duel' is not allowed: it must be one of none, prefix"),
        ({"dllm_template": "a"}, "dllm_template='a' is not allowed in --model_args"),
        ({"banana": 1}, "banana=1 is not an argument: there are pretrained"),
        ({"num_concurrent": 2}, "num_concurrent=2 is not allowed without base_url"),
        ({"base_url": "u", "tensor_parallel_size": 2}, "tensor_parallel_size=2 is not allowed with base_url"),
        ({"base_url": "u", "trace": "f"}, "dllm_trace='f' is not allowed with base_url: it is the server's setting"),
    ],
)
def test_refusals(given, message):
    given = given if not given or "base_url" in given else {"pretrained": "x", **given}
    with pytest.raises(SettingError, match=re.escape(message)):
        read(given)


def test_each_argument_finds_its_place():
    given = {
        "pretrained": "x",
        "cache": "dual",
        "dllm_steps": 8,
        "temperature": 0.5,
        "dtype": "float32",
        "batch_size": 4,
    }
    found = read(given)
    assert found.settings == {"dllm_cache": "dual", "dllm_steps": 8}
    assert (found.sampling, found.engine) == ({"temperature": 0.5}, {"dtype": "float32"})


@pytest.mark.parametrize(("mc_num", "strata"), [(128, 32), (1, 1), (100, 25), (7, 7), (37, 1)])
def test_draws_are_spread_over_the_authors_batch_where_it_divides_them(mc_num, strata):
    asked = read({"pretrained": "x", "mc_num": mc_num}).asked()
    assert asked == {"estimator": "mc", "greedy": False, "mc_num": mc_num, "strata": strata, "seed": 1234}


def test_a_model_that_is_causal_by_blocks_is_asked_by_the_chain():
    """Unless draws are asked for, which the engine then refuses by name."""
    assert read({"pretrained": "x"}).asked("blocks") == {"estimator": "chain", "greedy": False}
    assert read({"pretrained": "x"}).asked()["estimator"] == "mc"
    assert read({"pretrained": "x", "mc_num": 8}).asked("blocks")["estimator"] == "mc"


def commands() -> list[str]:
    """Each command of docs/evaluation.md, with what its variables stand for."""
    variables, found = {}, []
    for line in (ROOT / "docs" / "evaluation.md").read_text().splitlines():
        if assigned := re.match(r"    ([A-Z])=(.*)", line):
            variables[assigned[1]] = assigned[2]
        elif line.startswith("    $EVAL "):
            found.append(re.sub(r"\$([A-Z])\b", lambda m: variables[m[1]], line.strip()))
    return found


@pytest.mark.parametrize("command", commands(), ids=lambda c: c.partition("--tasks ")[2][:60])
def test_the_documents_commands_are_accepted(command):
    """By the harness's parser, by ours, and with the length that they ask for."""
    from lm_eval._cli.harness import HarnessCLI

    words = shlex.split(command.replace("$EVAL", "run --model vllm-dllm"))
    given = HarnessCLI()._parser.parse_args(words).model_args
    found = read(given)
    settings = ServerSettings(found.settings, DREAM if "Dream" in found.pretrained else LLADA).defaults
    if found.gen_length:
        settings.check_canvas(found.gen_length)
        assert found.settings["dllm_steps"] == found.gen_length < found.engine["max_model_len"]
    else:
        assert found.asked()["mc_num"] % found.asked()["strata"] == 0


def test_without_the_harness_the_command_says_what_to_install():
    code = "import sys; sys.modules['lm_eval'] = None; sys.argv = ['x']; from vllm_dllm.lm_eval.__main__ import main; main()"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 1 and "pip install 'vllm-dllm[lm-eval]'" in ended.stderr
