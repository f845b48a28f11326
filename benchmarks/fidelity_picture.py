"""The picture of benchmarks/fidelity.py: speed against accuracy, a curve for each policy."""

from pathlib import Path

import matplotlib
from fidelity_runs import Curve

matplotlib.use("svg")
from matplotlib import pyplot  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402

INK = "#7f7f7f"  # a grey that can be read on white and on black
LINES = {  # hues that can be told apart on both; the lines of one paper share one
    "none": ("#7f7f7f", "-"),
    "prefix": ("#d9822b", "--"),
    "dual": ("#d9822b", "-"),
    "dkv-decode": ("#2f9e62", "-"),
    "dkv-greedy": ("#2f9e62", ":"),
    "dkv-prefill": ("#2f9e62", "-."),
    "dkv-pd": ("#2f9e62", "--"),
    "dkv-decode, un_right": ("#9bb545", "-"),
    "dkv-pd, un_right": ("#9bb545", "--"),
    "entropy": ("#3b82d6", "-"),
    "entropy, by page": ("#3b82d6", "--"),
    "elastic": ("#c2559d", "-"),
    "d2": ("#9a6bd6", "-"),
}
STYLE = {
    "svg.hashsalt": "fidelity",  # the same file for the same numbers
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
LOWEST = -8  # points; what lies below is left out, with its curve running off the picture


def draw(curves: dict[str, dict[str, Curve]], file: Path) -> None:
    """`curves`: by checkpoint and policy."""
    with pyplot.rc_context(STYLE):
        figure, axes = pyplot.subplots(1, len(curves), figsize=(4.6 * len(curves), 4.2), sharey=True, squeeze=False)
        for axis, (checkpoint, lines) in zip(axes[0], curves.items(), strict=True):
            _panel(axis, checkpoint, lines)
        axes[0][0].set_ylabel("accuracy against no cache, in points")
        found = {
            label: handle for axis in axes[0] for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
        }
        names = [name for name in LINES if name in found]
        figure.legend([found[n] for n in names], names, loc="lower center", ncol=6, frameon=False)
        figure.subplots_adjust(left=0.07, right=0.99, top=0.92, bottom=0.26, wspace=0.06)
        figure.savefig(file, transparent=True, metadata={"Date": None, "Creator": None})
        pyplot.close(figure)


def _panel(axis: Axes, checkpoint: str, lines: dict[str, Curve]) -> None:
    axis.axhspan(-1, 0, color=INK, alpha=0.2, linewidth=0)
    axis.axvline(1, color=INK, linewidth=0.5)
    for name, curve in lines.items():
        colour, dashes = LINES[name]
        speed, accuracy = [c.speed for c in curve.points], [c.points for c in curve.points]
        axis.plot(speed, accuracy, dashes, color=colour, linewidth=1.3, marker=".", markersize=4, label=name)
        default = curve.points[curve.default]
        axis.errorbar(default.speed, default.points, default.error, fmt="o", color=colour, markersize=7, linewidth=0.7)
    axis.set_ylim(LOWEST, max(2, *(c.points + 0.5 for curve in lines.values() for c in curve.points)))
    axis.set_title(checkpoint, fontsize=10)
    axis.set_xlabel("speed against no cache")
