"""Weights that change, and pages that are lost, while requests run: what follows is what the new weights give."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import dense
import pytest
from common import CHECKPOINTS, golden
from safetensors.torch import load_file, save_file
from vllm import SamplingParams

LENGTH = 128
PROMPTS = [case["prompt_ids"] for case in golden("tiny-llada", "llada")[:3]]
# one full pass, the first, so that another one in the trace is the one with the new weights
SETTINGS = {"dllm_block_length": LENGTH, "dllm_tokens_per_step": 1, "dllm_max_delay": 9}
POLICIES = [{"dllm_cache": "dual"}, {"dllm_cache": "entropy", "dllm_tau": 100.0}, {"dllm_cache": "dkv-prefill"}]


def scaled(folder: Path, layers: str, factor: float) -> Path:
    """The checkpoint with other weights in `layers`."""
    shutil.copytree(CHECKPOINTS / "tiny-llada", folder)
    weights = load_file(folder / "model.safetensors")
    save_file({n: w * factor if layers in n else w for n, w in weights.items()}, folder / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Path:
    """Its layers' outputs are weaker."""
    return scaled(tmp_path_factory.mktemp("weights") / "other", "ff_out", 0.3)


@pytest.fixture(scope="module")
def halved(tmp_path_factory) -> Path:
    """What `halve_norms` makes of it: exactly, in any dtype."""
    return scaled(tmp_path_factory.mktemp("weights") / "halved", "_norm", 0.5)


def run(engine, disturb: Callable[[], None]) -> list[tuple[dict, dict]]:
    """(settings, trace line) of each request, while which `disturb` was called."""
    engine.new_traces()
    requests = [SETTINGS | policy for policy in POLICIES]
    core = engine.llm.llm_engine
    for number, (prompt, settings) in enumerate(zip(PROMPTS, requests, strict=True)):
        params = SamplingParams(temperature=0, max_tokens=LENGTH, ignore_eos=True, extra_args=settings)
        core.add_request(str(number), {"prompt_token_ids": prompt}, params)
    core.step()
    time.sleep(0.3)  # the engine goes on by itself
    disturb()
    while core.has_unfinished_requests():
        core.step()
    engine.check_idle()
    traces = engine.new_traces()
    return [(settings, traces[str(number)]) for number, settings in enumerate(requests)]


def check(engine, disturb: Callable[[], None], after: Path) -> list[list[int]]:
    """The outputs. Each request goes on from its canvas with the weights `after`, by a whole pass."""
    done = run(engine, disturb)
    for prompt, (settings, trace) in zip(PROMPTS, done, strict=True):
        full = [number for number, whole in enumerate(trace["full"]) if whole]
        assert full[0] == 0 and len(full) == 2 < trace["full"].count(False), full
        decoding = dense.new_decoding("tiny-llada", prompt, LENGTH, settings)
        dense.run("tiny-llada", decoding, change=(full[1], dense.load(after)))
        assert trace["output_ids"] == decoding.canvas.response.tolist()
        assert trace["unmasked"] == [record.unmasked for record in decoding.record]
    return [trace["output_ids"] for _, trace in done]


@pytest.fixture
def restored(llada):
    yield llada
    own = str(CHECKPOINTS / "tiny-llada")
    llada.llm.collective_rpc("reload_weights", kwargs={"weights_path": own})


def test_reloaded(restored, other):
    rpc = restored.llm.collective_rpc
    got = check(restored, lambda: rpc("reload_weights", kwargs={"weights_path": str(other)}), other)
    old = dense.decode("tiny-llada", PROMPTS[0], LENGTH, SETTINGS | POLICIES[0])
    assert got[0] != old.canvas.response.tolist(), "the weights are not other enough for this test to mean anything"


def test_sent_by_a_trainer(restored, other):
    llm = restored.llm
    llm.init_weight_transfer_engine({"init_info": {"folder": str(other)}})

    def update():
        llm.sleep(level=0, mode="keep")  # vLLM's way to pause: no pass may see half of the weights
        llm.start_weight_update()
        llm.update_weights({"update_info": {"name": "model.safetensors"}})
        llm.finish_weight_update()
        llm.wake_up(tags=["scheduling"])

    check(restored, update, other)


def test_written_in_place(restored, halved):
    """By whoever is handed the model: `apply_model` says so itself."""
    check(restored, lambda: restored.llm.collective_rpc("apply_to_model"), halved)


def test_written_in_place_behind_our_back(restored, halved):
    """By a worker's extension: the caller says so, with the scheduler paused in between."""
    llm = restored.llm

    def update():
        llm.sleep(level=0, mode="keep")
        llm.collective_rpc("write_weights")
        llm.reset_prefix_cache(reset_running_requests=True)
        llm.wake_up(tags=["scheduling"])

    check(restored, update, halved)


def test_asleep(llada):
    """With the requests kept. On CPU vLLM gives no memory back, so the pages are made unreadable by hand."""

    def sleep():
        llada.llm.sleep(level=1, mode="keep")
        llada.llm.collective_rpc("lose_pages")
        llada.llm.wake_up()

    check(llada, sleep, CHECKPOINTS / "tiny-llada")
