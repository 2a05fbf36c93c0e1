# SPDX-License-Identifier: MIT
"""What a worker that crashed leaves behind: the dump of its crash, the end of its stderr.

pytest has faulthandler on, and so have the workers that are forked from it: the tests of dumps run
scripts.
"""

from __future__ import annotations

import os
import pickle
from typing import Any

import pytest

import functions as f
import gopool
from gopool import _lastwords
from gopool._lastwords import LastWords

CRASH = """
    import faulthandler, pickle, sys
    import functions as f
    import gopool

    def lost(pool, function, *args):
        try:
            pool.apply(function, args)
        except gopool.WorkerLostError as error:
            assert pickle.loads(pickle.dumps(error)).dump == error.dump
            return error

    if __name__ == "__main__":
        method, action, *rest = sys.argv[1:]
        context = gopool.get_context(method)
        name, *arguments = action.split(":")
        if rest:
            faulthandler.enable()
        for _ in range(2):  # the second pool's workers are forked with Go loaded
            with context.Pool(1) as pool:
                error = lost(pool, getattr(f, name), *map(int, arguments))
                print(error.exitcode, error.dump.rstrip() in str(error), pool.apply(f.square, (3,)))
                for line in error.dump.splitlines():
                    if line.startswith("Fatal") or "functions.py" in line:
                        print(line.split(",")[-1].strip())
"""

NAMES = {
    "SIGSEGV": "Segmentation fault",
    "SIGFPE": "Floating point exception",
    "SIGABRT": "Aborted",
    "SIGBUS": "Bus error",
    "SIGILL": "Illegal instruction",
}


@pytest.mark.parametrize("name", NAMES)
def test_dump(tmp_path: Any, start_method: str, name: str) -> None:
    """Each crashing signal leaves a dump that names it and the task's line; the code stays."""
    import signal

    number = int(signal.Signals[name])
    done = f.run_script(tmp_path, CRASH, start_method, f"crash:{number}")
    once = f"-{number} True 9\nFatal Python error: {NAMES[name]}\n"
    frames = f"line {f.crash.__code__.co_firstlineno + 2} in crash\n"
    done.stdout = done.stdout.replace("Floating-point", "Floating point")  # Python 3.13's words
    f.assert_silent_success(done, (once + frames) * 2)


def test_dump_of_a_real_segfault(tmp_path: Any, start_method: str) -> None:
    """So does a fault of the processor's."""
    done = f.run_script(tmp_path, CRASH, start_method, "segfault")
    line = f.segfault.__code__.co_firstlineno + 4
    once = f"-11 True 9\nFatal Python error: Segmentation fault\nline {line} in segfault\n"
    f.assert_silent_success(done, once * 2)


@pytest.mark.parametrize("action", ["exit_hard", "kill_self"])
def test_no_dump(tmp_path: Any, start_method: str, action: str) -> None:
    """A worker that exits, or is killed, leaves none."""
    done = f.run_script(tmp_path, CRASH, start_method, action)
    f.assert_silent_success(done, f"{3 if action == 'exit_hard' else -9} True 9\n" * 2)


def test_own_faulthandler_before_a_fork(tmp_path: Any) -> None:
    """Where the program's own faulthandler is on, the dump goes where that wants it."""
    done = f.run_script(tmp_path, CRASH, "fork", "segfault", "on")
    assert (done.returncode, done.stdout) == (0, "-11 True 9\n" * 2)
    assert done.stderr.count("Fatal Python error: Segmentation fault") == 2


def test_own_faulthandler_by_environment(tmp_path: Any, start_method: str) -> None:
    """PYTHONFAULTHANDLER, and -X faulthandler, hold in workers as in every process."""
    done = f.run_script(
        tmp_path, CRASH, start_method, "segfault", env={"PYTHONFAULTHANDLER": "1"}
    )
    assert (done.returncode, done.stdout) == (0, "-11 True 9\n" * 2)
    assert done.stderr.count("Fatal Python error: Segmentation fault") == 2


def test_own_faulthandler_in_a_task(tmp_path: Any, start_method: str) -> None:
    """A task that turns faulthandler on for stderr, or off, has its way."""
    done = f.run_script(tmp_path, CRASH, start_method, "crash_with:1")
    assert (done.returncode, done.stdout) == (0, "-11 True 9\n" * 2)
    assert done.stderr.count("Fatal Python error: Segmentation fault") == 2
    done = f.run_script(tmp_path, CRASH, start_method, "crash_with:0")
    f.assert_silent_success(done, "-11 True 9\n" * 2)


FORKS = """
    import sys
    import functions as f
    import gopool

    if __name__ == "__main__":
        with gopool.get_context(sys.argv[1]).Pool(1, daemon=False) as pool:
            print(pool.apply(f.crash_in_fork))
            print(pool.apply(f.nested_crash, (sys.argv[1],)))
            try:
                pool.apply(f.kill_self)
            except gopool.WorkerLostError as error:
                print(repr(error.dump))
"""


def test_a_forked_childs_crash_is_its_own(tmp_path: Any, start_method: str) -> None:
    """What a task's child leaves is not the worker's; a pool in a worker has its own dumps."""
    done = f.run_script(tmp_path, FORKS, start_method)
    f.assert_silent_success(done, "-11\nFatal Python error: Segmentation fault\n''\n")


def test_a_broken_pools_reason_is_the_dump() -> None:
    """Where initializers crash every caller is told where; a traceback that came counts more."""
    words = LastWords(2)
    words.keep(4, "dump 4", "")
    for reason in ("", "Traceback"):
        error = gopool.BrokenPoolError(4, -11, reason)
        words.tell(error)
        assert error.reason == (reason or "dump 4")
    words.tell(ValueError())  # others are left alone


def test_last_words_are_bounded() -> None:
    """Only the newest are kept; a process with the same number has none of its predecessor's."""
    words = LastWords(2)
    for pid in range(1, 5):
        words.keep(pid, f"dump {pid}", "")
    assert list(words._kept) == [3, 4]
    words.keep(4, "", "")
    error = gopool.WorkerLostError(4)
    words.tell(error)
    assert (error.dump, error.stderr) == ("", "")
    error = gopool.WorkerLostError(3)
    words.tell(error)
    assert error.dump == "dump 3"
    assert words._kept == {}


def test_no_memory_for_a_dump(monkeypatch: Any, context: Any) -> None:
    """A pool that finds no memory for dumps goes without."""

    def refuse(*args: Any) -> int:
        raise OSError

    with monkeypatch.context() as patched:
        patched.setattr(os, "memfd_create", refuse)
        assert _lastwords.new_memory([]) == -1
    monkeypatch.setattr(_lastwords, "new_memory", lambda owner: -1)
    with context.Pool(1) as pool:
        with pytest.raises(gopool.WorkerLostError) as caught:
            pool.apply(f.kill_self)
        assert caught.value.dump == ""


# Capture of stderr.

CAPTURE = """
    import os, sys
    import functions as f
    import gopool

    if __name__ == "__main__":
        with gopool.get_context(sys.argv[1]).Pool(1, capture_stderr=True) as pool:
            print(pool.apply(os.isatty, (2,)))
            pool.apply(f.write_stderr, ("one\\n",))
            for text, count in (("two\\n", 1), ("x" * 99 + "\\n", 5000)):
                try:
                    pool.apply(f.write_stderr_and_die, (text, count))
                except gopool.WorkerLostError as error:
                    print(len(error.stderr), error.stderr.splitlines()[:2] == ["one", "two"])
                    print(set(error.stderr.splitlines()[2:]) == {"x" * 99}, "xxx" in str(error))
            pool.apply(f.write_stderr, ("end",))
"""


def test_capture_stderr(tmp_path: Any, start_method: str) -> None:
    """The last lines come with the error, and all that was written is on stderr too."""
    done = f.run_script(tmp_path, CAPTURE, start_method)
    assert done.stdout == "False\n8 True\nFalse False\n8100 False\nTrue False\n"
    assert done.stderr == "one\ntwo\n" + ("x" * 99 + "\n") * 5000 + "end"


def test_nothing_is_captured_unasked(context: Any) -> None:
    """Without the keyword the worker's descriptor 2 is this process's."""
    with context.Pool(1) as pool:
        with pytest.raises(gopool.WorkerLostError) as caught:
            pool.apply(f.exit_hard)
        assert caught.value.stderr == ""
        assert pool.apply(os.readlink, ("/proc/self/fd/2",)) == os.readlink("/proc/self/fd/2")


def test_capture_is_live(context: Any, tmp_path: Any, capfd: Any, eventually: Any) -> None:
    """What a task writes is seen while it runs."""
    seen: list[str] = []

    def text() -> str:
        seen.append(capfd.readouterr().err)
        return "".join(seen)

    release = str(tmp_path / "release")
    with context.Pool(1, capture_stderr=True) as pool:
        result = pool.apply_async(f.write_and_wait, ("begun\n", release))
        eventually(lambda: "begun\n" in text(), "what the task wrote")
        assert not result.ready()
        open(release, "w").close()
        result.get(30)


SURVIVOR = """
    import sys, threading
    import functions as f
    import gopool

    if __name__ == "__main__":
        with gopool.get_context(sys.argv[1]).Pool(1, capture_stderr=True) as pool:
            program = "read line; echo still here >&2; echo ok"
            pool.apply(f.start_shell, (program, sys.argv[2]))
            pool.close()
            pool.join()
        with open(sys.argv[2], "w") as fifo:
            fifo.write("go\\n")
        with open(sys.argv[2] + ".out") as out:
            print(out.read(), end="")
        for thread in threading.enumerate():
            if thread.name == "gopool-stderr":  # it ends with the last pipe
                thread.join()
"""


def test_a_program_outlives_its_worker(tmp_path: Any, start_method: str) -> None:
    """What a task started can still write after its worker, and its pool, are gone."""
    fifo = str(tmp_path / "fifo")
    os.mkfifo(fifo)
    os.mkfifo(fifo + ".out")
    done = f.run_script(tmp_path, SURVIVOR, start_method, fifo)
    assert (done.returncode, done.stdout) == (0, "ok\n")
    assert done.stderr == "still here\n"


def test_captures_leave_nothing(context: Any) -> None:
    """Replaced workers and ended pools leave no descriptor and no thread (the guard looks)."""
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with context.Pool(2, maxtasksperchild=1, capture_stderr=True) as pool:
            pool.map(f.square, range(8), 1)
            pool.close()
            pool.join()
    assert len(os.listdir("/proc/self/fd")) <= before + 8


def test_lost_error_keeps_its_words() -> None:
    """Dump and stderr survive pickling; the dump ends the message."""
    error = gopool.WorkerLostError(7, -11, 1.0, "mod.f", "why", "Fatal\n  line\n", "last\n")
    twin = pickle.loads(pickle.dumps(error))
    assert (twin.dump, twin.stderr) == ("Fatal\n  line\n", "last\n")
    assert str(twin).endswith("mod.f: why\nFatal\n  line")
