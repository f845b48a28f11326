"""tools/seams.py finds what a vLLM has changed where this package touches it."""

import subprocess
import sys
import zipfile

import pytest
from common import ROOT

sys.path.append(str(ROOT / "tools"))
import seams  # noqa: E402
from syntax.packages import installed, reader  # noqa: E402

VLLM = reader(installed("vllm"))
TOOL = [sys.executable, str(ROOT / "tools" / "seams.py")]


def test_the_installed_vllm_fits():
    found = seams.seams(VLLM)
    assert not [str(seam) for seam in found if seam.problem]
    # of every kind there is one
    listed = {seam.what for seam in found}
    assert {
        "vllm.exceptions.GracefulHTTPError",
        "vllm.config.scheduler.SchedulerConfig.max_num_batched_tokens",
        "vllm.v1.worker.gpu.attn_utils.build_attn_metadata(...) is called",
        "vllm.v1.core.sched.scheduler.Scheduler._free_request is overridden",
        "vllm.v1.core.sched.interface.SchedulerInterface.add_request is wanted",
        "vllm.v1.worker.gpu_worker.Worker reads model_runner.execute_model",
        "vllm.v1.engine.async_llm.AsyncLLM.generate is wrapped",
        "vllm.v1.engine.core.EngineCore.check_integrity is added",
        "vllm.v1.request.Request.num_prompt_tokens",
    } <= listed


CHANGES = {
    "a removed name": (
        ("vllm/exceptions.py", ("class GracefulHTTPError", "class PoliteHTTPError")),
        "patches/stopped_engine.py",
        "vllm.exceptions.GracefulHTTPError: does not exist",
    ),
    "a renamed parameter of a wrapped function": (
        ("vllm/v1/engine/input_processor.py", ("params: SamplingParams | PoolingParams,\n", "wishes: Any,\n")),
        "patches/admission.py",
        "InputProcessor.process_inputs is wrapped: has to take (self, request_id, prompt, params, *args, resumable=False",
    ),
    "a wrapped function that became a coroutine": (
        ("vllm/v1/engine/async_llm.py", ("    def shutdown(", "    async def shutdown(")),
        "patches/stopped_engine.py",
        "AsyncLLM.shutdown is wrapped: is a coroutine function",
    ),
    "a parameter that we pass": (
        ("vllm/v1/worker/gpu/attn_utils.py", ("    causal: bool", "    is_causal: bool")),
        "vllm_dllm/worker/model_runner.py",
        "vllm.v1.worker.gpu.attn_utils.build_attn_metadata(...) is called: got an unexpected keyword argument 'causal'",
    ),
    "a new field of a message that we make": (
        (
            "vllm/v1/core/sched/output.py",
            (
                "    scheduled_new_reqs: list[NewRequestData]",
                "    phase: int\n    scheduled_new_reqs: list[NewRequestData]",
            ),
        ),
        "vllm_dllm/scheduler.py",
        "DllmSchedulerOutput(...) is called: missing a required argument: 'phase'",
    ),
    "a field of a config": (
        ("vllm/config/scheduler.py", ("    max_num_batched_tokens: int", "    max_tokens_in_a_step: int")),
        "vllm_dllm/engine_config.py",
        "SchedulerConfig.max_num_batched_tokens: does not exist",
    ),
    "an attribute of vLLM's object": (
        ("vllm/v1/request.py", ("self.num_prompt_tokens", "self.prompt_length")),
        "vllm_dllm/starter.py",
        "vllm.v1.request.Request.num_prompt_tokens: does not exist",
    ),
    "a method that we override": (
        ("vllm/v1/core/sched/scheduler.py", ("def _free_request(", "def _release_request(")),
        "vllm_dllm/scheduler.py",
        "vllm.v1.core.sched.scheduler.Scheduler has none",
    ),
    "a parameter of a method that we override": (
        ("vllm/v1/core/sched/scheduler.py", ("def schedule(self, ", "def schedule(self, budget: int, ")),
        "vllm_dllm/scheduler.py",
        "Scheduler.schedule is overridden: ours has to take (self, throttle_prefills=False), and takes (self, budget, ",
    ),
    "a method that has to be there": (
        (
            "vllm/v1/metrics/loggers.py",
            (
                "    def log_engine_initialized",
                "    def begin(self): ...\n\n    @abstractmethod\n    def log_engine_initialized",
            ),
        ),
        "vllm_dllm/metrics.py",
        "vllm.v1.metrics.loggers.StatLoggerBase.begin is wanted: ours has none",
    ),
    "what the worker reads of its runner": (
        (
            "vllm/v1/worker/gpu_worker.py",
            ("self.model_runner.update_max_model_len(", "self.model_runner.set_max_model_len("),
        ),
        "vllm_dllm/worker/worker.py",
        "vllm.v1.worker.gpu_worker.Worker reads model_runner.set_max_model_len: "
        "vllm_dllm.worker.model_runner.DllmModelRunner has none",
    ),
    "a method that we add": (
        (
            "vllm/v1/engine/core.py",
            ("class EngineCore:\n", "class EngineCore:\n    def check_integrity(self): ...\n\n"),
        ),
        "patches/integrity.py",
        "vllm.v1.engine.core.EngineCore.check_integrity is added: it has one already",
    ),
}


GONE = "vllm/v1/executor/ray_executor_v2.py"


@pytest.fixture(scope="module")
def found() -> list[str]:
    """What does not fit in a vLLM with all these changes."""
    files: dict[str, str | None] = {GONE: None}
    for (file, (old, new)), _, _ in CHANGES.values():
        text = files.get(file) or VLLM(file)
        assert text is not None and old in text, (file, old)
        files[file] = text.replace(old, new)
    doctored = seams.seams(lambda path: files[path] if path in files else VLLM(path))
    return [str(seam) for seam in doctored if seam.problem]


@pytest.mark.parametrize("change", list(CHANGES))
def test_a_change_is_found(found, change):
    _, place, problem = CHANGES[change]
    assert any(line.startswith(place) and problem in line for line in found), found


def test_a_removed_module_is_found(found):
    assert any("vllm.v1.executor.ray_executor_v2.RayExecutorV2: does not exist" in line for line in found), found


def test_a_wheel_is_read_without_being_imported(tmp_path):
    """From the command line; a wheel of this vLLM, without one of its files."""
    folder = installed("vllm")
    with zipfile.ZipFile(tmp_path / "vllm.whl", "w") as wheel:
        for file in (folder / "vllm").rglob("*.py"):
            if (path := str(file.relative_to(folder))) != GONE:
                wheel.write(file, path)
    done = subprocess.run([*TOOL, str(tmp_path / "vllm.whl"), "--list"], capture_output=True, text=True)
    assert done.returncode == 1, done
    *lines, summary = done.stdout.splitlines()
    assert any(
        line.endswith("vllm.v1.core.sched.scheduler.Scheduler.update_from_output is overridden") for line in lines
    )
    bad = [line for line in lines if line.endswith("does not exist")]
    assert bad and all(line.startswith("patches/ray_cpu.py") for line in bad), bad
    assert summary.startswith(f"{len(lines)} seams with ") and not summary.endswith(" 0 do not fit")


def test_functions_that_are_written_differently_are_listed():
    """Of those at the seams: what has to be read, for it may mean something else."""
    file, old, new = "vllm/v1/core/sched/scheduler.py", "def make_stats(", "def make_stats(  # as ever\n"
    text = VLLM(file)
    assert text is not None and old in text and "request.num_in_flight_tokens -= num_tokens_scheduled" in text
    text = text.replace(old, new).replace("request.num_in_flight_tokens -=", "request.num_in_flight_tokens +=")
    found = seams.seams(VLLM)
    changed = seams.changed(found, VLLM, lambda path: text if path == file else VLLM(path))
    assert changed == ["vllm.v1.core.sched.scheduler.Scheduler.update_from_output"]
