"""benchmarks/fidelity.py: what it draws, counts and compares, and that docs/fidelity.md is made from its numbers."""

import sys

import pytest
import tasks
from common import ROOT

sys.path.append(str(ROOT / "benchmarks"))
from fidelity import draw_prompts  # noqa: E402
from fidelity_report import compared, curves, draw_curves, measured, renewed  # noqa: E402
from fidelity_runs import Runs, pack  # noqa: E402
from fidelity_sweeps import CHECKPOINTS, Sweep, explicit, sweeps  # noqa: E402

NUMBERS = ROOT / "docs" / "fidelity.json"
POINTS = 1.0  # of accuracy that a policy's default may lose
LOSE_MORE = {"tiny-llada": {"dkv-prefill"}, "tiny-dream": {"dkv-decode"}}  # and why: docs/fidelity.md


def run(right: str, seconds: float = 1.0, computed: int = 100) -> dict:
    return {
        "right": pack(r == "1" for r in right),
        "computed": computed,
        "passes": 8,
        "answered": 12,
        "seconds": seconds,
    }


def two_runs(file) -> tuple[Runs, Sweep]:
    """A policy at its default beside the engine without a cache, on eight prompts."""
    runs = Runs(file, {"prompts": 8, "seed": 1})
    sweep = Sweep("dual", {"dllm_cache": "dual"})
    for settings, measured_run in ((sweep.baseline, run("11110000", 3.0)), (sweep.settings, run("11001000", 1.5, 40))):
        runs.add("tiny-llada", 1, explicit(settings, "tiny-llada"), measured_run, fastest=False)
    return runs, sweep


def test_prompts_are_of_all_kinds_and_graded_by_their_own_answer():
    drawn = draw_prompts(40, seed=3)
    kinds = [turn.split()[0] for turn, _ in drawn]
    assert {kind: kinds.count(kind) for kind in tasks.TASKS} == dict.fromkeys(tasks.TASKS, 10)
    assert all(tasks.answer(turn) == want for turn, want in drawn)
    assert drawn == draw_prompts(40, seed=3) != draw_prompts(40, seed=4)


def test_compared_with_the_baseline_prompt_by_prompt(tmp_path):
    runs, sweep = two_runs(tmp_path / "fidelity.json")
    c = compared(runs, "tiny-llada", sweep, None)
    assert (c.accuracy, c.lost, c.won, c.points) == (3 / 8, 2, 1, -12.5)
    assert (c.share, c.passes, c.rate, c.speed) == (0.4, 1.0, 8.0, 2.0)
    # differences -1, -1, 1 and five times 0: variance 3/8 - 1/64, of a mean of 8
    assert c.error == pytest.approx(100 * ((3 / 8 - 1 / 64) / 8) ** 0.5)


def test_the_file_gives_back_what_was_measured(tmp_path):
    runs, sweep = two_runs(tmp_path / "fidelity.json")
    runs.write()
    read = Runs.read(runs.file)
    assert (read.about, read.found) == (runs.about, runs.found)
    with pytest.raises(KeyError, match="--resume"):
        compared(read, "tiny-llada", sweep, None, second=True)


def test_the_fastest_run_counts(tmp_path):
    runs, sweep = two_runs(tmp_path / "fidelity.json")
    settings = explicit(sweep.settings, "tiny-llada")
    for seconds, kept in ((2.0, 1.5), (1.2, 1.2)):
        runs.add("tiny-llada", 1, settings, run("11001000", seconds), fastest=True)
        assert runs.get("tiny-llada", 1, settings)["seconds"] == kept


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_every_setting_that_is_measured_is_allowed(checkpoint):
    """And each sweep has the code's default among its values."""
    for sweep in sweeps(checkpoint):
        assert sweep.default in sweep.values
        assert all(explicit(sweep.at(value), checkpoint) for value in sweep.values)
        assert explicit(sweep.at(sweep.default), checkpoint) == explicit(sweep.settings, checkpoint)


def test_every_policy_is_measured():
    from vllm_dllm.caching.registry import FULL

    assert {s.cache for s in sweeps("tiny-llada") if s.main} == set(FULL)


def test_the_page_shows_the_numbers():
    page = NUMBERS.with_suffix(".md").read_text()
    assert page == renewed(page, Runs.read(NUMBERS)), "run `python benchmarks/fidelity.py --resume`"


@pytest.mark.parametrize("checkpoint", measured(Runs.read(NUMBERS)))
def test_the_defaults_in_the_code_lose_at_most_a_point_as_measured(checkpoint):
    """Over both sets of prompts; but for those that docs/fidelity.md explains."""
    runs = Runs.read(NUMBERS)
    above = set()
    for sweep in (s for s in sweeps(checkpoint) if s.main):
        first, second = (compared(runs, checkpoint, sweep, sweep.default, second) for second in (False, True))
        if (first.points + second.points) / 2 < -POINTS:
            above.add(sweep.name)
    assert above == LOSE_MORE[checkpoint]


def test_picture(tmp_path):
    """The same numbers make the same picture, with a name at each policy's curve."""
    pytest.importorskip("matplotlib", reason="the picture needs the extra `compare`")
    runs = Runs.read(NUMBERS)
    one, two = tmp_path / "one.svg", tmp_path / "two.svg"
    for file in (one, two):
        draw_curves(runs, "tiny-llada", file)
    assert one.read_bytes() == two.read_bytes()
    assert all(f">{name}<" in one.read_text() for name in curves(runs, "tiny-llada"))
