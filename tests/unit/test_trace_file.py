"""The trace's file while an engine runs."""

import json

import pytest
from vllm import SamplingParams
from vllm.v1.request import Request

from vllm_dllm.decoding import Decoding, Sampling
from vllm_dllm.settings import ModelTraits, resolve
from vllm_dllm.trace import Trace

TRAITS = ModelTraits(mask_id=1, row_shift=0, steps="llada")


@pytest.fixture
def ended():
    """A request, and its decoding, that ended before its first pass."""
    params = SamplingParams(max_tokens=4, extra_args={})
    request = Request("a-01234567", [5, 6], params, pooling_params=None)
    return request, Decoding([5, 6], 4, resolve({}, {}, TRAITS), Sampling(), TRAITS, recorded=True)


def test_a_line_is_there_at_once(tmp_path, ended):
    Trace(str(tmp_path / "trace.jsonl")).write(*ended)
    assert json.loads((tmp_path / "trace.jsonl").read_text())["request_id"] == "a"


def test_a_full_disk_ends_no_request(ended):
    Trace("/dev/full").write(*ended)
