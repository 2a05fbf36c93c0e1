# SPDX-License-Identifier: MIT
"""CPython's own multiprocessing suite through gopool, one test for each start method.

The runs take minutes, most of it waiting, so the session starts all that were selected at once
and each test waits for its own. run.py judges; its output explains a failure.
"""

import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).with_name("run.py")
NO_SUITE_EXIT = 5  # twin: run.py
# Seconds; above run.py's own limit for a run, so that its explanation comes first.
LIMIT = 700

CASES = {
    "fork": ["--method", "fork"],
    "spawn": ["--method", "spawn"],
    "forkserver": ["--method", "forkserver"],
    "way-2": ["--way", "2"],
}

pytestmark = [pytest.mark.cpython, pytest.mark.timeout(LIMIT + 30)]


@pytest.fixture(scope="session")
def suite_runs(request, tmp_path_factory):
    """Start run.py for each selected case at once; map the case to its process and its output."""
    folder = tmp_path_factory.mktemp("cpython")
    runs = {}
    for item in request.session.items:
        if "suite_runs" not in getattr(item, "fixturenames", ()):
            continue
        case = item.callspec.params["case"]
        output = folder / case
        with output.open("wb") as stream:
            command = [sys.executable, str(RUN), *CASES[case]]
            process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT)
        runs[case] = process, output
    yield runs
    for process, _ in runs.values():
        if process.poll() is None:
            process.terminate()
        process.wait()


@pytest.mark.parametrize("case", CASES)
def test_cpython_suite(suite_runs, case):
    """CPython's suite finds no difference, no hang and nothing left behind."""
    process, output = suite_runs[case]
    code = process.wait(LIMIT)
    text = output.read_text()
    print(text)
    if code == NO_SUITE_EXIT:
        pytest.skip("this interpreter came without CPython's tests (test._test_multiprocessing)")
    assert code == 0, f"exit code {code}\n{text}"
