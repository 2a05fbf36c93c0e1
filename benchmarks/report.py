# SPDX-License-Identifier: MIT
"""From figures to the table: medians, the ratios of the rounds and their quartiles."""

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

from benchmarks.measure import Effort, Figure, Samples
from benchmarks.rows import HIGHER

_HEAD = ("row", "unit", "gopool", "stdlib", "ratio", "quartiles", "beside it: gopool / stdlib")
_NUMERIC = range(2, 6)  # columns that are aligned to the right


@dataclass(frozen=True)
class Summary:
    """One line of the table; a ratio above 1 means that gopool is better.

    Attributes:
        gopool, stdlib: medians over the rounds, in the row's unit.
        ratio, low, high: median and quartiles of the ratios of the rounds. The ratio of the two
            medians is something else, for it mixes figures of different rounds.
        beside: by name, gopool's and the stdlib's median of what is shown beside.
    """

    name: str
    title: str
    unit: str
    gopool: float
    stdlib: float
    ratio: float
    low: float
    high: float
    beside: dict[str, tuple[float, float]]


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
    """One row's line, from at least one round."""
    row = samples.row
    pairs = zip(samples.gopool, samples.stdlib, strict=True)
    low, middle, high = quartiles([ratio(g.value, s.value, row.better) for g, s in pairs])
    names = samples.gopool[0].beside
    return Summary(
        name=row.name,
        title=row.title,
        unit=row.unit,
        gopool=median(figure.value for figure in samples.gopool),
        stdlib=median(figure.value for figure in samples.stdlib),
        ratio=middle,
        low=low,
        high=high,
        beside={
            name: (_beside(samples.gopool, name), _beside(samples.stdlib, name)) for name in names
        },
    )


def _beside(figures: Sequence[Figure], name: str) -> float:
    return median(figure.beside[name] for figure in figures)


def number(value: float) -> str:
    """Three significant digits and no exponent: 0.0123, 1.23, 12.3, 123, 12,300."""
    rounded = float(f"{value:.3g}")
    exponent = int(f"{value:e}".partition("e")[2])
    # Rounding may carry into a digit more (9.996 is 10.0).
    exponent = max(exponent, int(f"{rounded:e}".partition("e")[2]))
    return f"{rounded:,.{max(0, 2 - exponent)}f}"


def table(summaries: Sequence[Summary]) -> str:
    """Markdown, with columns padded so that it reads as plain text too."""
    lines = [_HEAD, *(_cells(summary) for summary in summaries)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(_HEAD))]
    rule = [
        "-" * (width - 1) + (":" if i in _NUMERIC else "-") for i, width in enumerate(widths)
    ]
    padded = [
        [
            cell.rjust(width) if i in _NUMERIC else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        for line in lines
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in [padded[0], rule, *padded[1:]])


def _cells(summary: Summary) -> tuple[str, ...]:
    beside = [
        f"{name} {number(gopool)} / {number(stdlib)}"
        for name, (gopool, stdlib) in summary.beside.items()
    ]
    return (
        summary.title,
        summary.unit,
        number(summary.gopool),
        number(summary.stdlib),
        f"{summary.ratio:.2f}",
        f"{summary.low:.2f} to {summary.high:.2f}",
        ", ".join(beside),
    )


def circumstances(rounds: int, effort: Effort) -> dict[str, Any]:
    """What a reader has to know beside the figures; nothing that names the machine."""
    return {
        "gopool": _version(),
        "cpus": len(os.sched_getaffinity(0)),
        "architecture": platform.machine(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        # The version only: what distributors and hosts put behind it may name them.
        "kernel": _leading_version(platform.release()),
        "load": round(os.getloadavg()[0], 1),
        "rounds": rounds,
        "workers": effort.workers,
        "quick": effort.quick,
        "date": datetime.now(timezone.utc).date().isoformat(),
    }


def _version() -> str:
    try:
        return metadata.version("gopool")
    except metadata.PackageNotFoundError:  # on the path, but not installed
        return "of a source tree"


def _leading_version(release: str) -> str:
    match = re.match(r"\d+(\.\d+)*", release)
    return match.group() if match else "unknown"


def heading(facts: dict[str, Any]) -> str:
    """The circumstances in one line."""
    line = (
        f"gopool {facts['gopool']}, {facts['python']}, Linux {facts['kernel']} "
        f"{facts['architecture']}, {facts['cpus']} CPUs (load {facts['load']} at the start), "
        f"workers: {facts['workers']}, rounds: {facts['rounds']}, {facts['date']}"
    )
    return line + "; quick run, not to be quoted" if facts["quick"] else line


def record(facts: dict[str, Any], samples: Sequence[Samples]) -> dict[str, Any]:
    """Everything, as JSON can hold it: the circumstances, and every figure of every round."""
    return {
        "circumstances": facts,
        "rows": [
            {
                **asdict(summarize(of_row)),
                "better": of_row.row.better,
                "rounds": {
                    "gopool": [asdict(figure) for figure in of_row.gopool],
                    "stdlib": [asdict(figure) for figure in of_row.stdlib],
                },
            }
            for of_row in samples
        ],
    }
