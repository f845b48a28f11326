"""What a checkpoint's generation_config.json gives for a request that names nothing: honoured, or set aside with a line."""

import json
from pathlib import Path

import pytest
from loaded import engine_config
from official import LLADA, Checkpoint
from vllm.sampling_params import SamplingParams

from vllm_dllm.models.generation import defaults
from vllm_dllm.starter import end_token_ids
from vllm_dllm.validation import check_request

# as Qwen2.5 models ship it
QWEN = {"max_new_tokens": 16, "temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.05}
LENGTH = 48  # dllm_gen_length here


def configured(path: Path, generation: object = None, config: dict = LLADA, **arguments):
    """vLLM's configuration of a checkpoint with this generation_config.json, text or what JSON makes text of."""
    Checkpoint(LLADA).save(path)
    (path / "config.json").write_text(json.dumps(config))
    if generation is not None:
        text = generation if isinstance(generation, str) else json.dumps(generation)
        (path / "generation_config.json").write_text(text)
    return engine_config(path, additional_config={"dllm_gen_length": LENGTH}, **arguments)


def for_requests(config) -> dict:
    """What vLLM gives to a request that names nothing, which is accepted."""
    given = config.model_config.get_diff_sampling_param()
    params = SamplingParams.from_optional(**given)
    assert check_request(config, params, [2, 3, 4], None).max_tokens == LENGTH
    return given


def test_qwens(tmp_path):
    config = configured(tmp_path, QWEN)
    assert for_requests(config) == {"temperature": 0.7, "top_p": 0.8, "top_k": 20, "max_tokens": LENGTH}
    file = tmp_path / "generation_config.json"
    assert defaults(config.model_config)[1] == [
        f"{file}: max_new_tokens=16 is set aside: the response length is set by dllm_gen_length",
        f"{file}: repetition_penalty=1.05 is set aside: of such defaults a diffusion model has temperature, top_k, top_p",
    ]


HONOURED = [
    {"temperature": 1},
    {"temperature": 0.0},
    {"temperature": 0.5, "top_p": 1.0, "top_k": 0},
    {"temperature": 0.5, "top_k": -1},
]
SET_ASIDE = [
    ("repetition_penalty", 1.2),
    ("repetition_penalty", "high"),
    ("presence_penalty", 0.5),
    ("frequency_penalty", -0.5),
    ("min_p", 0.1),
    ("temperature", -1),
    ("temperature", 3.0),
    ("temperature", float("inf")),
    ("temperature", float("nan")),
    ("temperature", "0.7"),
    ("temperature", True),
    ("temperature", None),
    ("top_p", 2),
    ("top_p", 0),
    ("top_p", [0.8]),
    ("top_k", -5),
    ("top_k", 2.5),
    ("top_k", 2**70),
    ("max_new_tokens", 0),
    ("max_new_tokens", -3),
    ("max_length", 20),
    ("min_new_tokens", 5),
    ("num_beams", 4),
    ("suppress_tokens", [3]),
    ("stop_strings", ["x"]),
    ("a_key_of_nobody", {"a": 1}),
    ("pad_token_id", None),
    ("eos_token_id", None),
    ("eos_token_id", "0"),
    ("eos_token_id", -3),
    ("eos_token_id", 128),
    ("eos_token_id", True),
]
SILENT = {
    "_from_model_config": True,
    "bos_token_id": 2,
    "do_sample": True,
    "eos_token_id": 0,
    "mask_token_id": 1,
    "pad_token_id": 0,
    "repetition_penalty": 1.0,
    "min_p": 0,
    "transformers_version": "4.46.2",
}


@pytest.mark.parametrize("generation", HONOURED, ids=str)
def test_honoured(generation, tmp_path):
    config = configured(tmp_path, generation)
    assert for_requests(config) == generation | {"max_tokens": LENGTH}
    assert defaults(config.model_config)[1] == []


@pytest.mark.parametrize("key, value", SET_ASIDE, ids=str)
def test_set_aside(key, value, tmp_path):
    """And greedy, as without the file."""
    config = configured(tmp_path, {key: value})
    assert for_requests(config) == {"temperature": 0.0, "max_tokens": LENGTH}
    (line,) = defaults(config.model_config)[1]
    assert line.startswith(f"{tmp_path}/generation_config.json: {key}={value!r} is set aside: ")
    assert config.model_config.try_get_generation_config() == {}


def test_nothing_is_said_of_what_changes_nothing(tmp_path):
    config = configured(tmp_path, SILENT)
    assert defaults(config.model_config) == ({"eos_token_id": [0]}, [])
    assert for_requests(config) == {"temperature": 0.0, "max_tokens": LENGTH}


@pytest.mark.parametrize("text", ["{broken", "[1, 2]"])
def test_a_file_that_is_no_object_is_set_aside_whole(text, tmp_path):
    config = configured(tmp_path, text)
    assert for_requests(config) == {"temperature": 0.0, "max_tokens": LENGTH}
    assert defaults(config.model_config)[1] == [f"{tmp_path}/generation_config.json is set aside: it is no JSON object"]


def test_several_end_tokens(tmp_path):
    config = configured(tmp_path, {"eos_token_id": [0, None, 5, 128]})
    kept, lines = defaults(config.model_config)
    assert kept == {"eos_token_id": [0, 5]}
    assert [line.partition(": ")[2].partition(" is set aside")[0] for line in lines] == [
        "eos_token_id=None",
        "eos_token_id=128",
    ]


@pytest.mark.parametrize(
    "ids, kept", [(None, {}), (0, {"eos_token_id": [0]}), ([0, None, 5], {"eos_token_id": [0, 5]})]
)
def test_end_tokens_of_config_json_without_the_file(ids, kept, tmp_path):
    config = configured(tmp_path, None, LLADA | {"eos_token_id": ids, "pad_token_id": None})
    assert config.model_config.try_get_generation_config() == kept
    assert for_requests(config) == {"temperature": 0.0, "max_tokens": LENGTH}


def test_the_servers_user_may_do_without(tmp_path):
    """--generation-config vllm, or another folder; of the end tokens vLLM keeps the checkpoint's."""
    config = configured(tmp_path, QWEN | {"eos_token_id": [0, 5]}, generation_config="vllm")
    assert for_requests(config) == {"temperature": 0.0, "max_tokens": LENGTH}
    assert defaults(config.model_config) == ({"eos_token_id": [0, 5]}, [])
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(ValueError, match="generation_config='.*other' is not allowed: it must be auto, vllm, or"):
        configured(tmp_path, QWEN, generation_config=str(other))
    (other / "generation_config.json").write_text(json.dumps({"temperature": 0.2}))
    assert for_requests(configured(tmp_path, QWEN, generation_config=str(other))) == {
        "temperature": 0.2,
        "max_tokens": LENGTH,
    }


def test_what_the_servers_user_gives_comes_first(tmp_path):
    given = {"temperature": 0.3, "top_k": None, "repetition_penalty": 1.2, "min_p": 0.1}
    config = configured(tmp_path, QWEN, override_generation_config=given)
    assert for_requests(config) == {
        "temperature": 0.3,
        "top_p": 0.8,
        "min_p": 0.1,
        "repetition_penalty": 1.2,
        "max_tokens": LENGTH,
    }


@pytest.mark.parametrize(
    "key, value",
    [
        ("repetition_penalty", 0),
        ("min_p", 1.5),
        ("presence_penalty", 3),
        ("temperature", -1),
        ("top_p", 2),
        ("top_k", "20"),
        ("eos_token_id", 5),
        ("do_sample", False),
        ("a_key_of_nobody", 1),
        ("max_new_tokens", 20),
    ],
)
def test_what_the_servers_user_gives_is_refused_by_name(key, value, tmp_path):
    sentence = f"{key}={value!r} is not allowed in override_generation_config: "
    with pytest.raises(ValueError) as refusal:
        configured(tmp_path, {"temperature": 0.5}, override_generation_config={key: value})
    assert sentence in str(refusal.value)


def test_end_token_ids_as_vllm_hands_them_to_a_request():
    def ids(generation, eos=0, **params):
        params = SamplingParams(**params)
        params.update_from_generation_config({"eos_token_id": generation}, eos)
        return end_token_ids(params)

    assert ids(None) == {0}
    assert ids(0) == {0}
    assert ids([0, 5]) == {0, 5}
    assert ids([5, 6], eos=None) == {5, 6}
    assert ids([0, 5], stop_token_ids=[7]) == {0, 5, 7}
    assert ids([0, 5], ignore_eos=True) == frozenset()
    assert ids([0, 5], ignore_eos=True, stop_token_ids=[7]) == {7}
    assert ids(None, eos=None) == frozenset()
