"""A setting's type, bounds and choices."""

import math

import pytest

from vllm_dllm.options import Option, SettingError, names

WHOLE = Option("w", int, 1, "", low=1)
SHARE = Option("s", float, None, "", low=0, high=1)
WIDTH = Option("width", float, None, "", low=0, open_low=True)
WORD = Option("word", str, "a", "", choices=("a", "b"))
YES = Option("y", bool, False, "")
NUMBERS = Option("n", list, None, "")
LOW_NUMBERS = Option("low", list, None, "", low=0, high=2)


@pytest.mark.parametrize(
    ("option", "value", "checked"),
    [
        (WHOLE, 1, 1),
        (WHOLE, 10**12, 10**12),
        (SHARE, 0, 0.0),
        (SHARE, 1, 1.0),
        (SHARE, 0.5, 0.5),
        (WIDTH, 1e-3, 1e-3),
        (WORD, "b", "b"),
        (YES, True, True),
        (YES, 1, True),  # over HTTP, vllm_xargs makes numbers of true and false
        (YES, 0, False),
        (NUMBERS, [1, 0.5], [1.0, 0.5]),
        (NUMBERS, (), []),
    ],
)
def test_allowed(option, value, checked):
    got = option.check(value)
    assert got == checked and type(got) is type(checked)


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [
        (WHOLE, 0, "a whole number of at least 1"),
        (WHOLE, -3, "a whole number of at least 1"),
        (WHOLE, 2.0, "a whole number of at least 1"),
        (WHOLE, True, "a whole number of at least 1"),
        (WHOLE, "4", "a whole number of at least 1"),
        (WHOLE, [4], "a whole number of at least 1"),
        (SHARE, 1.0001, "a number from 0 to 1"),
        (SHARE, -0.1, "a number from 0 to 1"),
        (SHARE, math.nan, "a number from 0 to 1"),
        (SHARE, math.inf, "a number from 0 to 1"),
        (SHARE, 10**400, "a number from 0 to 1"),
        (SHARE, "0.5", "a number from 0 to 1"),
        (SHARE, False, "a number from 0 to 1"),
        (WIDTH, 0, "a number above 0"),
        (WIDTH, 0.0, "a number above 0"),
        (WIDTH, -math.inf, "a number above 0"),
        (WORD, "c", "one of a, b"),
        (WORD, 1, "one of a, b"),
        (WORD, ["a"], "one of a, b"),
        (YES, 2, "true or false"),
        (YES, "true", "true or false"),
        (NUMBERS, 1.0, "a list of numbers"),
        (NUMBERS, "12", "a list of numbers"),
        (NUMBERS, [1, 10**400], "a list of numbers"),
        (LOW_NUMBERS, [1, 3], "a list of numbers from 0 to 2"),
        (LOW_NUMBERS, [-1], "a list of numbers from 0 to 2"),
        (NUMBERS, [1, "2"], "a list of numbers"),
        (NUMBERS, [1, math.nan], "a list of numbers"),
        (NUMBERS, [1, True], "a list of numbers"),
        (NUMBERS, [1, None], "a list of numbers"),
        (NUMBERS, {"0": 1}, "a list of numbers"),
    ],
)
def test_refused(option, value, allowed):
    with pytest.raises(SettingError) as refused:
        option.check(value)
    assert str(refused.value) == f"{option.key}={value!r} is not allowed: it must be {allowed}"


def test_names():
    assert WHOLE.key == "dllm_w" and Option("a_b", int, 0, "").flag == "--dllm-a-b"
    assert names([WHOLE, SHARE]) == "dllm_w, dllm_s" and names([]) == "none"
