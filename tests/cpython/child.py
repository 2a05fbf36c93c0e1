# SPDX-License-Identifier: MIT
"""Runs CPython's multiprocessing suite in this process and reports each test as it goes.

Started by run.py, never by hand. Every event is one JSON line appended to the report file at
once, so that a crash or a hang leaves behind which test was running. Spawned children import this
file again as their main module, hence nothing but the standard library's core is imported at the
top, and everything happens below the main guard.
"""

import argparse
import builtins
import faulthandler
import importlib
import importlib.util
import json
import os
import re
import sys
import threading
import time
import traceback
import unittest

# Exit code of a forked child that came back into the test loop instead of ending.
STRAY_CHILD_EXIT = 90

# In 3.11 and 3.12 this test gives a ThreadPool tasks that sleep for LONG_TIMEOUT (five minutes) and
# terminates it at once. A thread that has begun one cannot be ended, so join() sometimes waits for
# all of it, with the standard library alone too. It sleeps as long as 3.13 lets it sleep.
SLEEPS_LONG = "WithThreadsTestPool.test_terminate"
SHORTER_SLEEP = 1.0  # seconds


class Report:
    """Appends events to the report file; each event is one line and one write."""

    def __init__(self, path):
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def write(self, event, **fields):
        """Append one event; a short single write is atomic, also from forked children."""
        line = json.dumps({"event": event, **fields}) + "\n"
        os.write(self._fd, line.encode())


class ReportingResult(unittest.TestResult):
    """Turns what unittest says about each test into events, and watches over each test.

    A test that takes longer than `limit` seconds ends the process with the stacks of all threads
    on stderr. A forked child that returns into the loop is stopped: without this it would run the
    rest of the suite a second time.
    """

    def __init__(self, report, limit):
        # Here and not at the top of the file, which every spawned child imports.
        from test import support

        super().__init__()
        support.verbose = 0
        self._support = support
        self._long_timeout = support.LONG_TIMEOUT
        self._report = report
        self._limit = limit
        self._pid = os.getpid()
        self._began = 0.0
        self._status = "passed"
        self._details = []
        self._running = False
        self._last = "before the first test"

    def startTest(self, test):
        """Note the start before anything of the test runs, and arm the watchdog."""
        if os.getpid() != self._pid:
            self._report.write("stray", id=test.id(), pid=os.getpid(), after=self._last)
            os._exit(STRAY_CHILD_EXIT)
        super().startTest(test)
        self.note_altered_environment()
        self._status, self._details = "passed", []
        self._running = True
        self._report.write("start", id=test.id())
        faulthandler.dump_traceback_later(self._limit, exit=True)
        self._last = test.id()
        if short_name(test.id()) == SLEEPS_LONG:
            self._support.LONG_TIMEOUT = SHORTER_SLEEP
        self._began = time.monotonic()

    def stopTest(self, test):
        """Note the end, with everything that was said about the test and its subtests."""
        if os.getpid() != self._pid:
            self._report.write("stray", id=test.id(), pid=os.getpid(), after=self._last)
            os._exit(STRAY_CHILD_EXIT)
        faulthandler.cancel_dump_traceback_later()
        self._support.LONG_TIMEOUT = self._long_timeout
        super().stopTest(test)
        self._running = False
        seconds = round(time.monotonic() - self._began, 3)
        details = "\n".join(self._details)
        self._report.write(
            "end", id=test.id(), status=self._status, seconds=seconds, detail=details
        )

    def addSkip(self, test, reason):
        """Keep the reason; 3.12.1 skips without a start, and so does a class or module fixture."""
        super().addSkip(test, reason)
        if self._running:
            self._status, self._details = "skipped", [reason]
            return
        one = isinstance(test, unittest.TestCase)
        self._report.write(
            "end" if one else "outside", id=test.id(), status="skipped", seconds=0, detail=reason
        )

    def addError(self, test, err):
        """Keep the traceback; fixtures of classes and modules have no start of their own."""
        super().addError(test, err)
        self._bad("error", test, err)

    def addFailure(self, test, err):
        """Keep the traceback of a failed assertion."""
        super().addFailure(test, err)
        self._bad("failed", test, err)

    def addSubTest(self, test, subtest, err):
        """A bad subtest makes its test bad, whatever the other subtests do."""
        super().addSubTest(test, subtest, err)
        if err is not None:
            failed = issubclass(err[0], test.failureException)
            self._bad("failed" if failed else "error", test, err, str(subtest))

    def addExpectedFailure(self, test, err):
        """A failure that the suite itself expects."""
        super().addExpectedFailure(test, err)
        self._status = "expected failure"

    def addUnexpectedSuccess(self, test):
        """A success where the suite expects a failure counts as a failure."""
        super().addUnexpectedSuccess(test)
        self._status, self._details = "failed", ["unexpected success"]

    def note_altered_environment(self):
        """Report dangling processes and threads, which the suite only prints as warnings."""
        if self._support.environment_altered:
            self._support.environment_altered = False
            self._report.write("altered", after=self._last)

    def note_thread_error(self, args):
        """Report an exception that ended a thread of this process (threading.excepthook)."""
        if args.exc_type is not SystemExit:
            error = (args.exc_type, args.exc_value, args.exc_traceback)
            self._note_loose_error(f"in thread {args.thread}", error)

    def note_unraisable(self, unraisable):
        """Report an exception that Python could only print (sys.unraisablehook)."""
        error = (unraisable.exc_type, unraisable.exc_value, unraisable.exc_traceback)
        self._note_loose_error(f"{unraisable.err_msg}: {unraisable.object!r}", error)

    def _note_loose_error(self, where, error):
        text = "".join(traceback.format_exception(*error))
        # A forked child runs under the same hooks; what happens there stays on its stderr.
        if os.getpid() == self._pid:
            self._report.write("loose", after=self._last, detail=f"{where}\n{text}")
        sys.stderr.write(f"{where}\n{text}")

    def _bad(self, status, test, err, label=""):
        text = label + "\n" + "".join(traceback.format_exception(*err))
        if isinstance(test, unittest.TestCase):
            self._details.append(text.strip())
            if self._status != "error":
                self._status = status
        else:
            self._report.write("outside", id=test.id(), status=status, detail=text.strip())


def short_name(test_id):
    """Return `Class.method` of a test's id."""
    return ".".join(test_id.split(".")[-2:])


def import_suite_retargeted():
    """Import CPython's test module with gopool in the place of multiprocessing (way 2).

    Only the import statements of the test module itself are redirected, at its top and inside its
    functions, through an `__import__` of its own; the standard library keeps its own view. So the
    suite meets exactly what `import gopool as multiprocessing` gives to a program.
    """

    def redirecting_import(name, globals=None, locals=None, fromlist=(), level=0):
        if level or name.partition(".")[0] != "multiprocessing":
            return builtins.__import__(name, globals, locals, fromlist, level)
        target = "gopool" + name[len("multiprocessing"):]
        return builtins.__import__(target, globals, locals, fromlist, 0)

    name = "test._test_multiprocessing"
    spec = importlib.util.find_spec(name)
    module = importlib.util.module_from_spec(spec)
    vars(module)["__builtins__"] = {**vars(builtins), "__import__": redirecting_import}
    sys.modules[name] = module
    spec.loader.exec_module(module)
    sys.modules["test"]._test_multiprocessing = module


def leave_out(tests, left_out):
    """Replace the tests that `left_out` names, (pattern, reason) pairs, by skips."""
    for test in tests:
        if isinstance(test, unittest.TestSuite):
            leave_out(test, left_out)
            continue
        for pattern, reason in left_out:
            if re.fullmatch(pattern, short_name(test.id())):
                skipped = unittest.skip(reason)(lambda: None)
                setattr(test, test._testMethodName, skipped)


def load_suite(options):
    """Hand over to gopool as asked, import the front file and return its tests."""
    if options.way == "install":
        import gopool

        gopool.install()
    elif options.way == "import":
        import_suite_retargeted()
    front_name = "front_" + options.method
    suite_module = importlib.import_module("test._test_multiprocessing")
    # The forkserver loads the suite once, as it does CPython's own front file of that name.
    suite_module.PRELOAD.append(front_name)
    loader = unittest.TestLoader()
    if options.pattern:
        patterns = options.pattern
        loader.testNamePatterns = [p if "*" in p else f"*{p}*" for p in patterns]
    tests = loader.loadTestsFromModule(importlib.import_module(front_name))
    leave_out(tests, options.left_out)
    return tests


def main():
    """Run the suite as the options say; the exit code only says that the run came to its end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--method", required=True)
    parser.add_argument("--way", choices=("plain", "install", "import"), required=True)
    parser.add_argument("--report", required=True)
    parser.add_argument("--limit", type=float, required=True)
    parser.add_argument("--left-out", type=json.loads, default=[])
    parser.add_argument("-k", dest="pattern", action="append")
    options = parser.parse_args()

    faulthandler.enable()
    # Imports and module fixtures are outside of any test: they get the limit of one.
    faulthandler.dump_traceback_later(options.limit, exit=True)
    report = Report(options.report)
    result = ReportingResult(report, options.limit)
    threading.excepthook = result.note_thread_error
    sys.unraisablehook = result.note_unraisable
    suite = load_suite(options)
    report.write("begin", count=suite.countTestCases())
    began = time.monotonic()
    suite.run(result)
    result.note_altered_environment()
    faulthandler.cancel_dump_traceback_later()
    report.write("finish", seconds=round(time.monotonic() - began, 1))


if __name__ == "__main__":
    main()
