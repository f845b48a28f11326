"""How a request's settings and the server's become one, and what is refused."""

import math
from dataclasses import replace

import numpy as np
import pytest

from vllm_dllm.caching.registry import POLICIES
from vllm_dllm.catalogue import options
from vllm_dllm.frontier import Window
from vllm_dllm.options import SettingError
from vllm_dllm.settings import ModelTraits, ServerSettings, given, resolve
from vllm_dllm.unmasking.dream_steps import DreamSteps
from vllm_dllm.unmasking.registry import RULES

LLADA = ModelTraits(mask_id=1, row_shift=0, steps="llada")
DREAM = ModelTraits(mask_id=1, row_shift=-1, steps="dream")


def refusal(request: dict, server: dict | None = None, traits: ModelTraits = LLADA) -> str:
    with pytest.raises(SettingError) as refused:
        resolve(server or {}, request, traits)
    return str(refused.value)


def test_defaults():
    s = resolve({}, None, LLADA)
    assert (s.cache, s.rule, s.rule_value, s.block_length) == ("none", RULES["threshold"], 0.9, 32)
    assert (s.score, s.scores, s.certainty_sigma, s.window_length) == ("confidence", None, None, None)
    assert not s.needs_entropy and s.rule_options == {}


def test_the_documented_defaults():
    defaults = {key: option.default for key, option in options().items()}
    assert defaults["dllm_gen_length"] == 256 and defaults["dllm_block_length"] == 32
    assert defaults["dllm_cache"] == "none" and defaults["dllm_score"] == "confidence"


def test_keys_of_others_and_none_are_not_given():
    assert given({"other": 1, "dllm_steps": None, "dllm_factor": 1.0}) == {"dllm_factor": 1.0}
    assert given(None) == {}
    assert resolve({}, {"other": 1, "dllm_steps": None}, LLADA) == resolve({}, {}, LLADA)


def test_a_request_overrides_the_server():
    server = {"dllm_block_length": 8, "dllm_threshold": 0.5, "dllm_score": "margin"}
    s = resolve(server, {}, LLADA)
    assert (s.block_length, s.rule_value, s.score) == (8, 0.5, "margin")
    s = resolve(server, {"dllm_block_length": 16, "dllm_threshold": 0.7, "dllm_score": "confidence"}, LLADA)
    assert (s.block_length, s.rule_value, s.score) == (16, 0.7, "confidence")


def test_a_chosen_rule_replaces_the_servers():
    server = {"dllm_threshold": 0.5}
    s = resolve(server, {"dllm_steps": 16}, LLADA)
    assert (s.rule, s.rule_value) == (RULES["steps"], 16)


def test_what_went_with_the_servers_rule_goes_with_it():
    server = {"dllm_steps": 8, "dllm_score": "origin"}
    assert resolve(server, {}, DREAM).score == "origin"
    assert resolve(server, {"dllm_threshold": 0.9}, DREAM).score == "confidence"
    server = {"dllm_steps": 8, "dllm_alg_temp": 0.5}
    assert resolve(server, {}, DREAM).rule_options == {"alg_temp": 0.5}
    assert resolve(server, {"dllm_threshold": 0.9}, DREAM).rule_options == {}
    server = {"dllm_steps": 8, "dllm_certainty_sigma": 4}
    assert resolve(server, {}, LLADA).certainty_sigma == 4.0
    assert resolve(server, {"dllm_score": "random"}, LLADA).certainty_sigma is None


def test_what_is_dropped_behind_an_end():
    def drops(traits=LLADA, server=None, **own):
        return resolve({"dllm_hidden_cache": True} | (server or {}), own, traits).drop_behind_end

    always = replace(LLADA, drop_behind_end=True)
    assert not drops() and drops(dllm_drop_behind_end=True) and drops(dllm_cache="elastic")
    assert drops(always) and not drops(always, dllm_drop_behind_end=False)
    assert not drops(always, server={"dllm_drop_behind_end": False})
    message = refusal({"dllm_cache": "elastic", "dllm_drop_behind_end": True}, {"dllm_hidden_cache": True})
    assert message.startswith("dllm_drop_behind_end=True is not read by")


def test_an_interval_that_policies_leave_out_differently():
    """`prefix` has none unless it is given; the server's is for policies that mean the same by leaving it out."""

    def interval(request, server=None):
        return resolve(server or {}, {f"dllm_{k}": v for k, v in request.items()}, LLADA).policy_options[
            "refresh_interval"
        ]

    assert interval({"cache": "prefix"}) is None and interval({"cache": "dkv-decode"}) == 2
    assert interval({"cache": "prefix", "refresh_interval": 4}) == 4
    server = {"dllm_cache": "dkv-decode", "dllm_refresh_interval": 8}
    assert interval({"cache": "dkv-pd"}, server) == 8 and interval({"cache": "prefix"}, server) is None
    server = {"dllm_cache": "prefix", "dllm_refresh_interval": 8}
    assert interval({"block_length": 8}, server) == 8 and interval({"cache": "dkv-pd"}, server) == 2


def test_what_is_measured_and_drawn():
    def settings(traits=DREAM, **own):
        return resolve({}, {f"dllm_{k}": v for k, v in own.items()}, traits)

    assert settings(score="margin").score == "margin"
    assert settings(steps=4, score="entropy").needs_entropy
    assert settings(entropy_bound=0.1).needs_entropy
    assert settings(steps=4, score="origin").make_rule().draws
    assert settings(steps=4, alg_temp=0.1).make_rule().draws and not settings(steps=4, alg_temp=0).make_rule().draws
    np.testing.assert_array_equal(settings(steps=4, score="random", scores=[1, 2]).scores, np.float32([1, 2]))


def test_the_rule_that_is_made():
    assert type(resolve({}, {"dllm_steps": 4}, DREAM).make_rule()) is DreamSteps
    for name, rule in RULES.items():
        value = 1 if rule.option.type is int else 0.5
        assert type(resolve({}, {rule.option.key: value}, LLADA).make_rule()) is rule, name


RULE_KEYS = [rule.option.key for rule in RULES.values()]


@pytest.mark.parametrize("second", RULE_KEYS[1:])
def test_two_rules_contradict(second):
    message = refusal({RULE_KEYS[0]: 1, second: 1})
    assert f"{RULE_KEYS[0]}=1" in message and f"{second}=1" in message
    assert "at most one of" in message and all(key in message for key in RULE_KEYS)
    with pytest.raises(SettingError, match="contradict"):
        ServerSettings({RULE_KEYS[0]: 1, second: 1}, LLADA)


def test_an_unknown_setting_is_refused():
    message = refusal({"dllm_treshold": 0.9})
    assert "dllm_treshold=0.9 is not a setting" in message and all(key in message for key in options())
    with pytest.raises(SettingError, match="dllm_treshold=0.9 is not a setting"):
        ServerSettings({"dllm_treshold": 0.9}, LLADA)


@pytest.mark.parametrize("key", [key for key, option in options().items() if option.server_only])
def test_a_setting_of_the_server_is_refused_in_a_request(key):
    option = options()[key]
    value = option.choices[0] if option.choices else {int: 64, str: "/dev/null", bool: True}[option.type]
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
        ServerSettings({key: value}, LLADA)


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
        ServerSettings(request_settings, LLADA)


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
    server = {"dllm_cache": "entropy", "dllm_tau": 0.25}
    assert resolve(server, {}, LLADA).policy_options["tau"] == 0.25
    s = resolve(server, {"dllm_cache": "none"}, LLADA)
    assert (s.cache, s.policy_options) == ("none", {})
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


# ---- blocks or a window ----


def frontier(request: dict, server: dict | None = None, traits: ModelTraits = LLADA) -> tuple[str, int]:
    made = resolve({"dllm_hidden_cache": True} | (server or {}), request, traits).make_frontier()
    return ("window", made.length) if isinstance(made, Window) else ("blocks", made.block_length)


def test_a_window_takes_the_blocks_place():
    for cache in ("none", "entropy", "dkv-decode", "dkv-pd", "dkv-prefill"):
        assert frontier({"dllm_cache": cache, "dllm_window_length": 8}) == ("window", 8)
    assert frontier({"dllm_cache": "elastic"}) == ("window", 32)
    assert frontier({"dllm_cache": "elastic", "dllm_window_length": 8}) == ("window", 8)
    assert "dllm_block_length=4 is not read by dllm_window_length=8" in refusal(
        {"dllm_window_length": 8, "dllm_block_length": 4}
    )


def test_a_request_chooses_between_the_servers_window_and_blocks():
    window, blocks = {"dllm_window_length": 8}, {"dllm_block_length": 16}
    assert frontier({}, window) == ("window", 8) and frontier({}, blocks) == ("blocks", 16)
    assert frontier({"dllm_threshold": 0.5}, window) == ("window", 8)
    assert frontier({"dllm_block_length": 4}, window) == ("blocks", 4)
    assert frontier({"dllm_window_length": 4}, blocks) == ("window", 4)
    assert frontier({"dllm_cache": "dual"}, window) == ("blocks", 32)
    assert frontier({"dllm_steps": 8}, window) == ("blocks", 32)
    assert frontier({"dllm_cache": "elastic"}, window) == ("window", 8)
    assert frontier({"dllm_cache": "elastic"}, blocks) == ("window", 32)


@pytest.mark.parametrize(
    ("settings", "what", "instead"),
    [
        ({"dllm_cache": "dual", "dllm_window_length": 8}, "dllm_cache=dual is not allowed", "none, dkv-decode"),
        ({"dllm_cache": "d2", "dllm_window_length": 8}, "dllm_cache=d2 is not allowed", "none, dkv-decode"),
        ({"dllm_steps": 8, "dllm_window_length": 8}, "dllm_steps is not allowed", "dllm_threshold"),
        (
            {"dllm_steps": 8, "dllm_cache": "elastic"},
            "dllm_steps is not allowed with dllm_cache=elastic",
            "dllm_factor",
        ),
    ],
)
def test_what_needs_blocks_does_not_go_with_a_window(settings, what, instead):
    message = refusal(settings, {"dllm_hidden_cache": True})
    assert what in message and instead in message and "dllm_window_length=" in message


def test_the_sources_that_rank_in_float64():
    assert resolve({}, {"dllm_cache": "dual", "dllm_steps": 8}, LLADA).score == "confidence64"
    assert resolve({}, {"dllm_cache": "none", "dllm_steps": 8}, LLADA).score == "confidence"
    assert resolve({}, {"dllm_cache": "dual", "dllm_steps": 8}, DREAM).score == "confidence"
    assert resolve({}, {"dllm_cache": "dual", "dllm_threshold": 0.9}, LLADA).score == "confidence"
    assert resolve({}, {"dllm_cache": "dual", "dllm_steps": 8, "dllm_score": "margin"}, LLADA).score == "margin"


def test_requests_that_ask_for_the_same_share_their_settings():
    server = ServerSettings({"dllm_cache": "entropy"}, LLADA)
    assert server.of_request({"dllm_tau": 0.5, "other": 1}) is server.of_request({"dllm_tau": 0.5})
    assert server.of_request({"dllm_tau": 0.5}) is not server.of_request({"dllm_tau": 0.25})
    for _ in range(2):  # a refusal is not remembered as an answer
        with pytest.raises(SettingError):
            server.of_request({"dllm_tau": object()})
