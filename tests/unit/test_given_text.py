"""Template and suffix: what is allowed, and what token ids become of them."""

import pytest

from vllm_dllm.given_text import NO_TEXT, SUFFIX, TEMPLATE, GivenText, given_text, with_token_ids
from vllm_dllm.options import SettingError
from vllm_dllm.settings import ModelTraits, ServerSettings

LLADA = ModelTraits(mask_id=1, row_shift=0, steps="llada")


def encode(text: str) -> list[int]:
    return [100 + ord(c) for c in text]


def test_a_template_in_token_ids():
    made = with_token_ids({"dllm_template": ["a", 2, [7, 8], 1, ""], "dllm_steps": 4}, encode)
    assert made == {"dllm_template": [[197], 2, [7, 8], 1, []], "dllm_steps": 4}
    text = given_text(made)
    assert text == GivenText(6, {0: 197, 3: 7, 4: 8}) and text.at(10) == {10: 197, 13: 7, 14: 8}
    assert with_token_ids(made, None) == made, "made once, it stays"


def test_a_template_as_json():
    assert with_token_ids({"dllm_template": '["a", 2, [7]]'}, encode) == {"dllm_template": [[197], 2, [7]]}


def test_a_suffix():
    assert with_token_ids({"dllm_suffix": "ab"}, encode) == {"dllm_suffix": [197, 198]}
    assert given_text({"dllm_suffix": [4, 5]}) == GivenText(suffix=[4, 5])
    assert not given_text({"dllm_suffix": []}) and not given_text(None) and not NO_TEXT
    assert not given_text({"dllm_template": [5]}), "masks alone are no text"
    assert given_text({"dllm_template": [5, [6]]}) and given_text({"dllm_suffix": [6]})


def test_what_a_request_brought_is_not_changed():
    own = {"dllm_template": ["a", 1]}
    with_token_ids(own, encode)
    assert own == {"dllm_template": ["a", 1]}
    assert with_token_ids(None, encode) is None and with_token_ids({"x": 1}, None) == {"x": 1}


@pytest.mark.parametrize(
    "value", [5, {"a": 1}, "a", '"a"', "[3", [0], [-1], [True], [3.0], [None], [["a"]], [[1.5], 3]]
)
def test_what_is_no_template(value):
    with pytest.raises(SettingError, match=r"dllm_template=.* is not allowed: it must be a list"):
        TEMPLATE.check(value)


@pytest.mark.parametrize("value", [[], ["a"], [[5]], "[]"])
def test_a_template_without_a_masked_position(value):
    with pytest.raises(SettingError, match="dllm_template=.* it must have a masked position"):
        TEMPLATE.check(value)


@pytest.mark.parametrize("value", [5, 1.5, ["a"], [True], {"a": 1}])
def test_what_is_no_suffix(value):
    with pytest.raises(SettingError, match="dllm_suffix=.* is not allowed: it must be a string or a list of token ids"):
        SUFFIX.check(value)


@pytest.mark.parametrize("key, value", [("dllm_template", [[3, 9], 1]), ("dllm_suffix", [3, 9])])
@pytest.mark.parametrize("vocab_size, mask_id", [(9, 1), (20, 9)])
def test_tokens_that_cannot_be_given(key, value, vocab_size, mask_id):
    with pytest.raises(SettingError, match=f"{key} with token 9 is not allowed"):
        given_text({key: value}).check_ids(vocab_size, mask_id)
    given_text({key: value}).check_ids(20, 1)


def test_strings_need_a_tokenizer():
    for settings in ({"dllm_suffix": "a"}, {"dllm_template": ["a", 1]}):
        with pytest.raises(SettingError, match="no tokenizer"):
            with_token_ids(settings, None)


def test_text_is_no_part_of_the_settings():
    """Requests with other texts share their settings, and the server's horizon does not hide the text."""
    server = ServerSettings({"dllm_horizon": 8}, LLADA)
    plain = server.of_request({})
    assert plain.horizon == 8
    with_text = [server.of_request({"dllm_suffix": [i]}) for i in range(5, 9)]
    assert all(s is with_text[0] for s in with_text) and with_text[0].horizon is None
    assert server.of_request({"dllm_template": [3, [5]]}) is with_text[0]
    assert server.of_request({"dllm_template": [3, [5]], "dllm_horizon": 2}).horizon == 2
    assert server.of_request({}) is plain


@pytest.mark.parametrize("key, value", [("dllm_template", [3]), ("dllm_suffix", "a")])
def test_a_server_has_no_text(key, value):
    with pytest.raises(SettingError, match=f"{key}=.* is not allowed for a server"):
        ServerSettings({key: value}, LLADA)
