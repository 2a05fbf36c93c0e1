# SPDX-License-Identifier: MIT
"""From figures to tables: medians, the ratios of the rounds and their quartiles."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib import metadata
from statistics import median, quantiles
from typing import Any

from benchmarks.libraries import GOPOOL, LIBRARIES, PAIR, STDLIB
from benchmarks.measure import Effort, Figure, Run, Samples
from benchmarks.rows import HIGHER, ROWS, Row

_PAIR_HEAD = (
    "row", "unit", "gopool", "stdlib", "ratio", "quartiles", "beside it: gopool / stdlib",
)  # fmt: skip
_PAIR_NUMERIC = range(2, 6)  # columns that are aligned to the right


@dataclass(frozen=True)
class Ratio:
    """Median and quartiles of the ratios of the rounds; above 1, gopool is better.

    The ratio of the two medians is something else: it mixes figures of different rounds.
    """

    middle: float
    low: float
    high: float


@dataclass(frozen=True)
class Summary:
    """What is said of one row.

    Attributes:
        row: the row itself.
        medians: by library, over the rounds, in the row's unit.
        ratios: gopool's, by the library that it is compared with; empty where the row counts.
        beside: by library, medians by the name of what is shown beside.
    """

    row: Row
    medians: dict[str, float]
    ratios: dict[str, Ratio]
    beside: dict[str, dict[str, float]]


def ratio(gopool: float, stdlib: float, better: str) -> float:
    """How many times better gopool's figure is, whichever direction is the better one."""
    return gopool / stdlib if better == HIGHER else stdlib / gopool


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile, each within the range of the values."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = quantiles(values, n=4, method="inclusive")
    return low, middle, high


def summarize(samples: Samples) -> Summary:
    """One row, from at least one round."""
    names = [name for name in LIBRARIES if samples.of(name)]
    rivals = [] if samples.row.counts else [name for name in names if name != GOPOOL]
    return Summary(
        row=samples.row,
        medians={
            name: median(figure.value for figure in samples.of(name)) for name in names
        },
        ratios={name: _ratio(samples, name) for name in rivals},
        beside={name: _beside(samples.of(name)) for name in names},
    )


def _ratio(samples: Samples, rival: str) -> Ratio:
    """From the rounds in which both were measured."""
    low, middle, high = quartiles(
        [
            ratio(figures[GOPOOL].value, figures[rival].value, samples.row.better)
            for figures in samples.rounds
            if rival in figures
        ]
    )
    return Ratio(middle, low, high)


def _beside(figures: Sequence[Figure]) -> dict[str, float]:
    return {
        name: median(figure.beside[name] for figure in figures) for name in figures[0].beside
    }


def number(value: float) -> str:
    """Three significant digits and no exponent: 0.0123, 1.23, 12.3, 123, 12,300; 0 is 0."""
    if value == 0:
        return "0"
    rounded = float(f"{value:.3g}")
    exponent = int(f"{value:e}".partition("e")[2])
    # Rounding may carry into a digit more (9.996 is 10.0).
    exponent = max(exponent, int(f"{rounded:e}".partition("e")[2]))
    return f"{rounded:,.{max(0, 2 - exponent)}f}"


def factor(value: float) -> str:
    """A ratio: two decimals, or three digits from ten on."""
    return f"{value:.2f}" if value < 9.995 else number(value)


def spread(ratio: Ratio) -> str:
    return f"{factor(ratio.low)} to {factor(ratio.high)}"


def markdown(lines: Sequence[Sequence[str]], numeric: Sequence[int]) -> str:
    """A table of cells, the head first, padded so that it reads as plain text too."""
    columns = range(len(lines[0]))
    widths = [max(len(line[i]) for line in lines) for i in columns]
    rule = ["-" * (widths[i] - 1) + (":" if i in numeric else "-") for i in columns]
    padded = [
        [line[i].rjust(widths[i]) if i in numeric else line[i].ljust(widths[i]) for i in columns]
        for line in lines
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in [padded[0], rule, *padded[1:]])


def pair_table(summaries: Sequence[Summary]) -> str:
    """gopool beside the stdlib."""
    return markdown([_PAIR_HEAD, *map(_pair_cells, summaries)], _PAIR_NUMERIC)


def _pair_cells(summary: Summary) -> tuple[str, ...]:
    ratio = summary.ratios.get(STDLIB)
    beside = [
        f"{name} {number(gopool)} / {number(summary.beside[STDLIB][name])}"
        for name, gopool in summary.beside[GOPOOL].items()
    ]
    return (
        summary.row.title,
        summary.row.unit,
        _figure(summary, GOPOOL),
        _figure(summary, STDLIB),
        factor(ratio.middle) if ratio else "",
        spread(ratio) if ratio else "",
        ", ".join(beside),
    )


def rivals_table(summaries: Sequence[Summary]) -> str:
    """How many times better gopool is than each rival; "" if there is no rival."""
    rivals = [
        name
        for name in LIBRARIES
        if name not in PAIR and any(name in summary.medians for summary in summaries)
    ]
    if not rivals:
        return ""
    lines = [
        (f"`{summary.row.name}`", *(_rival_cell(summary, rival) for rival in rivals))
        for summary in summaries
        if any(rival in summary.medians for rival in rivals)
    ]
    return markdown([("row", *rivals), *lines], range(1, len(rivals) + 1))


def _rival_cell(summary: Summary, rival: str) -> str:
    if rival in summary.ratios:
        ratio = summary.ratios[rival]
        return f"{factor(ratio.middle)} ({spread(ratio)})"
    if rival in summary.medians:
        return f"{_figure(summary, GOPOOL)} / {_figure(summary, rival)}"
    return ""


def _figure(summary: Summary, library: str) -> str:
    value = summary.medians[library]
    return f"{value:,.0f}" if summary.row.counts else number(value)


def text(facts: dict[str, Any], run: Run) -> str:
    """Everything that is shown: the circumstances, the tables, what was left out."""
    summaries = [summarize(samples) for samples in run.samples if samples.rounds]
    plain = [summary for summary in summaries if summary.row.sweep is None]
    scaled = [summary for summary in summaries if summary.row.sweep is not None]
    parts = [heading(facts)]
    for title, some in (("", plain), ("By scale", scaled)):
        if some:
            parts += [f"### {title}" if title else "", pair_table(some)]
        if rivals := rivals_table(some):
            parts += [f"### {title or 'Rows'}, beside the other libraries", rivals]
    if run.left_out:
        parts.append("\n".join(["Left out:", "", *(f"- {line}" for line in run.left_out)]))
    return "\n\n".join(part for part in parts if part)


def circumstances(effort: Effort, libraries: Sequence[str] = PAIR) -> dict[str, Any]:
    """What a reader has to know beside the figures; nothing that names the machine.

    Taken before the first round, so that the load is the others'; how many rounds were made is
    added as "rounds".
    """
    return {
        "gopool": version("gopool"),
        "libraries": {
            name: version(distribution)
            for name in libraries
            if (distribution := LIBRARIES[name].distribution)
        },
        "cpus": len(os.sched_getaffinity(0)),
        "architecture": platform.machine(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        # The version only: what distributors and hosts put behind it may name them.
        "kernel": _leading_version(platform.release()),
        "load": round(os.getloadavg()[0], 1),
        "workers": effort.workers,
        "quick": effort.quick,
        "date": datetime.now(timezone.utc).date().isoformat(),
    }


def version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:  # on the path, but not installed
        return "of a source tree"


def _leading_version(release: str) -> str:
    match = re.match(r"\d+(\.\d+)*", release)
    return match.group() if match else "unknown"


def heading(facts: dict[str, Any]) -> str:
    """The circumstances in one line, and the rivals' versions in a second one."""
    line = (
        f"gopool {facts['gopool']}, {facts['python']}, Linux {facts['kernel']} "
        f"{facts['architecture']}, {facts['cpus']} CPUs (load {facts['load']} at the start), "
        f"workers: {facts['workers']}, rounds: {facts['rounds']}, {facts['date']}"
    )
    if facts["quick"]:
        line += "; quick run, not to be quoted"
    rivals = [f"{name} {version}" for name, version in facts["libraries"].items()]
    return f"{line}\n{', '.join(rivals)}" if rivals else line


def record(facts: dict[str, Any], run: Run) -> dict[str, Any]:
    """Everything, as JSON can hold it: the circumstances, and every figure of every round."""
    return {
        "circumstances": facts,
        "left_out": run.left_out,
        "rows": [_row_record(samples) for samples in run.samples if samples.rounds],
    }


def _row_record(samples: Samples) -> dict[str, Any]:
    summary = summarize(samples)
    return {
        "name": samples.row.name,
        "title": samples.row.title,
        "unit": samples.row.unit,
        "better": samples.row.better,
        "medians": summary.medians,
        "ratios": {name: asdict(ratio) for name, ratio in summary.ratios.items()},
        "beside": summary.beside,
        "rounds": [
            {name: asdict(figure) for name, figure in figures.items()}
            for figures in samples.rounds
        ],
    }


def read(record: dict[str, Any]) -> tuple[dict[str, Any], Run]:
    """Circumstances and figures of an earlier record; rows that are no more are left out."""
    facts = record["circumstances"]
    samples = [
        Samples(
            ROWS[row["name"]],
            [
                {name: Figure(**figure) for name, figure in figures.items()}
                for figures in row["rounds"]
            ],
        )
        for row in record["rows"]
        if row["name"] in ROWS
    ]
    return facts, Run(facts["rounds"], samples, record["left_out"])
