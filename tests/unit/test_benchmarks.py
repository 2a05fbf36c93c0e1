# SPDX-License-Identifier: MIT
"""The benchmark's arithmetic, its order of measurements and its talk with fresh interpreters."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import json
import platform
import re
import subprocess
import sys
import threading
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
gates = _import("gates")
libraries = _import("libraries")
measure = _import("measure")
plots = _import("plots")
resources = _import("resources")
report = _import("report")
rows = _import("rows")
tasks = _import("tasks")

ALL = libraries.ALL


def _row(better: str = "higher", processes: int = 1, **keywords):
    return rows.Row("some", "some row", "tasks/s", better, processes, None, **keywords)


def _samples(row=None, beside=None, **figures: list[float]):
    """Rounds with these values by library; `beside` is shown beside every one of them."""
    beside = beside or {}
    rounds = [
        {
            name: measure.Figure(value, beside)
            for name, value in zip(figures, values, strict=True)
            if value is not None
        }
        for values in zip(*figures.values(), strict=True)
    ]
    return measure.Samples(row or _row(), rounds)


def _run(*samples, left_out=()):
    return measure.Run(len(samples[0].rounds), list(samples), list(left_out))


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
    samples = _samples(gopool=[10.0, 20.0, 90.0], stdlib=[10.0, 40.0, 30.0])
    summary = report.summarize(samples)
    assert summary.medians == {"gopool": 20.0, "stdlib": 30.0}
    assert summary.ratios == {"stdlib": report.Ratio(middle=1.0, low=0.75, high=2.0)}


def test_a_rival_is_compared_in_its_own_rounds():
    """A rival is measured in few rounds: what gopool did in the others is none of its business."""
    samples = _samples(gopool=[10.0, 90.0], stdlib=[10.0, 10.0], loky=[5.0, None])
    summary = report.summarize(samples)
    assert summary.ratios["loky"] == report.Ratio(2.0, 2.0, 2.0)
    assert summary.medians["loky"] == 5.0


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1), (0.5, 51), (0.99, 100), (1.0, 100)])
def test_quantile_is_the_nearest_rank(share, expected):
    """A percentile is one of the measured values, and the last one at most."""
    assert rows.quantile(list(range(100, 0, -1)), share) == expected


# --- table


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.0, "0"),
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


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.5, "0.50"), (2.346, "2.35"), (9.994, "9.99"), (9.996, "10.0"), (1234.0, "1,230")],
)
def test_ratios_have_two_decimals_or_three_digits(value, expected):
    """1.00 and 0.95 differ; 123.4 and 123.5 do not."""
    assert report.factor(value) == expected


def _cells(table: str) -> list[list[str]]:
    """The cells of an aligned table, which is checked to be one."""
    lines = table.splitlines()
    assert len({len(line) for line in lines}) == 1, lines
    assert set(lines[1]) == set("|-: ")
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_table_is_aligned_markdown():
    """Every line is as long as the others and has the same columns, so it reads as text too."""
    slow = _samples(
        _row("lower"), {"p99": 7.0}, gopool=[2000.0, 4000.0], stdlib=[8000.0, 8000.0]
    )
    summaries = [report.summarize(_samples(gopool=[30.0], stdlib=[10.0])), report.summarize(slow)]
    cells = _cells(report.pair_table(summaries))
    assert cells[0][:6] == ["row", "unit", "gopool", "stdlib", "ratio", "quartiles"]
    assert cells[2] == ["some row", "tasks/s", "30.0", "10.0", "3.00", "3.00 to 3.00", ""]
    assert cells[3][2:] == ["3,000", "8,000", "3.00", "2.50 to 3.50", "p99 7.00 / 7.00"]


def test_counts_have_no_ratio():
    """Nothing is so many times better than zero: both figures are shown."""
    samples = _samples(_row("lower", counts=True), gopool=[0.0], stdlib=[30.0], loky=[1500.0])
    summary = report.summarize(samples)
    assert summary.ratios == {}
    assert _cells(report.pair_table([summary]))[2][2:6] == ["0", "30", "", ""]
    assert _cells(report.rivals_table([summary]))[2] == ["`some`", "0 / 1,500"]


def test_rivals_stand_side_by_side():
    """One column for each rival that was measured, empty where it could not do the row."""
    summaries = [
        report.summarize(_samples(gopool=[8.0, 4.0], stdlib=[1.0, 1.0], loky=[2.0, 2.0])),
        report.summarize(_samples(gopool=[6.0], stdlib=[1.0], mpire=[2.0])),
        report.summarize(_samples(gopool=[6.0], stdlib=[1.0])),
    ]
    cells = _cells(report.rivals_table(summaries))
    assert cells[0] == ["row", "loky", "mpire"]
    assert cells[2:] == [
        ["`some`", "3.00 (2.50 to 3.50)", ""],
        ["`some`", "", "3.00 (3.00 to 3.00)"],
    ]
    assert report.rivals_table(summaries[2:]) == ""


def test_rows_by_scale_have_tables_of_their_own():
    """A sweep's many lines are kept apart, and what was left out is said at the end."""
    run = _run(
        _samples(gopool=[2.0], stdlib=[1.0], loky=[1.0]),
        _samples(_row(sweep=("tasks", 10)), gopool=[4.0], stdlib=[1.0]),
        left_out=["ray: it is not installed"],
    )
    facts = {**report.circumstances(measure.Effort()), "rounds": 1}
    lines = [line for line in report.text(facts, run).splitlines() if line[:1] not in ("|", "")]
    assert lines[1:] == [
        "### Rows, beside the other libraries",
        "### By scale",
        "Left out:",
        "- ray: it is not installed",
    ]


def test_the_heading_names_no_machine(monkeypatch):
    """Tables are published: neither the host's name nor a kernel's local name is in them."""
    monkeypatch.setattr(platform, "release", lambda: "6.1.0-18-secret-host")
    monkeypatch.setattr(platform, "node", lambda: "secret-host")
    facts = {**report.circumstances(measure.Effort(workers=3)), "rounds": 4}
    heading = report.heading(facts)
    assert "secret" not in heading + json.dumps(facts)
    assert "Linux 6.1.0 " in heading
    assert "workers: 3, rounds: 4" in heading
    assert "not to be quoted" not in heading


def test_the_heading_has_the_rivals_versions():
    """Figures of another library are of one of its versions."""
    facts = {**report.circumstances(measure.Effort(), ["gopool", "dask"]), "rounds": 4}
    facts["libraries"] = {"dask": "2030.1"}
    assert report.heading(facts).splitlines()[1:] == ["dask 2030.1"]


def test_a_quick_run_says_so():
    """Figures of a quick run can't be taken for real ones."""
    facts = {**report.circumstances(measure.Effort(quick=True)), "rounds": 1}
    assert report.heading(facts).endswith("not to be quoted")


def test_the_record_holds_every_round():
    """The JSON file lets other tools do other statistics than ours."""
    samples = _samples(beside={"p99": 7.0}, gopool=[30.0, 20.0], stdlib=[10.0, 5.0])
    (row,) = json.loads(json.dumps(report.record({"cpus": 2}, _run(samples))))["rows"]
    assert row["rounds"][1]["gopool"] == {"value": 20.0, "beside": {"p99": 7.0}}
    assert [figures["stdlib"]["value"] for figures in row["rounds"]] == [10.0, 5.0]
    assert (row["name"], row["better"]) == ("some", "higher")
    assert row["ratios"]["stdlib"]["middle"] == 3.5


def test_a_record_can_be_read_again():
    """Tables and plots can be made anew from a file, without measuring for an hour."""
    samples = _samples(rows.ROWS["async"], gopool=[30.0], stdlib=[10.0], loky=[5.0])
    gone = _samples(gopool=[1.0], stdlib=[1.0])
    facts = {**report.circumstances(measure.Effort()), "rounds": 1}
    record = json.loads(json.dumps(report.record(facts, _run(samples, gone, left_out=["x: y"]))))
    read_facts, run = report.read(record)
    assert read_facts == facts
    assert run == _run(samples, left_out=["x: y"])


# --- plots


def _sweep(name: str, better: str = "higher") -> list:
    points = [_row(better, sweep=(name, 10**exponent)) for exponent in range(3)]
    return [
        report.summarize(_samples(point, gopool=[10.0], stdlib=[5.0], loky=[1.0]))
        for point in points
    ]


@pytest.mark.skipif(not importlib.util.find_spec("matplotlib"), reason="pip install --group bench")
def test_plots_are_small_drawings_that_never_change(tmp_path):
    """A plot in the repository names what it shows, and changes only with its figures."""
    summaries = [
        report.summarize(_samples(gopool=[30.0], stdlib=[10.0], loky=[2.0])),
        *_sweep("tasks"),
        *_sweep("payload", "lower"),
    ]
    files = plots.draw(summaries, tmp_path / "new")
    assert [file.name for file in files] == ["ratios.svg", "scale-tasks.svg", "scale-payload.svg"]
    first = [file.read_text() for file in files]
    assert [file.read_text() for file in plots.draw(summaries, tmp_path / "new")] == first
    for text in first:
        assert len(text) < 100_000
        assert {"stdlib", "loky"} <= set(re.findall(r">([^<>]+)</text>", text))


# --- rounds


def _recorded_rounds(row_list, rounds, chosen=libraries.PAIR, fail=(), **effort):
    """The calls that run_rounds makes, as (row, library), and what it returns.

    `fail` has the names of libraries that fail.
    """
    calls = []
    values = itertools.count(1)

    def fake(row, library, effort):
        calls.append((row, library))
        if library in fail:
            raise measure.MeasureError(f"{library}: exit code 1\nTraceback\nno luck")
        return measure.Figure(next(values), {"place": len(calls)})

    limit = measure.Limit(rounds)
    return calls, measure.run_rounds(row_list, limit, measure.Effort(**effort), chosen, fake)


def test_the_libraries_take_turns_at_going_first():
    """Whoever is second finds warm caches or a hot processor: that must even out."""
    calls, run = _recorded_rounds([_row()], 4)
    assert [library for _, library in calls] == [
        "gopool", "stdlib",
        "stdlib", "gopool",
        "gopool", "stdlib",
        "stdlib", "gopool",
    ]  # fmt: skip
    (samples,) = run.samples
    assert [figure.value for figure in samples.of("gopool")] == [1, 4, 5, 8]
    assert [figure.value for figure in samples.of("stdlib")] == [2, 3, 6, 7]


def test_a_round_measures_every_row_once():
    """Rounds go through all rows, so that a drift of the machine reaches every row alike."""
    one, other = _row(), _row()
    calls, run = _recorded_rounds([one, other], 2)
    assert [row for row, _ in calls] == [one, one, other, other] * 2
    assert [len(samples.rounds) for samples in run.samples] == [2, 2]


def test_a_row_of_several_interpreters_gives_their_median():
    """Rows that an interpreter can do once are measured in several, in turns as well."""
    calls, run = _recorded_rounds([_row(processes=3)], 1)
    pair = list(libraries.PAIR)
    assert [library for _, library in calls] == [*pair, *reversed(pair), *pair]
    (figures,) = run.samples[0].rounds
    assert figures["gopool"] == measure.Figure(4, {"place": 4})  # of 1, 4 and 5
    assert figures["stdlib"] == measure.Figure(3, {"place": 3})  # of 2, 3 and 6


def test_a_quick_run_uses_one_interpreter_for_each_figure():
    """--quick is quick for every row."""
    calls, _ = _recorded_rounds([_row(processes=3)], 1, quick=True)
    assert len(calls) == 2


def test_rivals_and_full_rows_are_measured_in_every_third_round():
    """They take most of the time; the pair's small differences need the rounds."""
    common, full = _row(libraries=ALL), _row(full=True)
    calls, run = _recorded_rounds([common, full], 5, (*libraries.PAIR, "loky"))
    assert [len(samples.rounds) for samples in run.samples] == [5, 2]
    assert len(run.samples[0].of("loky")) == 2
    assert calls.count((full, "gopool")) == 2
    _, run = _recorded_rounds([common, full], 1, (*libraries.PAIR, "loky"))
    assert list(run.samples[0].rounds[0]) == ["gopool", "stdlib", "loky"]


def test_a_row_asks_only_those_that_can_do_it():
    """A library without processes of its own has no figure for starting one."""
    calls, _ = _recorded_rounds([_row(libraries=libraries.CONTEXTS)], 1, ALL)
    assert [library for _, library in calls] == ["gopool", "stdlib", "billiard", "multiprocess"]


def test_a_rival_that_fails_is_left_out_of_the_row():
    """A run of an hour does not end because a rival does; it is said, once, and not tried again."""
    calls, run = _recorded_rounds([_row(libraries=ALL)], 4, (*libraries.PAIR, "loky"), ["loky"])
    assert [library for _, library in calls].count("loky") == 1
    assert run.left_out == ["loky: exit code 1: no luck"]
    assert [list(figures) for figures in run.samples[0].rounds] == [["gopool", "stdlib"]] * 4


@pytest.mark.parametrize("name", libraries.PAIR)
def test_gopool_and_the_stdlib_must_not_fail(name):
    """A table without what it is about would be worth nothing."""
    with pytest.raises(measure.MeasureError, match="no luck"):
        _recorded_rounds([_row()], 1, fail=[name])


@pytest.mark.parametrize(
    ("seconds", "expected"), [(1.0, [1, 1]), (45.0, [2, 1]), (65.0, [2, 2]), (1e9, [5, 5])]
)
def test_no_row_is_begun_when_the_time_is_used_up(monkeypatch, seconds, expected):
    """--minutes holds; but the first round is made whole, so that no row is without figures."""
    now = 0.0

    def ten_seconds(row, library, effort):
        nonlocal now
        now += 10.0
        return measure.Figure(1.0)

    monkeypatch.setattr(measure, "monotonic", lambda: now)
    limit = measure.Limit(5, seconds)
    run = measure.run_rounds([_row(), _row()], limit, measure.Effort(), measure=ten_seconds)
    assert [len(samples.rounds) for samples in run.samples] == expected


def test_an_interrupted_run_keeps_its_figures():
    """Ctrl-C after half an hour does not lose what was measured."""
    calls = itertools.count()

    def interrupted(row, library, effort):
        if next(calls) == 6:
            raise KeyboardInterrupt
        return measure.Figure(1.0)

    limit = measure.Limit(5)
    run = measure.run_rounds([_row(), _row()], limit, measure.Effort(), measure=interrupted)
    assert [len(samples.rounds) for samples in run.samples] == [2, 1]
    assert run.rounds == 1
    assert run.left_out == ["what was not yet measured in round 2: interrupted"]


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


# --- rows


def _missing(row) -> list[str]:
    return [name for name in row.needs if importlib.util.find_spec(name) is None]


# One point of each sweep will do, the largest; the others run the same lines.
LAST_OF_SWEEPS = {row.sweep[0]: row.name for row in rows.ROWS.values() if row.sweep}
TRIED = [
    name
    for name, row in rows.ROWS.items()
    if row.sweep is None or LAST_OF_SWEEPS[row.sweep[0]] == name
]


@pytest.mark.parametrize("name", TRIED)
def test_every_row_works(name):
    """Whatever the table promises can be measured, of gopool and of the stdlib, in little time."""
    row = rows.ROWS[name]
    if missing := _missing(row):
        pytest.skip(f"needs {' and '.join(missing)}: pip install --group bench")
    for library in libraries.PAIR:
        figure = measure.measure_once(row, library, measure.Effort(seconds=0.0, quick=True))
        assert figure.value > 0 or row.counts, (library, figure)


@pytest.mark.parametrize("rival", [name for name in ALL if name not in libraries.PAIR])
def test_every_rival_works(rival):
    """An adapter calls what the library really has, for one row of each kind of call."""
    if libraries.LIBRARIES[rival].asked or not libraries.installed(rival):
        pytest.skip(f"{rival} is not installed, or starts servers")
    for name in ("async", "map", "imap-unordered", "latency", "words"):
        row = rows.ROWS[name]
        if rival in row.libraries:
            effort = measure.Effort(seconds=0.0, quick=True)
            assert measure.measure_once(row, rival, effort).value > 0, name


def test_every_row_is_described():
    """The page says of each row what is timed, and names no row that there is not."""
    page = (ROOT / "docs" / "performance.md").read_text()
    _, _, described = page.partition("| name | what is timed |\n|---|---|\n")
    names = "".join(re.findall(r"^\| (.*?) \|", described, re.MULTILINE))
    named = re.findall(r"`([\w.-]+)`", names)
    plain = {name for name, row in rows.ROWS.items() if row.sweep is None}
    assert plain <= set(named), plain - set(named)


def test_a_gate_holds_tasks_until_it_is_opened():
    """Whoever waits at the gate passes when it opens, and so does whoever comes later."""
    passed = threading.Event()
    with gates.gate() as gate:
        waiting = threading.Thread(target=lambda: (tasks.wait_at(gate.path), passed.set()))
        waiting.start()
        assert not passed.wait(0.05)
        gate.open()
        waiting.join(60.0)
        assert passed.is_set()
        tasks.wait_at(gate.path)


def test_activity_is_seen():
    """A thread that wakes up and works is counted: a zero in the table means that nothing did."""
    stop = threading.Event()
    before = resources.activity()
    turns = 0

    def spin():
        nonlocal turns
        while not stop.wait(0.001):
            turns += 1
            sum(range(10_000))

    thread = threading.Thread(target=spin)
    thread.start()
    try:
        while turns < 20:
            stop.wait(0.001)
        after = resources.activity()
    finally:
        stop.set()
        thread.join()
    assert after[0] - before[0] >= 10, (before, after)
    assert after[1] > before[1]


@pytest.mark.parametrize(("count", "expected"), [(0, 1), (7, 1), (8, 1), (9, 2), (1_000, 125)])
def test_chunks_are_those_of_the_stdlib(count, expected):
    """Libraries without chunks of their own get those that multiprocessing would make."""
    assert libraries.chunk_length(count, workers=2) == expected


# --- command line


def test_rows_are_chosen_by_name():
    """--rows takes names, keeps their order, and an unknown one names all there are."""
    assert main.chosen_rows("latency,async") == [rows.ROWS["latency"], rows.ROWS["async"]]
    with pytest.raises(Exception, match=r"no row named 'latenci'; there are async, "):
        main.chosen_rows("latenci,async")


def test_rivals_are_chosen_by_name():
    """--rivals takes names, or none; an unknown one names all there are."""
    assert main.chosen_rivals("ray,loky") == ["ray", "loky"]
    assert main.chosen_rivals("none") == []
    with pytest.raises(Exception, match=r"no library named 'lokey'; there are futures, "):
        main.chosen_rivals("lokey")


def test_a_rival_that_is_not_installed_is_said(monkeypatch):
    """Whoever lacks a library gets a table without it, and a sentence."""
    monkeypatch.setattr(main, "installed", lambda name: name == "futures")
    assert main.select_rivals(["futures", "loky"]) == (
        ["futures"],
        ["loky: it is not installed; `pip install loky`"],
    )
    chosen, sentences = main.select_rivals(None)
    assert chosen == ["futures"]
    assert not [line for line in sentences if line.startswith(("ray", "dask"))]


def test_rows_that_cannot_be_measured_are_said(monkeypatch):
    """A module or memory that is missing costs a row, not the run."""
    fine, needy, large = _row(), _row(needs=("no_such_module",)), _row(memory=2_000_000_000)
    monkeypatch.setattr(main, "available_memory", lambda: 1_000_000_000)
    assert main.select_rows([fine, needy, large], full=False) == (
        [fine],
        [
            "row `some`: it needs no_such_module",
            "row `some`: it needs 2 GB of memory, 1 GB are free",
        ],
    )


def test_rows_by_scale_are_for_full_runs():
    """Ten minutes do not hold a million tasks of seven libraries."""
    some, _ = main.select_rows(None, full=False)
    assert not [row.name for row in some if row.full]
    assert "async" in [row.name for row in some]


@pytest.mark.parametrize(
    ("arguments", "rounds", "seconds"),
    [
        ("", main.MOST_ROUNDS, 540.0),
        ("--rounds 5", 5, float("inf")),
        ("--minutes 2", main.MOST_ROUNDS, 120.0),
        ("--full", main.FULL_ROUNDS, float("inf")),
        ("--full --minutes 30", main.FULL_ROUNDS, 1800.0),
        ("--quick", main.QUICK_ROUNDS, float("inf")),
    ],
)
def test_a_run_is_limited(arguments, rounds, seconds):
    """Nine minutes unless something else is said."""
    options = main.parser().parse_args(arguments.split())
    assert main.limit(options) == measure.Limit(rounds, seconds)


def test_tables_are_put_between_their_marks():
    """The page's own text stays, and a page without marks is refused."""
    page = f"before\n\n{main.BEGIN}\nold\n{main.END}\nafter\n"
    assert main.insert("new", page) == f"before\n\n{main.BEGIN}\n\nnew\n\n{main.END}\nafter\n"
    with pytest.raises(measure.MeasureError, match="no lines"):
        main.insert("new", "before\n")


def test_a_quick_run_prints_a_table_and_writes_its_figures(tmp_path):
    """The whole path works: fresh interpreters, both libraries, table and file."""
    file = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--rounds", "1", "--rivals", "none"]
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
        figure = row["rounds"][0][library]
        assert 0 < figure["value"] <= figure["beside"]["p99 (µs)"], (library, figure)
