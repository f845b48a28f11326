"""The tables and the picture of what benchmarks/fidelity.py measured."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fidelity_runs import Compared, Runs
from fidelity_sweeps import CHECKPOINTS, Sweep, explicit, sweeps

MARKED = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
LOWEST, DEAREST = -4, 115  # points, percent; curves run off the picture there
HEAD = ("policy", "setting", "right", "points", "lost / won", "computed", "passes", "tokens/s", "speed")


def write_report(runs: Runs) -> None:
    """The Markdown tables and the SVG beside the file of `runs`."""
    page = runs.file.with_suffix(".md")
    page.write_text(renewed(page.read_text() if page.exists() else fresh(runs), runs))
    for checkpoint in measured(runs):
        draw_curves(runs, checkpoint, runs.file.with_name(f"{runs.file.stem}-{checkpoint}.svg"))


def measured(runs: Runs) -> list[str]:
    found = {run["checkpoint"] for run in runs.found.values()}
    return [c for c in CHECKPOINTS if c in found]


def fresh(runs: Runs) -> str:
    """A page of tables alone."""
    names = [f"{kind}-{c}" for c in measured(runs) for kind in ("defaults", "knobs", "others")]
    return "\n".join(f"## {name}\n\n<!-- table: {name} -->\n<!-- end -->\n" for name in names)


def renewed(text: str, runs: Runs) -> str:
    """`text` with its tables as they should be. Raises KeyError if `runs` lacks what a table shows."""

    def table(match: re.Match[str]) -> str:
        kind, _, checkpoint = match[2].partition("-")
        made = {"defaults": defaults, "knobs": knobs, "others": others, "about": about}[kind](runs, checkpoint)
        return f"{match[1]}{made}{match[3]}"

    return MARKED.sub(table, text)


def about(runs: Runs, _: str) -> str:
    a = runs.about
    return (
        f"{a['prompts']} prompts, {a['in_flight']} requests at once, {a['machine']}, "
        f"{'one run' if a['rounds'] == 1 else 'the fastest of ' + str(a['rounds']) + ' runs'} of each line.\n"
    )


def present(runs: Runs, checkpoint: str) -> list[Sweep]:
    """The sweeps of the policies that were measured."""
    caches = {run["settings"]["dllm_cache"] for run in runs.found.values() if run["checkpoint"] == checkpoint}
    return [s for s in sweeps(checkpoint) if s.cache in caches]


def compared(runs: Runs, checkpoint: str, sweep: Sweep, value: Any, second: bool = False) -> Compared:
    """A sweep's run at one value beside its baseline's; `second`: on the second set of prompts."""
    settings, baseline = explicit(sweep.at(value), checkpoint), explicit(sweep.baseline_at(value), checkpoint)
    assert settings is not None and baseline is not None
    return runs.compare(checkpoint, runs.about["seed"] + second, settings, baseline)


def knobs(runs: Runs, checkpoint: str) -> str:
    """The policies' main knobs: what the picture shows."""
    return _sweep_table(runs, checkpoint, [s for s in present(runs, checkpoint) if s.main])


def others(runs: Runs, checkpoint: str) -> str:
    """The other knobs that were measured, with the main one at its default."""

    def has(sweep: Sweep) -> bool:
        wanted = [f(value) for value in sweep.values for f in (sweep.at, sweep.baseline_at)]
        return all(runs.has(checkpoint, runs.about["seed"], explicit(settings, checkpoint)) for settings in wanted)

    return _sweep_table(runs, checkpoint, [s for s in present(runs, checkpoint) if not s.main and has(s)])


def _sweep_table(runs: Runs, checkpoint: str, chosen: list[Sweep]) -> str:
    rows = []
    for sweep in chosen:
        for value in sweep.values:
            c = compared(runs, checkpoint, sweep, value)
            name = sweep.knob.removeprefix("dllm_") if sweep.knob else ""
            setting = f"{name} {value:g}" if sweep.knob else ""
            cells = [sweep.name, setting, *_cells(c)]
            rows.append([f"**{x}**" if x else x for x in cells] if value == sweep.default else cells)
    return _table(HEAD, rows)


def defaults(runs: Runs, checkpoint: str) -> str:
    """Every policy's default on both sets of prompts."""
    rows = []
    for sweep in (s for s in present(runs, checkpoint) if s.main):
        first, second = (compared(runs, checkpoint, sweep, sweep.default, second) for second in (False, True))
        both = (first.points + second.points) / 2
        rows.append(
            [
                sweep.name,
                *(f"{100 * c.accuracy:.1f}" for c in (first, second)),
                *(f"{c.points:+.1f}" for c in (first, second)),
                f"{both:+.1f} ± {(first.error**2 + second.error**2) ** 0.5 / 2:.1f}",
                f"{first.lost + second.lost} / {first.won + second.won}",
                f"{100 * (first.share + second.share) / 2:.0f} %",
            ]
        )
    head = ("policy", "right, first set", "second", "points, first", "second", "both", "lost / won", "computed")
    return _table(head, rows)


def _cells(c: Compared) -> list[str]:
    return [
        f"{100 * c.accuracy:.1f}",
        f"{c.points:+.1f} ± {c.error:.1f}",
        f"{c.lost} / {c.won}",
        f"{100 * c.share:.0f} %",
        f"{c.passes:.1f}",
        f"{c.rate:.0f}",
        f"{c.speed:.2f}",
    ]


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head), *map(list, rows)]
    left = sum(name in ("policy", "setting") for name in lines[0])
    lines.insert(1, ["---"] * left + ["---:"] * (len(lines[0]) - left))
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def curves(runs: Runs, checkpoint: str) -> dict[str, list[Compared]]:
    """What the picture shows: the policies' main knobs."""
    chosen = [s for s in present(runs, checkpoint) if s.main]
    return {s.name: [compared(runs, checkpoint, s, value) for value in s.values] for s in chosen}


def draw_curves(runs: Runs, checkpoint: str, file: Path) -> None:
    """The picture: what a policy computes against what it answers right, the defaults' points large."""
    from vllm_dllm.compare.picture import Line, draw  # needs matplotlib

    marked = {s.name: s.values.index(s.default) for s in sweeps(checkpoint) if s.main}
    lines = {
        name: Line([100 * c.share for c in curve], [c.points for c in curve], at := marked[name], curve[at].error)
        for name, curve in curves(runs, checkpoint).items()
    }
    highest = max(2, *(y + 0.5 for line in lines.values() for y in line.y))
    labels = ("positions computed, % of no cache", "accuracy against no cache, in points")
    draw(lines, file, checkpoint, labels, x_range=(0, DEAREST), y_range=(LOWEST, highest), band=(-1, 0))
