"""What is counted of a request's passes, and what becomes of the counts in the log and in Prometheus."""

import json
import logging

import numpy as np
import pytest
import vllm.v1.metrics.loggers as vllm_loggers
from common import CHECKPOINTS
from decoding_helpers import MASK
from prometheus_client import REGISTRY
from vllm.engine.arg_utils import EngineArgs
from vllm.v1.engine import EngineCoreOutputs
from vllm.v1.metrics.loggers import LoggingStatLogger, PrometheusStatLogger
from vllm.v1.metrics.stats import SchedulerStats
from vllm.v1.serial_utils import MsgpackDecoder, MsgpackEncoder

import vllm_dllm
from vllm_dllm.caching.registry import REASONS
from vllm_dllm.decoding import Decoding, Sampling
from vllm_dllm.messages import Observation
from vllm_dllm.metrics import DllmStatLogger, StepCounts
from vllm_dllm.passes import Pass
from vllm_dllm.settings import ModelTraits, resolve

PROMPT, GEN, PAGE = 4, 8, 4  # canvases of 12 tokens in 3 pages
LLADA = ModelTraits(mask_id=MASK, row_shift=0, steps="llada")


def decoding(**own) -> Decoding:
    settings = resolve({"dllm_hidden_cache": True}, {f"dllm_{k}": v for k, v in own.items()}, LLADA)
    return Decoding([7] * PROMPT, GEN, settings, Sampling(), LLADA, PAGE)


def one_pass(counts: StepCounts, request: Decoding, entropy=0.0, req_id="a", **signals) -> None:
    finish(counts, request, request.plan(), entropy, req_id, **signals)


def finish(counts: StepCounts, request: Decoding, planned: Pass, entropy=0.0, req_id="a", **measured) -> None:
    sure = np.ones(len(planned.reads), np.float32)
    seen = Observation(planned.reads, planned.reads + 10, sure, entropy=sure * entropy, **measured)
    counts.add_pass(req_id, request, planned, request.finish(planned, seen))


def test_passes_of_dual():
    request, counts = decoding(cache="dual", block_length=4, tokens_per_step=3), StepCounts()
    while not request.canvas.done:
        one_pass(counts, request)
    counts.end_request("a", request.passes)
    assert nonzero(counts.take()) == {
        "passes": 4,
        "computed_tokens": 12 + 4 + 12 + 4,
        "cacheless_tokens": 4 * 12,
        "full_passes": 2,
        "pass_unmasked_tokens=3": 2,
        "pass_unmasked_tokens=1": 2,
        "stale_pages=first pass": 3,
        "stale_pages=block start": 3,
        "request_passes=4": 1,
    }
    assert counts.take() == {} and counts.marks == {}, "nothing is left of it"


def nonzero(counts: dict) -> dict:
    return {key: n for key, n in counts.items() if n}


def test_marks_are_counted_once():
    """As they come, whether a step's counts are taken or not, and for each request by itself."""
    requests = {i: decoding(cache="entropy", tau=0.5, tokens_per_step=1) for i in "ab"}
    counts = StepCounts()
    one_pass(counts, requests["a"], entropy=0.9, req_id="a")
    one_pass(counts, requests["b"], entropy=0.1, req_id="b")
    taken = counts.take()
    assert (taken["stale_pages=first pass"], taken["stale_pages=entropy"]) == (6, 3)
    for entropy in (0.1, 0.9, 0.9):
        one_pass(counts, requests["a"], entropy, req_id="a")
    one_pass(counts, requests["b"], entropy=0.1, req_id="b")
    taken = counts.take()
    assert "stale_pages=first pass" not in taken and taken["stale_pages=entropy"] == 6
    assert sum(requests["a"].pages.marks.values()) == 12


def test_postponed_refreshes():
    request, counts = decoding(cache="entropy", tau=0.5, tokens_per_step=1, recent_k=1, max_delay=2), StepCounts()
    one_pass(counts, request, entropy=0.9)
    for _ in range(2):
        postponed = request.postpone(request.plan())
        assert postponed is not None and not postponed.stale_pages
        finish(counts, request, postponed, entropy=0.1)
    planned = request.plan()
    assert request.postpone(planned) is None and planned.stale_pages == 1, "the prompt's still is"
    finish(counts, request, planned, entropy=0.1)
    assert (counts.counts["passes"], counts.counts["postponed_refreshes"]) == (4, 2)


def test_elastic():
    """A pass that the worker widened: its tokens are a mean over the layers, and every page was marked."""
    request, counts = decoding(cache="elastic", window_length=4, tokens_per_step=1), StepCounts()
    tracked = {"tracked": np.asarray([1], np.int32)}
    one_pass(counts, request, signals=tracked, layer_tokens=[12, 12, 12])
    assert counts.take()["computed_tokens"] == 12
    one_pass(counts, request, signals=tracked, layer_tokens=[6, 12, 12])
    assert nonzero(counts.take()) == {
        "passes": 1,
        "computed_tokens": 10,
        "cacheless_tokens": 12,
        "pass_unmasked_tokens=1": 1,
        "stale_pages=drift": 3,
    }


# ---- the API server's side ----

COUNTS = {
    "passes": 5,
    "computed_tokens": 31,
    "cacheless_tokens": 100,
    "full_passes": 2,
    "postponed_refreshes": 1,
    "stale_pages=drift": 7,
    "pass_unmasked_tokens=3": 4,
    "pass_unmasked_tokens=1": 1,
    "request_passes=9": 2,
}


def config(model="tiny-llada", **arguments):
    vllm_dllm.register()
    return EngineArgs(model=str(CHECKPOINTS / model), dtype="float32", **arguments).create_engine_config()


@pytest.fixture(scope="module")
def llada():
    return config(served_model_name="counted")


def crossed(counts: dict) -> SchedulerStats:
    """A step's stats after vLLM's own way from the engine core to the API server."""
    message = EngineCoreOutputs(scheduler_stats=SchedulerStats(waiting_lora_adapters=counts))
    return MsgpackDecoder(EngineCoreOutputs).decode(MsgpackEncoder().encode(message)).scheduler_stats


def samples() -> dict[str, float]:
    """Our series of this model, by name and what labels they have besides model and engine."""
    found = {}
    for family in REGISTRY.collect():
        for name, labels, value, *_ in family.samples:
            if name.startswith("vllm_dllm:") and not name.endswith("_created") and labels["model_name"] == "counted":
                more = [v for k, v in labels.items() if k not in ("model_name", "engine")]
                found[" ".join((name.removeprefix("vllm_dllm:"), *more))] = value
    return found


def log_lines(stat_logger) -> list[str]:
    """What its `log` logs; vLLM's loggers pass nothing on to the root, where pytest listens."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    parent = logging.getLogger("vllm")
    parent.addHandler(handler)
    try:
        stat_logger.log()
    finally:
        parent.removeHandler(handler)
    return lines


def test_prometheus(llada):
    first = DllmStatLogger(llada, 0)
    before = samples()
    first.record(crossed(COUNTS), None)
    again = DllmStatLogger(llada, 0)  # of another engine in the same process
    again.record(crossed(COUNTS), None)
    again.record(None, None)
    again.record(crossed({}), None)
    PrometheusStatLogger(llada)  # vLLM's own clears the metrics named `vllm:`, and comes after ours
    after = samples()
    assert {key: after[key] - before[key] for key in after if after[key] != before[key]} == {
        "passes_total": 10,
        "computed_tokens_total": 62,
        "cacheless_tokens_total": 200,
        "full_passes_total": 4,
        "postponed_refreshes_total": 2,
        "stale_pages_total drift": 14,
        "pass_unmasked_tokens_sum": 26,
        "pass_unmasked_tokens_count": 10,
        "pass_unmasked_tokens_bucket 1.0": 2,
        "pass_unmasked_tokens_bucket 2.0": 2,
        **{f"pass_unmasked_tokens_bucket {le}": 10 for le in (3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 64.0, 128.0)},
        "pass_unmasked_tokens_bucket +Inf": 10,
        "request_passes_sum": 36,
        "request_passes_count": 4,
        **{f"request_passes_bucket {float(2**i)}": 4 for i in range(4, 13)},
        "request_passes_bucket +Inf": 4,
    }
    assert all(f"stale_pages_total {reason}" in after for reason in REASONS)


def test_the_line_in_the_log(llada):
    stat_logger = DllmStatLogger(llada, 0)
    assert log_lines(stat_logger) == []
    stat_logger.record(crossed(COUNTS), None)
    stat_logger.record(crossed({"passes": 1, "computed_tokens": 9, "cacheless_tokens": 25}), None)
    line = "Diffusion: 6 passes, 32 % of tokens computed, 2 full passes, 2.2 tokens a pass"
    assert log_lines(stat_logger) == [line]
    assert log_lines(stat_logger) == [], "one line for an interval with traffic"


def test_no_line_of_several_api_servers(llada):
    """Each sees a part of the steps."""
    several = config(_api_process_count=2)
    stat_logger = DllmStatLogger(several, 0)
    stat_logger.record(crossed(COUNTS), None)
    assert log_lines(stat_logger) == []


def test_vllms_own_loggers_do_not_see_the_counts(llada):
    """They would fail, or show them, if the carrier had another meaning for our models."""
    text = []
    for counts in ({}, COUNTS):
        own = LoggingStatLogger(llada, 0)
        own.record(crossed(counts), None)
        text.append(log_lines(own))
        PrometheusStatLogger(llada).record(crossed(counts), None)
    assert text[0] == text[1]
    assert REGISTRY.get_sample_value("vllm:num_requests_waiting", {"model_name": "counted", "engine": "0"}) == 0


def test_idle_for_other_models(tmp_path):
    small = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    options = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 32}
    (tmp_path / "config.json").write_text(json.dumps(small | options))
    plain = EngineArgs(model=str(tmp_path), dtype="float32", skip_tokenizer_init=True, served_model_name="plain")
    stat_logger = DllmStatLogger(plain.create_engine_config(), 0)
    stat_logger.record(SchedulerStats(waiting_lora_adapters={"adapter": 3}), None)
    assert log_lines(stat_logger) == []
    assert REGISTRY.get_sample_value("vllm_dllm:passes_total", {"model_name": "plain", "engine": "0"}) is None


def test_vllm_finds_it():
    assert DllmStatLogger in vllm_loggers.load_stat_logger_plugin_factories()
