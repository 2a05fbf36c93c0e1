# SPDX-License-Identifier: MIT
"""Plots of a run's summaries as SVG files: one of all ratios, and one for each sweep."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.libraries import GOPOOL, LIBRARIES, STDLIB
from benchmarks.report import Summary

# Of matplotlib's ten standard colours, in the order of LIBRARIES: the same in every plot.
_COLOURS = {name: f"C{number % 10}" for number, name in enumerate(LIBRARIES)}
_AXES = {
    "tasks": "tasks in one go",
    "workers": "workers in the pool",
    "payload": "bytes in the argument",
}


def draw(summaries: Sequence[Summary], folder: Path) -> list[Path]:
    """Write the plots for which there are figures into a folder, which is made if need be.

    Returns:
        the files: ratios.svg, and scale-NAME.svg for each sweep.
    """
    import matplotlib

    matplotlib.use("Agg")
    # Text as text, no random ids and no date: small files, and equal ones for equal figures.
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "gopool", "font.size": 9})
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    plain = [summary for summary in summaries if summary.row.sweep is None and summary.ratios]
    if plain:
        written.append(_save(_ratios(plain), folder / "ratios.svg"))
    for sweep in _AXES:
        points = [summary for summary in summaries if summary.row.sweep is not None]
        points = [summary for summary in points if summary.row.sweep[0] == sweep]
        if points and all(summary.medians for summary in points):
            written.append(_save(_scale(sweep, points), folder / f"scale-{sweep}.svg"))
    return written


def _save(figure, path: Path) -> Path:
    figure.savefig(path, metadata={"Date": None}, bbox_inches="tight")
    return path


def _ratios(summaries: Sequence[Summary]):
    """One line for each row, one mark for each library; quartiles for the stdlib."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1 + 0.28 * len(summaries)))
    axes = figure.subplots()
    places = range(len(summaries), 0, -1)
    names = [name for name in LIBRARIES if any(name in each.ratios for each in summaries)]
    for name in names:
        some = [
            (each.ratios[name], place)
            for each, place in zip(summaries, places, strict=True)
            if name in each.ratios
        ]
        ratios = [ratio for ratio, _ in some]
        middles = [ratio.middle for ratio in ratios]
        style = {"color": _COLOURS[name], "label": name}
        if name == STDLIB:
            below = [ratio.middle - ratio.low for ratio in ratios]
            above = [ratio.high - ratio.middle for ratio in ratios]
            at = [place for _, place in some]
            axes.errorbar(middles, at, xerr=[below, above], fmt="D", capsize=3, zorder=3, **style)
        else:
            axes.scatter(middles, [place for _, place in some], s=22, alpha=0.8, **style)
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("how many times better gopool is (right of 1: gopool is better)")
    axes.set_yticks(list(places), [summary.row.name for summary in summaries])
    axes.grid(axis="both", alpha=0.3)
    axes.legend(ncols=len(names), loc="lower center", bbox_to_anchor=(0.45, 1.0), frameon=False,
                columnspacing=1.0, handletextpad=0.2)  # fmt: skip
    return figure


def _scale(sweep: str, summaries: Sequence[Summary]):
    """Figures over the sweep's axis, one line for each library."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6))
    axes = figure.subplots()
    for name in LIBRARIES:
        points = [
            (each.row.sweep[1], each.medians[name]) for each in summaries if name in each.medians
        ]
        if points:
            width = 2.0 if name in (GOPOOL, STDLIB) else 1.0
            axes.plot(*zip(*points, strict=True), marker="o", markersize=3, linewidth=width,
                      color=_COLOURS[name], label=name)  # fmt: skip
    axes.set_xscale("log", base=2 if sweep == "workers" else 10)
    axes.set_yscale("log")
    if sweep == "workers":
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axes.set_xlabel(_AXES[sweep])
    row = summaries[0].row
    axes.set_ylabel(f"{row.unit} ({row.better} is better)")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure
