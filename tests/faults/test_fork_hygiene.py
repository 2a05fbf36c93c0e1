# SPDX-License-Identifier: MIT
"""What a child made by os.fork has of gopool: nothing that harms it, and all that it asks for."""

from __future__ import annotations

import sys
from typing import Any

import pytest

import functions as f

# Forks by hand in a program with threads are what these tests are about: on 3.12 and newer the
# interpreter warns of them, as it does under plain multiprocessing.
QUIET = ("-W", "ignore:This process:DeprecationWarning")

# What a descriptor of gopool's looks like, all else that is open at the first fork aside. The
# sentinels and resource tracker's pipes of the standard library are inherited as ever.
LOOK = """
import os, sys, threading
import functions as f
import gopool

MARKS = ("gopool-", "eventpoll", "eventfd", "pidfd", "socket:")

def descriptors():
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            pass
    return found

before = descriptors()

def gopools():
    return sorted(
        target for fd, target in descriptors().items()
        if before.get(fd) != target and any(mark in target for mark in MARKS)
    )

def fork_and_look():
    \"\"\"What a child has open of gopool's: '[]' where all is well.\"\"\"
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writer, repr(gopools()).encode())
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as answer:
        text = answer.read().decode()
    assert os.waitpid(pid, 0) == (pid, 0)
    return text
"""


def test_no_descriptor_after_fork(tmp_path: Any, start_method: str) -> None:
    """A child forked beside a live pool and process has none of gopool's descriptors open."""
    done = f.run_script(
        tmp_path,
        LOOK
        + """
if __name__ == "__main__":
    context = gopool.get_context(sys.argv[1])
    ours, theirs = context.Pipe()
    before.update(descriptors())  # that pair is the test's own
    process = context.Process(target=f.obey, args=(theirs,))
    process.start()
    with context.Pool(2) as pool:
        assert pool.map(f.square, range(4)) == [0, 1, 4, 9]
        assert pool.apply(len, (b"x" * 200_000,)) == 200_000  # by way of a region
        assert len(gopools()) > 5, gopools()  # the test sees what it looks for
        print(fork_and_look(), fork_and_look())
        pool.close()
        pool.join()
    ours.recv()
    ours.send(0)
    process.join()
    print(fork_and_look())
""",
        start_method,
        flags=QUIET,
    )
    f.assert_silent_success(done, "[] []\n[]\n")


@pytest.mark.slow
def test_no_descriptor_of_results_on_their_way(tmp_path: Any) -> None:
    """Nor has it those of large results that Go has received and the collector has not read, or
    that it dropped: a child that lives on would keep all of their memory.
    """
    done = f.run_script(
        tmp_path,
        LOOK
        + """
if __name__ == "__main__":
    with gopool.get_context("fork").Pool(2) as pool:
        begun, go_on = threading.Event(), threading.Event()
        held = pool.apply_async(abs, (1,), callback=lambda _: (begun.set(), go_on.wait()))
        assert begun.wait(60)
        results = [pool.apply_async(bytes, (5_000_000,)) for _ in range(3)]
        engine = pool._engine
        while engine.native.PoolStat(engine.handle, 6):  # tasks that are not settled in Go
            threading.Event().wait(0.01)
        assert str(gopools()).count("gopool-region") == 3, gopools()
        print(fork_and_look())
        go_on.set()
        assert [len(result.get(60)) for result in results] == [5_000_000] * 3
""",
        flags=QUIET,
    )
    f.assert_silent_success(done, "[]\n")


def test_no_descriptor_after_fork_during_submission(tmp_path: Any) -> None:
    """The same for 200 forks from a second thread while the first submits and collects.

    Left out is the memory of outcomes: where the collector was reading in it at the fork, the
    child can't let go of it.
    """
    done = f.run_script(
        tmp_path,
        LOOK
        + """
from collections import Counter

if __name__ == "__main__":
    seen = Counter()
    forked = threading.Event()

    def fork_often():
        for _ in range(200):
            seen[str([t for t in eval(fork_and_look()) if "gopool-outcomes" not in t])] += 1
        forked.set()

    with gopool.get_context("fork").Pool(2) as pool:
        pool.apply(f.square, (2,))
        forker = threading.Thread(target=fork_often)
        forker.start()
        while not forked.is_set():
            assert pool.map(f.square, range(20), 1) == [x * x for x in range(20)]
        forker.join()
        pool.close()
        pool.join()
    print(dict(seen))
""",
        flags=QUIET,
    )
    f.assert_silent_success(done, "{'[]': 200}\n")


def test_child_uses_gopool_while_the_parent_submits(tmp_path: Any) -> None:
    """Children forked amid submission by another thread make pools of their own at once."""
    done = f.run_script(
        tmp_path,
        """
import os, threading
import functions as f
import gopool

if __name__ == "__main__":
    context = gopool.get_context("fork")
    stop = threading.Event()
    with context.Pool(1) as pool:
        def submit():
            while not stop.is_set():
                pool.map(f.square, range(20), 1)
        submitter = threading.Thread(target=submit)
        submitter.start()
        codes = []
        for _ in range(10):
            pid = os.fork()
            if pid == 0:
                with context.Pool(1) as own:
                    os._exit(own.apply(f.add, (3,), {"y": 4}))
            codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        stop.set()
        submitter.join()
        pool.close()
        pool.join()
    print(codes)
""",
        flags=QUIET,
    )
    f.assert_silent_success(done, f"{[7] * 10}\n")


def test_three_levels_deep(tmp_path: Any, start_method: str) -> None:
    """A pool in a process in a process, and in a forked child of that: all work, at each level."""
    done = f.run_script(
        tmp_path,
        """
import os, sys
import functions as f
import gopool

def level(depth, method):
    context = gopool.get_context(method)
    with context.Pool(2) as pool:
        assert pool.map(f.square, range(5)) == [0, 1, 4, 9, 16]
        if depth < 3:
            child = context.Process(target=level, args=(depth + 1, method))
            child.start()
            child.join()
            assert child.exitcode == depth + 1, child.exitcode
        assert pool.apply(f.add, (2,)) == 2  # this level's own goes on
        pool.close()
        pool.join()
    if depth:
        sys.exit(depth)

if __name__ == "__main__":
    level(0, sys.argv[1])
    pid = os.fork()
    if pid == 0:
        # The parent's fork server is not this process's: the stdlib can't use it here either.
        level(1, "fork" if sys.argv[1] == "forkserver" else sys.argv[1])
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
""",
        start_method,
        flags=QUIET,
    )
    f.assert_silent_success(done, "1\n")


@pytest.mark.parametrize(
    "ending, code",
    [("pass", 0), ("sys.exit(4)", 4), ("raise SystemExit", 0), ("del pool", 0)],
)
@pytest.mark.parametrize("how", ["os.fork", "Process"])
def test_child_of_a_process_with_a_live_pool(
    tmp_path: Any, how: str, ending: str, code: int
) -> None:
    """It ends by itself, without a warning and without ending the parent's pool."""
    if how == "os.fork":
        body = f"""
    pid = os.fork()
    if pid == 0:
        {ending}
    else:
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), pool.map(f.square, [2, 3]))
        pool.close()
        pool.join()
"""
    else:
        body = """
    process = gopool.get_context("fork").Process(target=end)
    process.start()
    process.join()
    print(process.exitcode, pool.map(f.square, [2, 3]))
    pool.close()
    pool.join()
"""
    done = f.run_script(
        tmp_path,
        f"""
import os, sys
import functions as f
import gopool

def end():
    global pool
    {ending}

if __name__ == "__main__":
    pool = gopool.get_context("fork").Pool(2)
    pool.apply(f.square, (2,))
{body}
""",
        flags=("-W", "error", *QUIET),
    )
    f.assert_silent_success(done, f"{code} [4, 9]\n")


def test_inherited_pool_refuses(tmp_path: Any) -> None:
    """Using the parent's pool in a forked child raises ForkedChildError; nothing hangs."""
    done = f.run_script(
        tmp_path,
        """
import os, threading
import functions as f
import gopool

def caught(function, *args):
    try:
        function(*args)
    except RuntimeError as error:
        return type(error).__name__
    return "nothing"

if __name__ == "__main__":
    pool = gopool.get_context("fork").Pool(1)
    pool.apply(f.square, (2,))
    pool._engine._congested = True  # as in the middle of a large submission
    pid = os.fork()
    if pid == 0:
        for call in ((pool.apply, f.square, (2,)), (pool.map, f.square, [1, 2]),
                     (lambda: list(pool.imap(f.square, [1, 2])),),
                     (lambda: pool.apply_async(f.square, (2,), callback=print),)):
            print(caught(*call), flush=True)
        pool.terminate()
        os._exit(threading.active_count() - 1)
    print(os.waitpid(pid, 0)[1])
    print(pool.apply(f.square, (3,)))
    pool.close()
    pool.join()
""",
        flags=QUIET,
    )
    f.assert_silent_success(done, "ForkedChildError\n" * 4 + "0\n9\n")


def test_locks_are_renewed(tmp_path: Any) -> None:
    """Every lock of gopool's that another thread holds at a fork is free in the child."""
    done = f.run_script(
        tmp_path,
        """
import os, threading
import functions as f
import gopool
from gopool import _install

if __name__ == "__main__":
    context = gopool.get_context("fork")
    process = context.Process(target=f.sleep, args=(60,))
    process.start()
    inside, leave = threading.Event(), threading.Event()
    def hold():
        # Those that are not taken for a fork by themselves.
        with _install._lock, process._popen._reaping:
            inside.set()
            leave.wait()
    holder = threading.Thread(target=hold)
    holder.start()
    inside.wait()
    pid = os.fork()
    if pid == 0:
        gopool.install()
        gopool.active_children()  # asks the parent's process too, as in the stdlib
        with context.Pool(1) as pool:
            os._exit(pool.apply(f.add, (7,)))
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    leave.set()
    holder.join()
    process.terminate()
    process.join()
""",
        flags=QUIET,
    )
    f.assert_silent_success(done, "7\n")


FORKS = """
import sys, threading, warnings
import functions as f
import {package} as package

if __name__ == "__main__":
    context = package.get_context("fork")
    answers = context.SimpleQueue()

    def look():
        answers.put(str(warnings.filters))

    def start(times):
        for _ in range(times):
            before = list(warnings.filters)
            process = context.Process(target=look)
            process.start()
            process.join()
            assert process.exitcode == 0
            assert warnings.filters == before
            assert answers.get() == str(before)

    if sys.argv[1] == "one thread":
        start(3)
        for _ in range(2):
            with context.Pool(2) as pool:
                assert pool.map(f.square, range(3)) == [0, 1, 4]
                pool.close()
                pool.join()
        start(2)
    else:
        start(1)
        leave = threading.Event()
        own = threading.Thread(target=leave.wait)
        own.start()
        start(1)
        leave.set()
        own.join()
    print("done")
"""


def test_no_warning_about_gos_threads(tmp_path: Any) -> None:
    """A program with one Python thread forks without a warning, and filters stay as they were."""
    script = FORKS.format(package="gopool")
    done = f.run_script(tmp_path, script, "one thread", flags=("-W", "error"))
    f.assert_silent_success(done, "done\n")


@pytest.mark.skipif(sys.version_info < (3, 12), reason="older interpreters never warn")
@pytest.mark.parametrize("package", ["multiprocessing", "gopool"])
def test_warning_about_own_threads_stays(tmp_path: Any, package: str) -> None:
    """With a thread of the user's own the interpreter warns as under plain multiprocessing."""
    script = FORKS.format(package=package)
    done = f.run_script(tmp_path, script, "two threads", flags=("-W", "always"))
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
    assert done.stderr.count("multi-threaded, use of fork() may lead to deadlocks") == 1


IMPORTED_AT_A_FORK = """
import os
import threading

go_on = threading.Event()
other = threading.Thread(target=go_on.wait)
other.start()

def import_gopool():
    import gopool._core  # it has forks take the lock

os.register_at_fork(before=import_gopool)
for _ in range(3):
    if os.fork() == 0:
        os._exit(0)
    os.wait()

def enter(entered):
    with gopool._fork.unforked():
        entered.append(True)

import gopool._fork
entered = []
thread = threading.Thread(target=enter, args=(entered,))
thread.start()
thread.join(20)
assert entered == [True]
go_on.set()
other.join()
print("done")
"""


def test_imported_while_a_fork_goes_on(tmp_path: Any) -> None:
    """A fork that has begun before releases no lock that it has not taken; each later one does."""
    flags = ("-W", "ignore:This process:DeprecationWarning")
    f.assert_silent_success(f.run_script(tmp_path, IMPORTED_AT_A_FORK, flags=flags), "done\n")


LOGGING_HELD = """
import os
import sys
import threading

{first}
import gopool
context = gopool.get_context("fork")
context.Pool(2).terminate()
import logging

def fork(stop):
    while not stop.is_set():
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)

sys.setswitchinterval(1e-4)
stop = threading.Event()
forker = threading.Thread(target=fork, args=(stop,))
forker.start()
for _ in range(10):
    with context.Pool(3) as pool:
        pool.map(abs, [1])
    with logging._lock:
        process = context.Process(target=abs, args=(1,))
        process.start()
    process.join()
stop.set()
forker.join()
print("done")
"""


@pytest.mark.parametrize("first", ["import logging", ""], ids=["before", "after"])
def test_forks_beside_whoever_holds_loggings_lock(tmp_path: Any, first: str) -> None:
    """os.fork() takes logging's lock, and gopool's; whoever holds the one may fork."""
    flags = ("-W", "ignore:This process:DeprecationWarning")
    script = LOGGING_HELD.format(first=first)
    f.assert_silent_success(f.run_script(tmp_path, script, flags=flags), "done\n")


NESTED_TWICE = """
import gopool

def nested():
    with gopool.Pool(1) as pool:
        first = pool.apply(abs, (-1,))
    with gopool.Pool(2) as pool:
        return first, pool.apply(abs, (-2,))

if __name__ == "__main__":
    gopool.set_start_method("fork")
    with gopool.Pool(1) as pool:
        pool.apply(abs, (-3,))
    with gopool.Pool(1, daemon=False) as pool:
        print(pool.apply(nested))
"""


def test_pools_in_a_worker_that_was_forked_beside_go(tmp_path: Any) -> None:
    """What its parent did around the fork is not the worker's to undo."""
    f.assert_silent_success(f.run_script(tmp_path, NESTED_TWICE), "(1, 2)\n")


FORKED_MEANWHILE = """
import os
import threading

import gopool
context = gopool.get_context("fork")

def use_pools(stop):
    while not stop.is_set():
        with context.Pool(2) as pool:
            pool.apply(abs, (-1,))

def fork(pids):
    with context.Pool(1) as pool:
        pool.apply(abs, (-1,))  # this thread has used Go
    for _ in range(30):
        pid = os.fork()
        if pid == 0:
            return  # the thread ends in the child, and with it what Go has of it
        pids.append(pid)

parent = os.getpid()
stop, pids = threading.Event(), []
others = [threading.Thread(target=use_pools, args=(stop,), daemon=True) for _ in range(2)]
forker = threading.Thread(target=fork, args=(pids,), daemon=True)
for thread in (*others, forker):
    thread.start()
forker.join()
stop.set()
for thread in others:
    thread.join()
print({os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids})
"""


def test_child_of_a_thread_while_others_make_pools(tmp_path: Any) -> None:
    """What gopool leaves out of its own forks is in all others."""
    flags = ("-W", "ignore:This process:DeprecationWarning")
    f.assert_silent_success(f.run_script(tmp_path, FORKED_MEANWHILE, flags=flags), "{0}\n")


def test_older_generations_are_collected_in_a_program_that_forks(tmp_path: Any) -> None:
    """Where the parent makes few objects between two forks its garbage is found all the same."""
    done = f.run_script(
        tmp_path,
        """
import gc
import functions as f
import gopool

class Cycle:
    def __init__(self):
        self.me = self

if __name__ == "__main__":
    context, held = gopool.get_context("fork"), []
    rounds = 30 * gc.get_threshold()[0] // 150  # as many objects as thirty collections take
    for _ in range(rounds):
        held = held[-2:] + [[Cycle() for _ in range(150)]]
        process = context.Process(target=f.square, args=(2,))
        process.start()
        process.join()
    alive = sum(isinstance(each, Cycle) for each in gc.get_objects())
    print(gc.get_stats()[1]["collections"] > 0, alive < rounds * 150 // 2)
""",
    )
    f.assert_silent_success(done, "True True\n")


def test_no_child_collects_what_is_due_in_the_parent(tmp_path: Any) -> None:
    """A collection that is nearly due is the parent's, once; none where the program wants none."""
    done = f.run_script(
        tmp_path,
        """
import gc, sys
import functions as f
import gopool

def collections():
    return [generation["collections"] for generation in gc.get_stats()]

def fork(wanted, held):
    gc.enable()
    gc.collect()
    held += [[] for _ in range(gc.get_threshold()[0] - 150 - gc.get_count()[0])]
    if not wanted:
        gc.disable()
    before = collections()
    process = context.Process(target=look, args=(answers,))
    process.start()
    process.join()
    mine, child = collections(), answers.get()
    print(mine[0] - before[0], [a - b for a, b in zip(child, mine)])

def look(answers):
    held = [[] for _ in range(140)]
    answers.put(collections())

if __name__ == "__main__":
    context = gopool.get_context("fork")
    answers = context.SimpleQueue()
    for _ in range(2):  # the first one imports
        process = context.Process(target=f.square, args=(2,))
        process.start()
        process.join()
    fork(True, [])
    fork(False, [])
""",
    )
    f.assert_silent_success(done, "1 [0, 0, 0]\n0 [0, 0, 0]\n")
