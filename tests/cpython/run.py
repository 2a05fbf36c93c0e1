# SPDX-License-Identifier: MIT
"""Runs CPython's own multiprocessing suite (test._test_multiprocessing) through gopool.

    python tests/cpython/run.py                     fork, spawn, forkserver and way 2, side by side
    python tests/cpython/run.py --method fork -v    one start method, with its slowest tests
    python tests/cpython/run.py --plain             the same without gopool, for comparison
    python tests/cpython/run.py --way 2 -k TestPool   only TestPool, through gopool's names

The suite is the one of the interpreter that runs this file. Each start method gets a process of
its own (child.py). The exit code is 0 only if no test failed, hung or was skipped without a rule
in skips.py, no thread died, nothing dangled, and no process was left.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import skips

HERE = Path(__file__).resolve().parent
# Seconds. The slowest test takes 24 s with plain python on two busy cores.
TEST_LIMIT = 120.0
# Seconds for one whole run; plain python needs 70 to 125 on two cores.
RUN_LIMIT = 600.0
# Seconds in which the fork server and the resource tracker have to notice that the run is over.
EXIT_GRACE = 10.0
# Every process of a run carries this variable, so that left-over ones are found whoever owns them.
MARKER = "GOPOOL_SUITE_RUN"
NO_SUITE_EXIT = 5  # the interpreter has no test package; the same code as pytest's "no tests"


@dataclass(frozen=True)
class Case:
    """One run of the suite: a start method, and the way in which gopool is reached."""

    method: str
    way: str  # plain, install or import

    @property
    def name(self) -> str:
        """Name for tables."""
        return self.method if self.way != "import" else self.method + " (way 2)"


@dataclass
class Outcome:
    """What one run said: tests by status, and everything that should not have happened."""

    case: Case
    expected: int | None = None
    finished: bool = False
    seconds: float = 0.0
    status: dict[str, str] = field(default_factory=dict)
    duration: dict[str, float] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    running: str | None = None
    complaints: list[str] = field(default_factory=list)

    def count(self, status: str) -> int:
        """Return how many tests ended with `status`."""
        return Counter(self.status.values())[status]


class Run:
    """One child process with the suite in it, from its start to its outcome."""

    def __init__(self, case: Case, pattern: list[str]) -> None:
        self.case = case
        self._marker = uuid.uuid4().hex
        self._folder = Path(tempfile.mkdtemp(prefix="gopool-suite-"))
        self._report = self._folder / "report"
        self._log = self._folder / "log"
        work = self._folder / "work"  # current directory and place of temporary files
        work.mkdir()
        rules = [rule for rule in skips.GOPOOL if rule.applies(case.method, case.way)]
        left_out = [(rule.test, rule.reason) for rule in rules]
        command = [sys.executable, str(HERE / "child.py"), "--method", case.method]
        command += ["--way", case.way, "--report", str(self._report), "--limit", str(TEST_LIMIT)]
        if case.way != "plain":
            command += ["--left-out", json.dumps(left_out)]
        for one in pattern:
            command += ["-k", one]
        # The fork server preloads the front file by name and ignores sys.path: hence PYTHONPATH.
        search = os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH"))))
        environment = {**os.environ, MARKER: self._marker, "PYTHONPATH": search}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd=work, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._deadline = time.monotonic() + RUN_LIMIT

    def wait(self) -> Outcome:
        """Wait for the end or the deadline, look for left-over processes and judge the report."""
        overdue = False
        try:
            self._process.wait(max(0.0, self._deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            overdue = True
            # faulthandler answers this signal with the stacks of all threads.
            self._process.send_signal(signal.SIGABRT)
            self._process.wait()
        outcome = self._read_report()
        if overdue:
            outcome.complaints.append(f"not at its end after {RUN_LIMIT:.0f} s")
        self._judge(outcome)
        for line in end_left_over(self._marker):
            outcome.complaints.append(f"process left: {line}")
        if outcome.complaints:
            outcome.complaints.append(f"end of its output ({self._log} has all):\n{self._tail()}")
        else:
            shutil.rmtree(self._folder)
        return outcome

    def abandon(self) -> None:
        """End the child and everything that it started."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        end_left_over(self._marker, grace=0.0)

    def _read_report(self) -> Outcome:
        outcome = Outcome(self.case)
        lines = self._report.read_text().splitlines() if self._report.exists() else []
        for line in lines:
            take_event(outcome, json.loads(line))
        return outcome

    def _judge(self, outcome: Outcome) -> None:
        if not outcome.finished:
            where = f"in {outcome.running}" if outcome.running else "outside of any test"
            code = self._process.returncode
            outcome.complaints.append(f"ended {where} with exit code {code}, or hung there")
        elif outcome.expected != len(outcome.status):
            told = f"{len(outcome.status)} of {outcome.expected}"
            outcome.complaints.append(f"only {told} tests reported an end")
        elif not outcome.status:
            outcome.complaints.append("no test ran")
        elif self._process.returncode != 0:
            code = self._process.returncode
            outcome.complaints.append(f"exit code {code} after the last test")
        for test, reason in outcome.skipped.items():
            if not skips.is_allowed(test, reason, self.case.method, self.case.way):
                outcome.complaints.append(f"skipped without a rule: {test}: {reason}")

    def _tail(self, lines: int = 60) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])


def take_event(outcome: Outcome, event: dict) -> None:
    """Add one event of the report (see child.py) to `outcome`."""
    kind = event["event"]
    test = ".".join(event.get("id", "").split(".")[-2:])
    if kind == "begin":
        outcome.expected = event["count"]
    elif kind == "start":
        outcome.running = test
    elif kind == "end":
        outcome.running = None
        outcome.status[test] = event["status"]
        outcome.duration[test] = event["seconds"]
        if event["status"] == "skipped":
            outcome.skipped[test] = event["detail"]
        elif event["status"] in ("failed", "error"):
            outcome.complaints.append(f"{event['status']}: {test}\n{event['detail']}")
    elif kind == "outside":
        outcome.complaints.append(f"{event['status']} in {event['id']}\n{event['detail']}")
    elif kind == "altered":
        outcome.complaints.append(f"processes or threads dangle after {event['after']}")
    elif kind == "loose":
        outcome.complaints.append(f"error nobody caught, {event['after']}\n{event['detail']}")
    elif kind == "stray":
        outcome.complaints.append(f"a forked child (pid {event['pid']}) came back at {test}")
    elif kind == "finish":
        outcome.finished, outcome.seconds = True, event["seconds"]


def find_left_over(marker: str) -> list[int]:
    """Return the pids of all live processes that inherited `marker` in their environment."""
    wanted = f"{MARKER}={marker}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            # Gone in between, or of another user.
            with contextlib.suppress(OSError):
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found


def end_left_over(marker: str, grace: float = EXIT_GRACE) -> list[str]:
    """Give what is left of a run `grace` seconds to end, kill the rest, return a line for each."""
    lines = []
    deadline = time.monotonic() + grace
    for pid in find_left_over(marker):
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        with closing_fd(pidfd):
            remaining = max(0.0, deadline - time.monotonic())
            if select.select([pidfd], [], [], remaining)[0]:
                continue
            command = b""
            with contextlib.suppress(OSError):
                command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
            lines.append(f"pid {pid}: {command.decode(errors='replace').strip()}")
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    return lines


@contextlib.contextmanager
def closing_fd(fd: int):
    """Close a bare descriptor at the end of the block."""
    try:
        yield
    finally:
        os.close(fd)


def print_table(outcomes: list[Outcome], verbose: bool) -> None:
    """Print one line for each run, then complaints; with `verbose`, skips and slowest tests."""
    version = sys.version.split()[0]
    print(f"CPython {version}, test._test_multiprocessing")
    columns = ("run", "passed", "failed", "errors", "skipped", "seconds")
    print(f"{'':20}" + "".join(f"{column:>9}" for column in columns))
    for outcome in outcomes:
        counts = [outcome.count(status) for status in ("passed", "failed", "error", "skipped")]
        counts[0] += outcome.count("expected failure")
        row = [len(outcome.status), *counts, outcome.seconds]
        print(f"{outcome.case.name:20}" + "".join(f"{cell:>9}" for cell in row))
    for outcome in outcomes:
        if verbose:
            print_details(outcome)
        for complaint in outcome.complaints:
            print(f"\n{outcome.case.name}: {complaint}")


def print_details(outcome: Outcome) -> None:
    """Print every skip with its reason and the ten slowest tests of one run."""
    print(f"\n{outcome.case.name}: skipped")
    for test, reason in sorted(outcome.skipped.items()):
        print(f"  {test}: {reason}")
    print(f"{outcome.case.name}: slowest")
    slowest = sorted(outcome.duration.items(), key=lambda item: -item[1])[:10]
    for test, seconds in slowest:
        print(f"  {seconds:7.2f} s  {test}")


def choose_cases(options: argparse.Namespace) -> list[Case]:
    """Return the runs that the options ask for; without options all four."""
    methods = options.method or list(skips.ALL_METHODS)
    if options.plain:
        return [Case(method, "plain") for method in methods]
    if options.way == 2:
        # Spawned children import multiprocessing by themselves: way 2 is about the forked suite.
        return [Case(method, "import") for method in options.method or ["fork"]]
    cases = [Case(method, "install") for method in methods]
    if not options.method and options.way is None:
        cases.append(Case("fork", "import"))
    return cases


def main() -> int:
    """Run what the command line asks for, side by side, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--method",
        action="append",
        choices=skips.ALL_METHODS,
        help="run this start method; may be given again (default: all three, and fork by way 2)",
    )
    parser.add_argument(
        "--way",
        type=int,
        choices=(2, 3),
        help="how gopool is reached: 2 by its names, in the place of multiprocessing's (fork "
        "unless --method says otherwise), 3 by install()",
    )
    parser.add_argument(
        "--plain", action="store_true", help="run the suite without gopool, to compare"
    )
    parser.add_argument(
        "-k",
        dest="pattern",
        metavar="PATTERN",
        action="append",
        default=[],
        help="run the tests whose names match, as unittest's -k does; may be given again",
    )
    parser.add_argument(
        "-v",
        dest="verbose",
        action="store_true",
        help="print every skip with its reason, and the ten slowest tests",
    )
    options = parser.parse_args()
    if importlib.util.find_spec("test._test_multiprocessing") is None:
        print(f"{sys.executable} came without CPython's tests (test._test_multiprocessing)")
        return NO_SUITE_EXIT

    runs: list[Run] = []
    # So that a caller's terminate() ends the runs too.
    signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(128 + signum))
    try:
        for case in choose_cases(options):
            runs.append(Run(case, options.pattern))
        outcomes = [run.wait() for run in runs]
    except BaseException:
        for run in runs:
            run.abandon()
        raise
    print_table(outcomes, options.verbose)
    return 1 if any(outcome.complaints for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
