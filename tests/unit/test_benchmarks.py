# SPDX-License-Identifier: MIT
"""The benchmark's arithmetic, its order of measurements and its talk with fresh interpreters."""

from __future__ import annotations

import importlib
import itertools
import json
import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _import(name: str):
    """A module of benchmarks/, which is used from the repository's root and never installed."""
    sys.path.append(str(ROOT))
    try:
        return importlib.import_module(f"benchmarks.{name}")
    finally:
        sys.path.remove(str(ROOT))


main = _import("__main__")
measure = _import("measure")
report = _import("report")
rows = _import("rows")


def _row(better: str = "higher", processes: int = 1):
    return rows.Row("some", "some row", "tasks/s", better, processes, None)


def _samples(gopool: list[float], stdlib: list[float], better: str = "higher", **beside):
    """Rounds with these values; `beside` is shown beside every one of them."""
    return measure.Samples(
        _row(better),
        [measure.Figure(value, beside) for value in gopool],
        [measure.Figure(value, beside) for value in stdlib],
    )


# --- statistics


@pytest.mark.parametrize(
    ("better", "gopool", "stdlib", "expected"),
    [("higher", 300.0, 100.0, 3.0), ("lower", 300.0, 100.0, 1 / 3), ("lower", 50.0, 100.0, 2.0)],
)
def test_a_ratio_above_one_means_that_gopool_is_better(better, gopool, stdlib, expected):
    """Rates are divided one way and durations the other; else half the table would lie."""
    assert report.ratio(gopool, stdlib, better) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([2.0], (2.0, 2.0, 2.0)),
        ([1.0, 3.0], (1.5, 2.0, 2.5)),
        ([5.0, 1.0, 4.0, 2.0, 3.0], (2.0, 3.0, 4.0)),
    ],
)
def test_quartiles_lie_within_the_values(values, expected):
    """Quartiles work from one round on, in any order, and never leave the measured range."""
    assert report.quartiles(values) == expected


def test_the_ratio_is_the_median_of_the_rounds_ratios():
    """Figures of one round are compared with one another, not with those of slower rounds."""
    summary = report.summarize(_samples([10.0, 20.0, 90.0], [10.0, 40.0, 30.0]))
    assert (summary.gopool, summary.stdlib) == (20.0, 30.0)
    assert summary.ratio == 1.0
    assert (summary.low, summary.high) == (0.75, 2.0)


def test_rounds_that_lack_a_partner_are_refused():
    """A lost figure must not shift the pairs against each other."""
    with pytest.raises(ValueError, match=r"zip\(\)"):
        report.summarize(_samples([1.0, 2.0], [1.0]))


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1), (0.5, 51), (0.99, 100), (1.0, 100)])
def test_quantile_is_the_nearest_rank(share, expected):
    """A percentile is one of the measured values, and the last one at most."""
    assert rows.quantile(list(range(100, 0, -1)), share) == expected


# --- table


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.012345, "0.0123"),
        (0.9996, "1.00"),
        (1.0, "1.00"),
        (9.996, "10.0"),
        (12.345, "12.3"),
        (123.45, "123"),
        (999.6, "1,000"),
        (45678.9, "45,700"),
    ],
)
def test_numbers_have_three_significant_digits(value, expected):
    """Figures are as exact as they deserve, without an exponent."""
    assert report.number(value) == expected


def test_the_table_is_aligned_markdown():
    """Every line is as long as the others and has the same columns, so it reads as text too."""
    summaries = [
        report.summarize(_samples([30.0], [10.0])),
        report.summarize(_samples([2000.0, 4000.0], [8000.0, 8000.0], "lower", p99=7.0)),
    ]
    lines = report.table(summaries).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert len({len(line) for line in lines}) == 1, lines
    assert cells[0][:6] == ["row", "unit", "gopool", "stdlib", "ratio", "quartiles"]
    assert set(lines[1]) == set("|-: ")
    assert cells[2] == ["some row", "tasks/s", "30.0", "10.0", "3.00", "3.00 to 3.00", ""]
    assert cells[3][2:] == ["3,000", "8,000", "3.00", "2.50 to 3.50", "p99 7.00 / 7.00"]


def test_the_heading_names_no_machine(monkeypatch):
    """Tables are published: neither the host's name nor a kernel's local name is in them."""
    monkeypatch.setattr(platform, "release", lambda: "6.1.0-18-secret-host")
    monkeypatch.setattr(platform, "node", lambda: "secret-host")
    facts = report.circumstances(4, measure.Effort(workers=3))
    heading = report.heading(facts)
    assert "secret" not in heading + json.dumps(facts)
    assert "Linux 6.1.0 " in heading
    assert "workers: 3, rounds: 4" in heading
    assert "not to be quoted" not in heading


def test_a_quick_run_says_so():
    """Figures of a quick run can't be taken for real ones."""
    facts = report.circumstances(1, measure.Effort(quick=True))
    assert report.heading(facts).endswith("not to be quoted")


def test_the_record_holds_every_round():
    """The JSON file lets other tools do other statistics than ours."""
    samples = _samples([30.0, 20.0], [10.0, 5.0], p99=7.0)
    text = json.dumps(report.record({"cpus": 2}, [samples]))
    (row,) = json.loads(text)["rows"]
    assert row["rounds"]["gopool"][1] == {"value": 20.0, "beside": {"p99": 7.0}}
    assert [figure["value"] for figure in row["rounds"]["stdlib"]] == [10.0, 5.0]
    assert (row["name"], row["better"], row["ratio"]) == ("some", "higher", 3.5)


# --- rounds


def _recorded_rounds(row_list, rounds, **effort):
    """The calls that run_rounds makes, as (row, library), and what it returns."""
    calls = []
    values = itertools.count(1)

    def fake(row, library, effort):
        calls.append((row, library))
        return measure.Figure(next(values), {"place": len(calls)})

    samples = measure.run_rounds(row_list, rounds, measure.Effort(**effort), fake)
    return calls, samples


def test_the_libraries_take_turns_at_going_first():
    """Whoever is second finds warm caches or a hot processor: that must even out."""
    calls, samples = _recorded_rounds([_row()], 4)
    assert [library for _, library in calls] == [
        "gopool", "multiprocessing",
        "multiprocessing", "gopool",
        "gopool", "multiprocessing",
        "multiprocessing", "gopool",
    ]  # fmt: skip
    assert [figure.value for figure in samples[0].gopool] == [1, 4, 5, 8]
    assert [figure.value for figure in samples[0].stdlib] == [2, 3, 6, 7]


def test_a_round_measures_every_row_once():
    """Rounds go through all rows, so that a drift of the machine reaches every row alike."""
    one, other = _row(), _row()
    calls, samples = _recorded_rounds([one, other], 2)
    assert [row for row, _ in calls] == [one, one, other, other] * 2
    assert [len(of_row.gopool) for of_row in samples] == [2, 2]


def test_a_row_of_several_interpreters_gives_their_median():
    """Rows that an interpreter can do once are measured in several, in turns as well."""
    calls, samples = _recorded_rounds([_row(processes=3)], 1)
    libraries = [library for _, library in calls]
    assert libraries == [*measure.LIBRARIES, *reversed(measure.LIBRARIES), *measure.LIBRARIES]
    assert samples[0].gopool == [measure.Figure(4, {"place": 4})]  # of 1, 4 and 5
    assert samples[0].stdlib == [measure.Figure(3, {"place": 3})]  # of 2, 3 and 6


def test_a_quick_run_uses_one_interpreter_for_each_figure():
    """--quick is quick for every row."""
    calls, _ = _recorded_rounds([_row(processes=3)], 1, quick=True)
    assert len(calls) == 2


# --- fresh interpreters


@pytest.mark.parametrize(
    ("out", "reason"),
    [
        ("", "no figure"),
        ("warning: something\n", "no figure"),
        ("[1]", "no figure"),
        ('{"value": 1}', "no figure"),
        ('{"value": "fast", "beside": {}}', "no figure"),
        ('{"value": 1, "beside": [2]}', "no figure"),
        ('{"value": 0, "beside": {}}', "above zero"),
        ('{"value": NaN, "beside": {}}', "above zero"),
    ],
)
def test_a_reply_without_a_figure_is_refused(out, reason):
    """Nonsense stops the run and names its row; it never becomes a line of the table."""
    with pytest.raises(measure.MeasureError, match=f"^row x: .*{reason}"):
        measure.parse(out, "row x")


def test_a_failed_interpreter_is_quoted():
    """The message of a failed measurement holds what the interpreter itself said."""
    command = [sys.executable, "-c", "import sys; sys.exit('no luck today')"]
    with pytest.raises(measure.MeasureError, match=r"^row x: exit code 1\nno luck today$"):
        measure.run(command, 60.0, "row x")


def test_a_worker_left_behind_fails_the_measurement():
    """A pool that leaves a process running is noticed, and the process is ended."""
    command = ["sh", "-c", "sleep 600 & echo done"]
    with pytest.raises(measure.MeasureError, match=r"^row x: did not end within 0\.2 s$"):
        measure.run(command, 0.2, "row x")  # returns once the pipes are closed: nobody has them


def test_measured_interpreters_use_bytecode(monkeypatch):
    """A setting of the caller must not make gopool, and gopool only, compile at every start."""
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    command = [sys.executable, "-c", "import sys; print(sys.dont_write_bytecode)"]
    assert measure.run(command, 60.0, "row x") == "False\n"


def test_wrong_results_stop_a_measurement():
    """A fast pool that loses items gets no figure."""
    pool = SimpleNamespace(map=lambda function, items, chunksize: items[1:])
    context = SimpleNamespace(Pool=lambda workers: pool)
    setup = rows.Setup(SimpleNamespace(get_context=lambda method: context), 0.0, 2, 0.0)
    with pytest.raises(RuntimeError, match="5000 items in, 4999 out"):
        rows.ROWS["map-1"].body(setup)


# --- command line


def test_rows_are_chosen_by_name():
    """--rows takes names, keeps their order, and an unknown one names all there are."""
    assert main.chosen_rows("latency,async") == [rows.ROWS["latency"], rows.ROWS["async"]]
    with pytest.raises(Exception, match=r"no row named 'latenci'; there are async, "):
        main.chosen_rows("latenci,async")


def test_a_quick_run_prints_a_table_and_writes_its_figures(tmp_path):
    """The whole path works: fresh interpreters, both libraries, table and file."""
    file = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--rounds", "1"]
    done = subprocess.run(
        [*command, "--rows", "latency", "--json", str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "round 1: latency" in done.stderr
    heading, _, head, _, line = done.stdout.splitlines()
    assert heading.endswith("not to be quoted")
    assert head.startswith("| row ")
    assert line.startswith(f"| {rows.ROWS['latency'].title} ")
    (row,) = json.loads(file.read_text())["rows"]
    for library in ("gopool", "stdlib"):
        (figure,) = row["rounds"][library]
        assert 0 < figure["value"] <= figure["beside"]["p99 (µs)"], (library, figure)
