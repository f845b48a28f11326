"""The `--dllm-*` flags of `vllm serve`, through vLLM's own parser; one real command where that is the point."""

import json
import os
import subprocess
import sys

import pytest
import yaml
from common import CHECKPOINTS
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser

from vllm_dllm.catalogue import GEN_LENGTH, options
from vllm_dllm.options import SettingError
from vllm_dllm.vllm_messages import BLOCK, HIDDEN_CACHE, PROBE

MODEL = str(CHECKPOINTS / "tiny-llada")
FLAGS = [option for option in options().values() if not option.request_only]


@pytest.fixture(scope="module")
def parser():
    return make_arg_parser(FlexibleArgumentParser())


def engine_args(parser, *arguments: str) -> AsyncEngineArgs:
    """As `vllm serve` does it."""
    args = parser.parse_args(list(arguments))
    args.model = args.model_tag or args.model
    return AsyncEngineArgs.from_cli_args(args)


@pytest.fixture
def settings(parser):
    """What a command line makes of `additional_config`."""

    def parse(*flags: str) -> dict:
        return engine_args(parser, MODEL, *flags).additional_config

    return parse


def refusal(parser, capsys, *flags: str) -> str:
    with pytest.raises(SystemExit) as end:
        parser.parse_args([MODEL, *flags])
    assert end.value.code == 2
    return capsys.readouterr().err


def test_help_lists_every_flag():
    """`vllm serve --help=all`, the command itself, and so with the plugin found by its entry point."""
    command = os.path.join(os.path.dirname(sys.executable), "vllm")
    done = subprocess.run([command, "serve", "--help=all"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0
    assert "DllmConfig" in done.stdout
    for option in FLAGS:
        assert option.flag + " " in done.stdout
    assert "--dllm-config " in done.stdout


def test_help_of_the_group(capsys):
    with pytest.raises(SystemExit) as end:
        make_arg_parser(FlexibleArgumentParser()).parse_args(["--help=DllmConfig"])
    assert end.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for option in FLAGS:
        assert f"{option.flag} " in text
        assert option.allowed.split()[-1] in text
    assert f"Default: {GEN_LENGTH.default}" in text
    assert "(default: None)" not in text


def test_flags(settings):
    assert settings() == {}
    given = settings("--dllm-cache", "none", "--dllm-steps=8", "--dllm_factor", "1.5", "--dllm-gen-length", "64")
    assert given == {"dllm_cache": "none", "dllm_steps": 8, "dllm_factor": 1.5, "dllm_gen_length": 64}
    assert settings("--dllm-scores", "[1, 0.5]") == {"dllm_scores": [1.0, 0.5]}
    assert settings("--dllm-trace", "7") == {"dllm_trace": "7"}, "a text stays a text"


def test_json_of_settings(settings):
    assert settings("--dllm-config", '{"dllm_block_length": 16}') == {"dllm_block_length": 16}
    assert settings("--dllm-config", '{"block_length": 16, "cache": "none"}') == {
        "dllm_block_length": 16,
        "dllm_cache": "none",
    }
    assert settings("--dllm-config.block_length", "16") == {"dllm_block_length": 16}
    # a flag of its own says it more plainly, and counts
    assert settings("--dllm-config", '{"steps": 4}', "--dllm-steps", "8") == {"dllm_steps": 8}


def test_flags_and_additional_config(settings):
    given = settings("--additional-config", '{"dllm_steps": 4, "other": 1}', "--dllm-steps", "8")
    assert given == {"dllm_steps": 8, "other": 1}


def test_config_file(parser, tmp_path):
    file = tmp_path / "serve.yaml"
    file.write_text(yaml.safe_dump({"model": MODEL, "dllm-block-length": 16, "dllm-steps": 8, "port": 9000}))
    args = engine_args(parser, "--config", str(file), "--dllm-steps", "4")
    assert args.additional_config == {"dllm_block_length": 16, "dllm_steps": 4}
    file.write_text(yaml.safe_dump({"model": MODEL, "dllm-config": {"block_length": 8}}))
    assert engine_args(parser, "--config", str(file)).additional_config == {"dllm_block_length": 8}


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--dllm-threshold", "high"], ["dllm_threshold='high'", "a number from 0 to 1"]),
        (["--dllm-threshold", "NaN"], ["dllm_threshold='NaN'", "a number from 0 to 1"]),
        (["--dllm-steps", "1.5"], ["dllm_steps='1.5'", "a whole number of at least 1"]),
        (["--dllm-steps", "true"], ["dllm_steps='true'", "a whole number of at least 1"]),
        (["--dllm-block-length", "0"], ["dllm_block_length='0'", "at least 1"]),
        (["--dllm-gen-length", "-1"], ["dllm_gen_length='-1'", "at least 1"]),
        (["--dllm-cache", "fast"], ["dllm_cache='fast'", "one of none"]),
        (["--dllm-scores", "1,2"], ["dllm_scores='1,2'", "a list of numbers"]),
        (["--dllm-config", "[1]"], ["dllm_config='[1]'", "a JSON object"]),
        (["--dllm-config", "{"], ["dllm_config='{'", "a JSON object"]),
        (["--dllm-foo", "1"], ["--dllm-foo"]),
    ],
    ids=str,
)
def test_bad_values(parser, capsys, flags, words):
    said = refusal(parser, capsys, *flags)
    for word in words:
        assert word in said


def test_flags_reach_the_engine(parser):
    flags = ["--dllm-gen-length", "40", "--dllm-steps", "8", "--dllm-block-length", "8"]
    config = engine_args(parser, MODEL, *flags).create_engine_config()
    named = {"dllm_gen_length": 40, "dllm_steps": 8, "dllm_block_length": 8}
    told = {HIDDEN_CACHE: False, BLOCK: 8, PROBE: None}  # what the worker has to know
    assert config.additional_config == named | told
    assert config.scheduler_config.scheduler_cls == "vllm_dllm.scheduler.DllmScheduler"
    assert config.model_config.get_diff_sampling_param()["max_tokens"] == 40


LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "vocab_size": 64,
    "max_position_embeddings": 128,
    "torch_dtype": "float32",
}


@pytest.mark.parametrize("flags", [["--dllm-steps", "8"], ["--additional-config", '{"dllm_steps": 8}']])
def test_refused_for_another_model(parser, tmp_path, flags):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    arguments = [str(tmp_path), "--skip-tokenizer-init"]
    plain = engine_args(parser, *arguments).create_engine_config()
    assert plain.scheduler_config.scheduler_cls is None, "another model is left as it is"
    with pytest.raises(SettingError, match="dllm_steps=8 is not allowed: .* is no diffusion model"):
        engine_args(parser, *arguments, *flags).create_engine_config()
