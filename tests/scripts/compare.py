# SPDX-License-Identifier: MIT
"""Runs one script under plain python and under gopool, and compares what both print.

Process ids and measured seconds are masked and the order of lines is ignored, since processes
print side by side. Everything else has to be equal: each line as often, on the same stream, and
the exit code. The streams are pipes, whose end comes only when every process that holds them has
ended: a process that outlives its script therefore counts as a difference too.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

# Replacements that make two runs of one script comparable, in this order.
MASKS = (
    (re.compile(r"(Child process \d) \d+ "), r"\1 <pid> "),
    (re.compile(r"\b([Pp]rocess) \d{2,}"), r"\1 <pid>"),
    (re.compile(r"\b(Run task [A-Z][a-z]+)-\d+"), r"\1-<pid>"),
    (re.compile(r"\b\d+\.\d+ seconds"), "<seconds> seconds"),
    (re.compile(r"(the program time is :)\d+\.\d+"), r"\1<seconds>"),
)

# Left out of the environment: the first would choose gopool's start method, and the second makes
# print() write a line and its end apart, so that lines of two processes run into each other.
DROPPED = ("GOPOOL_START_METHOD", "PYTHONUNBUFFERED")

# Plain python has no option for the start method. Imported by every interpreter at its start.
SITECUSTOMIZE = """\
import multiprocessing
import os
multiprocessing.set_start_method(os.environ["PLAIN_START_METHOD"], force=True)
"""


@dataclass(frozen=True)
class Printed:
    """What a script left: its exit code and its lines, masked and sorted, by stream."""

    code: int
    out: list[str]
    err: list[str]


class Script:
    """A script that was started; `finish` waits for it and for all its processes."""

    def __init__(self, command, environment=None):
        self._name = " ".join(str(part) for part in command)
        # A session of its own, so that a script that hangs can be ended with all its children.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )

    def finish(self, timeout):
        """Return what the script printed; AssertionError if a process of it lives too long."""
        try:
            out, err = self._process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired as expired:
            state = "hangs" if self._process.poll() is None else "left a process behind"
            self.abandon()
            told = f"{expired.stdout or b''!r} {expired.stderr or b''!r}"
            raise AssertionError(f"{self._name} {state} after {timeout} s: {told}") from None
        return Printed(self._process.returncode, mask(out.decode()), mask(err.decode()))

    def abandon(self):
        """End the script and its processes, if any are left."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()


class Pairs:
    """Scripts under plain python and gopool, all running at the same time.

    They mostly sleep, so that all together take hardly longer than the slowest.
    """

    def __init__(self, folder):
        self._folder = Path(folder)
        (self._folder / "sitecustomize.py").write_text(SITECUSTOMIZE)
        self._scripts = {}

    def start(self, path, method):
        """Start `path` twice; `method` None stands for the interpreter's own default."""
        environment = {k: v for k, v in os.environ.items() if k not in DROPPED}
        option = [] if method is None else ["--start-method", method]
        gopool = Script([sys.executable, "-m", "gopool", *option, path], environment)
        if method is not None:
            environment["PLAIN_START_METHOD"] = method
            environment["PYTHONPATH"] = str(self._folder)
        plain = Script([sys.executable, path], environment)
        self._scripts[path, method] = plain, gopool

    def finish(self, path, method, timeout):
        """Return what both runs of `path` printed: first plain python's, then gopool's."""
        plain, gopool = self._scripts[path, method]
        return plain.finish(timeout), gopool.finish(timeout)

    def abandon(self):
        """End whatever nobody waited for."""
        for pair in self._scripts.values():
            for script in pair:
                script.abandon()


def mask(text):
    """Return the lines of `text`, sorted, without what differs between any two runs."""
    for pattern, replacement in MASKS:
        text = pattern.sub(replacement, text)
    return sorted(text.splitlines())


def selected_params(session, fixture):
    """Yield (path, method) of each test of `session` that uses `fixture`."""
    for item in session.items:
        if fixture in getattr(item, "fixturenames", ()) and hasattr(item, "callspec"):
            yield item.callspec.params["path"], item.callspec.params["method"]
