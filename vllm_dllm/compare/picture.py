"""A picture of policies: what they cost against what they give, each with its name beside it (extra `compare`)."""

import inspect
import itertools
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import matplotlib

from vllm_dllm.caching.registry import POLICIES

matplotlib.use("svg")
from matplotlib import pyplot  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: E402
from matplotlib.transforms import Bbox  # noqa: E402

INK = "#7f7f7f"  # a grey that can be read on white and on black
HUES = ("#d9822b", "#2f9e62", "#3b82d6", "#c2559d", "#9a6bd6", "#b0552f", "#2a9aa8")  # told apart on both
DASHES = ("-", "--", ":", "-.")
STYLE = {
    "svg.hashsalt": "vllm-dllm",  # the same file for the same numbers
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Arial", "Helvetica"],
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


@dataclass(frozen=True)
class Line:
    """One policy over one setting's values, or at one value. The large point is the one that is `marked`."""

    x: list[float]
    y: list[float]
    marked: int = 0
    error: float | None = None  # of the marked point's y, as a bar


def draw(
    lines: Mapping[str, Line],
    file: Path,
    title: str,
    labels: tuple[str, str],
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    band: tuple[float, float] | None = None,
) -> None:
    """An SVG. `labels` are the axes'; between `band` y is as good as the baseline's."""
    with pyplot.rc_context(STYLE):
        figure, axis = pyplot.subplots(figsize=(7.6, 5), dpi=72)  # SVG's own, or offsets in pixels are others
        if band:
            axis.axhspan(*band, color=INK, alpha=0.15, linewidth=0)
        for name, (colour, dashes) in styles(lines).items():
            line = lines[name]
            x, y = line.x[line.marked], line.y[line.marked]
            axis.plot(line.x, line.y, dashes, color=colour, linewidth=1, marker=".", markersize=4, alpha=0.8)
            axis.errorbar(x, y, line.error, fmt="o", color=colour, markersize=7, linewidth=0.7)
        if y_range:
            axis.set_ylim(*y_range)
        axis.margins(x=0.08)
        if x_range:
            axis.set_xlim(*x_range)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel(labels[0])
        axis.set_ylabel(labels[1])
        figure.tight_layout()
        figure.draw_without_rendering()  # or the axes' limits are not known yet
        _name(axis, lines)
        figure.savefig(file, transparent=True, metadata={"Date": None, "Creator": None})
        pyplot.close(figure)


def styles(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Colour and dashes by name. What comes from one paper has one colour, the same in every picture; `none` is grey."""
    papers = dict.fromkeys(_paper(policy) for policy in POLICIES)
    colours = dict(zip(papers, itertools.chain([INK], itertools.cycle(HUES)), strict=False))
    dashes = {paper: itertools.cycle(DASHES) for paper in papers}
    found = {}
    for name in names:
        paper = _paper(re.split("[,:]", name)[0])
        found[name] = colours[paper], next(dashes[paper])
    return found


def _paper(policy: str) -> str:
    """Where a policy comes from, as its module says."""
    module = " ".join((inspect.getdoc(sys.modules[POLICIES[policy].__module__]) or "").split())
    return module.partition("Source: ")[2].partition(" (")[0] or policy


def _name(axis: Axes, lines: Mapping[str, Line]) -> None:
    """Each line's name beside one of its points, where it covers least of what is there."""
    figure = axis.figure
    renderer = FigureCanvasAgg(figure).get_renderer()  # SVG's own does not know how wide a text is
    inside, known = axis.get_window_extent(renderer), styles(lines)
    drawn = {name: _along(axis, line) for name, line in lines.items()}
    placed: list[Bbox] = []
    # the least room first: those with one point
    for name in sorted(lines, key=lambda n: len(lines[n].x)):
        text = axis.annotate(
            name,
            (0, 0),
            xytext=(0, 0),
            textcoords="offset pixels",
            color=known[name][0],
            annotation_clip=False,
            fontsize=8,
        )
        size = text.get_window_extent(renderer)
        best: tuple[float, float, float, float, float] | None = None
        for at, (x, y) in enumerate(zip(lines[name].x, lines[name].y, strict=True)):
            px, py = axis.transData.transform((x, y))
            for dx, dy, cost in _places(size.width, size.height):
                box = Bbox.from_bounds(px + dx - 1, py + dy - 1, size.width + 2, size.height + 2)
                if not inside.contains(box.x0, box.y0) or not inside.contains(box.x1, box.y1):
                    continue
                hidden = sum(box.overlaps(other) for other in placed) * 100
                hidden += sum(box.contains(*p) for points in drawn.values() for p in points)
                score = hidden + cost + 0.3 * (at != lines[name].marked)
                if best is None or score < best[0]:
                    best = score, x, y, dx, dy
        if best is None:  # all of it is outside the picture
            text.remove()
            continue
        _, x, y, dx, dy = best
        text.xy = (x, y)
        text.set_position((dx, dy))
        px, py = axis.transData.transform((x, y))
        placed.append(Bbox.from_bounds(px + dx, py + dy, size.width, size.height))


def _along(axis: Axes, line: Line) -> list[tuple[float, float]]:
    """Places in pixels, some each few, along a line."""
    points = axis.transData.transform(list(zip(line.x, line.y, strict=True)))
    x, y = points[line.marked]
    found = [(x + dx, y + dy) for dx in (-4, 0, 4) for dy in (-4, 0, 4)]  # the large point
    for a, b in itertools.pairwise(points):
        steps = max(1, int(abs(b - a).max() // 4))
        found += [tuple(a + (b - a) * (i + 1) / steps) for i in range(steps)]
    return found


def _places(width: float, height: float) -> list[tuple[float, float, float]]:
    """Offsets of a text's lower left corner from a point, in pixels, the nearest and plainest first, with their cost."""
    found = []
    for gap in (6, 12, 20, 30):
        cost = gap / 60
        found += [
            (gap, -height / 2, cost),
            (-width - gap, -height / 2, cost),
            (-width / 2, gap, cost + 0.05),
            (-width / 2, -height - gap, cost + 0.05),
            (gap, gap, cost + 0.1),
            (-width - gap, gap, cost + 0.1),
            (gap, -height - gap, cost + 0.1),
            (-width - gap, -height - gap, cost + 0.1),
        ]
    return found
