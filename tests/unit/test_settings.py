"""How a request's settings and the server's become one, and what is refused."""

import math

import numpy as np
import pytest

from vllm_dllm.caching.registry import POLICIES
from vllm_dllm.options import SettingError
from vllm_dllm.settings import ModelTraits, check_server, given, options, resolve
from vllm_dllm.unmasking import RULES, DreamSteps

LLADA = ModelTraits(mask_id=1, row_shift=0, dream=False)
DREAM = ModelTraits(mask_id=1, row_shift=-1, dream=True)


def refusal(request: dict, server: dict | None = None, traits: ModelTraits = LLADA) -> str:
    with pytest.raises(SettingError) as refused:
        resolve(check_server(server, traits), request, traits)
    return str(refused.value)


def test_defaults():
    s = resolve({}, None, LLADA)
    assert (s.cache, s.rule, s.rule_value, s.block_length) == ("none", "threshold", 0.9, 32)
    assert (s.score, s.scores, s.certainty_sigma, s.alg_temp) == ("confidence", None, None, 0.0)
    assert not (s.needs_margin or s.needs_entropy or s.draws)


def test_the_documented_defaults():
    defaults = {key: option.default for key, option in options().items()}
    assert defaults["dllm_gen_length"] == 256 and defaults["dllm_block_length"] == 32
    assert defaults["dllm_cache"] == "none" and defaults["dllm_score"] == "confidence"


def test_keys_of_others_and_none_are_not_given():
    assert given({"other": 1, "dllm_steps": None, "dllm_factor": 1.0}) == {"dllm_factor": 1.0}
    assert given(None) == {}
    assert resolve({}, {"other": 1, "dllm_steps": None}, LLADA) == resolve({}, {}, LLADA)


def test_a_request_overrides_the_server():
    server = check_server({"dllm_block_length": 8, "dllm_threshold": 0.5, "dllm_score": "margin"}, LLADA)
    s = resolve(server, {}, LLADA)
    assert (s.block_length, s.rule_value, s.score) == (8, 0.5, "margin")
    s = resolve(server, {"dllm_block_length": 16, "dllm_threshold": 0.7, "dllm_score": "confidence"}, LLADA)
    assert (s.block_length, s.rule_value, s.score) == (16, 0.7, "confidence")


def test_a_chosen_rule_replaces_the_servers():
    server = check_server({"dllm_threshold": 0.5}, LLADA)
    s = resolve(server, {"dllm_steps": 16}, LLADA)
    assert (s.rule, s.rule_value) == ("steps", 16)


def test_what_went_with_the_servers_rule_goes_with_it():
    server = check_server({"dllm_steps": 8, "dllm_score": "origin"}, DREAM)
    assert resolve(server, {}, DREAM).score == "origin"
    assert resolve(server, {"dllm_threshold": 0.9}, DREAM).score == "confidence"
    server = check_server({"dllm_steps": 8, "dllm_alg_temp": 0.5}, DREAM)
    assert resolve(server, {}, DREAM).alg_temp == 0.5
    assert resolve(server, {"dllm_threshold": 0.9}, DREAM).alg_temp == 0.0
    server = check_server({"dllm_steps": 8, "dllm_certainty_sigma": 4}, LLADA)
    assert resolve(server, {}, LLADA).certainty_sigma == 4.0
    assert resolve(server, {"dllm_score": "random"}, LLADA).certainty_sigma is None


def test_what_is_measured_and_drawn():
    def settings(traits=DREAM, **own):
        return resolve({}, {f"dllm_{k}": v for k, v in own.items()}, traits)

    assert settings(score="margin").needs_margin
    assert settings(steps=4, score="entropy").needs_entropy
    assert settings(entropy_bound=0.1).needs_entropy
    assert settings(steps=4, score="random").draws
    assert not settings(steps=4, score="random", scores=[0.1, 0.2]).draws
    assert settings(steps=4, score="origin").draws
    assert settings(steps=4, alg_temp=0.1).draws and not settings(steps=4, alg_temp=0).draws
    np.testing.assert_array_equal(settings(steps=4, score="random", scores=[1, 2]).scores, np.float32([1, 2]))


def test_the_rule_that_is_made():
    assert type(resolve({}, {"dllm_steps": 4}, DREAM).make_rule(DREAM)) is DreamSteps
    for name, rule in RULES.items():
        value = 1 if rule.option.type is int else 0.5
        assert type(resolve({}, {rule.option.key: value}, LLADA).make_rule(LLADA)) is rule, name


RULE_KEYS = [rule.option.key for rule in RULES.values()]


@pytest.mark.parametrize("second", RULE_KEYS[1:])
def test_two_rules_contradict(second):
    message = refusal({RULE_KEYS[0]: 1, second: 1})
    assert f"{RULE_KEYS[0]}=1" in message and f"{second}=1" in message
    assert "at most one of" in message and all(key in message for key in RULE_KEYS)
    with pytest.raises(SettingError, match="contradict"):
        check_server({RULE_KEYS[0]: 1, second: 1}, LLADA)


def test_an_unknown_setting_is_refused():
    message = refusal({"dllm_treshold": 0.9})
    assert "dllm_treshold=0.9 is not a setting" in message and all(key in message for key in options())
    with pytest.raises(SettingError, match="dllm_treshold=0.9 is not a setting"):
        check_server({"dllm_treshold": 0.9}, LLADA)


@pytest.mark.parametrize("key", [key for key, option in options().items() if option.server_only])
def test_a_setting_of_the_server_is_refused_in_a_request(key):
    value = {int: 64, str: "/dev/null", bool: True}[options()[key].type]
    assert f"{key}={value!r} is not allowed in a request" in refusal({key: value})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("dllm_cache", "nothing"),
        ("dllm_cache", 1),
        ("dllm_block_length", 0),
        ("dllm_block_length", 32.0),
        ("dllm_block_length", "32"),
        ("dllm_threshold", 1.5),
        ("dllm_threshold", -0.1),
        ("dllm_threshold", math.nan),
        ("dllm_threshold", True),
        ("dllm_steps", 0),
        ("dllm_steps", 1.5),
        ("dllm_tokens_per_step", 0),
        ("dllm_factor", -1),
        ("dllm_factor", math.inf),
        ("dllm_entropy_bound", -1e-9),
        ("dllm_score", "best"),
        ("dllm_certainty_sigma", 0),
        ("dllm_certainty_sigma", math.nan),
    ],
)
def test_a_value_that_is_not_allowed(key, value):
    message = refusal({key: value})
    assert f"{key}={value!r} is not allowed" in message and options()[key].allowed in message
    with pytest.raises(SettingError, match=key):
        check_server({key: value}, LLADA)


@pytest.mark.parametrize(
    ("request_settings", "unread"),
    [
        ({"dllm_scores": [1.0]}, "dllm_scores"),
        ({"dllm_steps": 4, "dllm_score": "random", "dllm_certainty_sigma": 4.0}, "dllm_certainty_sigma"),
        ({"dllm_alg_temp": 0.1}, "dllm_alg_temp"),
        ({"dllm_steps": 4, "dllm_alg_temp": 0.1}, "dllm_alg_temp"),  # LLaDA's steps know no alg_temp
    ],
)
def test_a_setting_that_nothing_reads(request_settings, unread):
    message = refusal(request_settings)
    assert f"{unread}={request_settings[unread]!r} is not read by" in message and "which read " in message
    with pytest.raises(SettingError, match=unread):
        check_server(request_settings, LLADA)


def test_alg_temp_with_origin_is_not_read():
    assert "dllm_alg_temp=0.1 is not read" in refusal(
        {"dllm_steps": 4, "dllm_score": "origin", "dllm_alg_temp": 0.1}, traits=DREAM
    )


@pytest.mark.parametrize("key", sorted({o.key for policy in POLICIES.values() for o in policy.options}))
def test_a_policys_option_is_not_read_without_it(key):
    value = options()[key].default
    message = refusal({key: value})
    assert f"{key}={value!r} is not read by dllm_cache=none" in message


def test_a_chosen_policy_replaces_the_servers():
    server = check_server({"dllm_cache": "entropy", "dllm_tau": 0.25}, LLADA)
    assert resolve(server, {}, LLADA).cache_options["tau"] == 0.25
    s = resolve(server, {"dllm_cache": "none"}, LLADA)
    assert (s.cache, s.cache_options) == ("none", {})
    assert "dllm_tau=0.5 is not read" in refusal({"dllm_cache": "none", "dllm_tau": 0.5}, server)


@pytest.mark.parametrize(
    ("settings", "traits"),
    [
        ({"dllm_threshold": 0.9, "dllm_score": "entropy"}, LLADA),  # a negative entropy reaches no threshold
        ({"dllm_threshold": 0.9, "dllm_score": "random"}, LLADA),
        ({"dllm_factor": 1.0, "dllm_score": "entropy"}, LLADA),
        ({"dllm_threshold": 0.9, "dllm_score": "origin"}, DREAM),
        ({"dllm_steps": 4, "dllm_score": "origin"}, LLADA),
    ],
)
def test_a_score_that_does_not_go_with_the_rule(settings, traits):
    message = refusal(settings, traits=traits)
    assert f"dllm_score={settings['dllm_score']!r} is not allowed with" in message and "must be one of" in message


@pytest.mark.parametrize("key", ["dllm_certainty_sigma"])
@pytest.mark.parametrize("value", [1e-300, 1e-30, 1e200])
def test_a_width_that_floats_cannot_hold_is_refused(key, value):
    """Its square overflows or vanishes, and with it the Gaussian."""
    assert f"{key}={value!r} is not allowed" in refusal({key: value})


@pytest.mark.parametrize("value", [1e39, -1e39])
def test_a_score_that_floats_cannot_hold_is_refused(value):
    """As float32 it is infinite, and minus infinity marks what may not be unmasked."""
    message = refusal({"dllm_steps": 2, "dllm_score": "random", "dllm_scores": [0.5, value]})
    assert "dllm_scores=" in message and "is not allowed" in message
