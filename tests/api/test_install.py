# SPDX-License-Identifier: MIT
"""install() and uninstall(): who is served, what is restored, what children are.

Every script runs in an interpreter of its own, so that the test process stays as it is.
"""

from __future__ import annotations

from typing import Any

import pytest

import functions as f

METHODS = ("fork", "spawn", "forkserver")

# What each kind of pool class is, and whether its pools get an engine while gopool is installed.
KINDS = {
    "class": (True, "Kind = {pool}"),
    "subclass": (True, "class Kind({pool}):\n    label = 'mine'"),
    "subclass with an own __init__": (
        True,
        "class Kind({pool}):\n"
        "    def __init__(self, *args, **kwds):\n"
        "        super().__init__(*args, **kwds)",
    ),
    "ThreadPool": (False, "Kind = {threads}"),
    "subclass with own queues": (
        False,
        "class Kind({pool}):\n"
        "    def _setup_queues(self):\n"
        "        self._inqueue = self._ctx.SimpleQueue()\n"
        "        self._outqueue = self._ctx.SimpleQueue()\n"
        "        self._quick_put = self._inqueue._writer.send\n"
        "        self._quick_get = self._outqueue._reader.recv",
    ),
    "subclass with own workers": (
        False,
        "class Kind({pool}):\n"
        "    def _repopulate_pool(self):\n"
        "        return super()._repopulate_pool()",
    ),
}

BOUND = {
    "before": ("from multiprocessing.pool import Pool as P, ThreadPool as T", "", "P", "T"),
    "after": ("", "from multiprocessing.pool import Pool as P, ThreadPool as T", "P", "T"),
    "never": ("import multiprocessing.pool as m", "", "m.Pool", "m.ThreadPool"),
}


def _class_script(kind: str, bound: str, body: str) -> str:
    before, after, pool, threads = BOUND[bound]
    definition = KINDS[kind][1].format(pool=pool, threads=threads)
    subclassed_before = f"{before}\n{definition}" if bound == "before" else before
    subclassed_after = "" if bound == "before" else definition
    return (
        f"{subclassed_before}\nimport gopool, functions as f\ngopool.install()\n{after}\n"
        f"{subclassed_after}\n{body}"
    )


@pytest.mark.parametrize("bound", BOUND)
@pytest.mark.parametrize("kind", KINDS)
def test_who_is_served(tmp_path: Any, kind: str, bound: str) -> None:
    """Pool and plain subclasses get the engine, by whatever name; own transports keep theirs."""
    body = """
with Kind(2) as pool:
    print(hasattr(pool, "_engine"), type(pool) is Kind, pool.map(f.square, range(5)))
    print(pool.apply_async(f.add, (1,), {"y": 2}).get(), list(pool.imap(f.square, [4])))
    pool.close()
    pool.join()
"""
    done = f.run_script(tmp_path, _class_script(kind, bound, body))
    served = KINDS[kind][0]
    f.assert_silent_success(done, f"{served} True [0, 1, 4, 9, 16]\n3 [16]\n")


@pytest.mark.parametrize("kind", KINDS)
def test_pool_alive_across_install(tmp_path: Any, kind: str) -> None:
    """A pool that exists at install() keeps the standard library's transport to its end."""
    definition = KINDS[kind][1].format(pool="m.Pool", threads="m.ThreadPool")
    done = f.run_script(
        tmp_path,
        f"""
import multiprocessing.pool as m, gopool, functions as f
{definition}
old = Kind(2, maxtasksperchild=1)
assert old.apply(f.square, (3,)) == 9
gopool.install()
assert not hasattr(old, "_engine")
assert old.map(f.square, range(6), chunksize=1) == [x * x for x in range(6)]  # has replaced
assert list(old.imap_unordered(f.square, [5])) == [25]
old.close()
old.join()
with Kind(1) as new:
    assert hasattr(new, "_engine") is {KINDS[kind][0]}
    assert new.apply(f.square, (3,)) == 9
""".replace(", maxtasksperchild=1", "" if kind == "ThreadPool" else ", maxtasksperchild=1"),
    )
    f.assert_silent_success(done)


# A picture of all that install() may touch; compared by identity, order included. Classes are
# taken whole, of modules the functions and classes (counters and contexts change with use).
SNAPSHOT = """
import multiprocessing
import multiprocessing.pool as m
from multiprocessing import context, popen_fork, popen_forkserver, popen_spawn_posix, spawn
from multiprocessing import process, util

def snapshot():
    parts = (m.Pool, m.ThreadPool, m, popen_fork, popen_forkserver, popen_spawn_posix, spawn,
             multiprocessing, context, process, util, process.BaseProcess)
    return [[(k, id(v)) for k, v in vars(part).items() if isinstance(part, type) or callable(v)]
            for part in parts]
"""


@pytest.mark.parametrize("kind", KINDS)
def test_pool_alive_across_uninstall(tmp_path: Any, kind: str) -> None:
    """A pool of the installed time works on after uninstall(); then everything is restored."""
    definition = KINDS[kind][1].format(pool="m.Pool", threads="m.ThreadPool")
    done = f.run_script(
        tmp_path,
        f"""
{SNAPSHOT}
import gc, gopool, functions as f
{definition}
before = snapshot()
gopool.install()
old = Kind(2)
assert old.apply(f.square, (3,)) == 9
gopool.uninstall()
assert popen_fork.Popen.__module__ == "multiprocessing.popen_fork"
assert old.map(f.square, range(6), chunksize=1) == [x * x for x in range(6)]
with Kind(1) as new:
    assert not hasattr(new, "_engine")
    assert new.apply(f.square, (4,)) == 16
new.join()
assert list(old.imap(f.square, [5])) == [25]
old.close()
old.join()
del old, new
gc.collect()
assert snapshot() == before
""",
    )
    f.assert_silent_success(done)


def test_uninstall_restores_everything(tmp_path: Any) -> None:
    """install, install, uninstall, uninstall: afterwards every object is the one of before."""
    done = f.run_script(
        tmp_path,
        f"""
{SNAPSHOT}
import gopool
from gopool import _install
before = snapshot()
for _ in range(2):
    gopool.install()
    once = snapshot()
    assert once != before and _install.installed()
    gopool.install()
    assert snapshot() == once
    gopool.uninstall()
    assert snapshot() == before and not _install.installed()
    gopool.uninstall()
    assert snapshot() == before
""",
    )
    f.assert_silent_success(done)


def test_install_again_while_an_old_pool_lives(tmp_path: Any) -> None:
    """install() after an uninstall() that a live pool held up neither doubles nor loses a layer."""
    done = f.run_script(
        tmp_path,
        f"""
{SNAPSHOT}
import gc, gopool, functions as f
before = snapshot()
gopool.install()
pool = m.Pool(1)
gopool.uninstall()
gopool.install()
with m.Pool(1) as other:
    assert hasattr(other, "_engine") and other.apply(f.square, (3,)) == 9
other.join()
assert pool.apply(f.square, (3,)) == 9
pool.terminate()
pool.join()
gopool.uninstall()
del pool, other
gc.collect()
assert snapshot() == before
""",
    )
    f.assert_silent_success(done)


def test_uninstall_leaves_the_wrapper_of_others(tmp_path: Any) -> None:
    """Who wrapped get_preparation_data after install() keeps the wrapper; ours is inert."""
    done = f.run_script(
        tmp_path,
        """
import gopool
from multiprocessing import spawn
plain = spawn.get_preparation_data("n")
gopool.install()
ours = spawn.get_preparation_data
def theirs(name):
    return ours(name)
spawn.get_preparation_data = theirs
gopool.uninstall()
assert spawn.get_preparation_data is theirs
data = theirs("n")
assert data == plain and [type(v) for v in data.values()] == [type(v) for v in plain.values()]
""",
    )
    f.assert_silent_success(done)


def test_install_loads_and_starts_nothing(tmp_path: Any) -> None:
    """install() loads no Go, starts no thread and no process, opens no descriptor."""
    done = f.run_script(
        tmp_path,
        """
import os, sys, threading
open_before = os.listdir("/proc/self/fd")
import gopool
gopool.install()
assert not any(name.startswith("gopool._native") for name in sys.modules)
assert threading.active_count() == 1 == len(os.listdir("/proc/self/task"))
assert os.listdir("/proc/self/fd") == open_before
""",
    )
    f.assert_silent_success(done)


CHILDREN = """
import multiprocessing, sys

def look(depth, method, answers):
    from gopool import _install
    from multiprocessing import popen_fork, popen_spawn_posix
    answers.put((depth, _install.installed(), popen_fork.Popen.__name__,
                 popen_spawn_posix.Popen.__name__, "gopool" in sys.modules))
    if depth < 2:
        ctx = multiprocessing.get_context(method)
        child = ctx.Process(target=look, args=(depth + 1, method, answers))
        child.start()
        child.join()
        assert child.exitcode == 0, child.exitcode
        with ctx.Pool(1) as pool:
            assert hasattr(pool, "_engine")
            answers.put(pool.apply(in_worker))

def in_worker():
    from gopool import _install
    return "worker", _install.installed()

if __name__ == "__main__":
    import gopool
    gopool.install()
    method = sys.argv[1]
    answers = multiprocessing.get_context(method).SimpleQueue()
    look(0, method, answers)
    while not answers.empty():
        print(answers.get())
"""


@pytest.mark.parametrize("method", METHODS)
def test_children_are_installed(tmp_path: Any, method: str) -> None:
    """Children, their children, and pool workers of each, are installed under every method."""
    done = f.run_script(tmp_path, CHILDREN, method)
    levels = [f"({i}, True, 'ForkPopen', 'SpawnPopen', True)\n" for i in range(3)]
    f.assert_silent_success(done, "".join(levels) + "('worker', True)\n" * 2)


def test_children_are_plain_after_uninstall(tmp_path: Any) -> None:
    """After uninstall() a spawned child knows nothing of gopool."""
    done = f.run_script(
        tmp_path,
        """
import multiprocessing, sys

def look(answers):
    answers.put("gopool" in sys.modules)

if __name__ == "__main__":
    import gopool
    gopool.install()
    gopool.uninstall()
    ctx = multiprocessing.get_context("spawn")
    answers = ctx.SimpleQueue()
    child = ctx.Process(target=look, args=(answers,))
    child.start()
    child.join()
    print(answers.get(), child.exitcode)
""",
    )
    f.assert_silent_success(done, "False 0\n")


@pytest.mark.parametrize("method", METHODS)
def test_contexts(tmp_path: Any, method: str) -> None:
    """The standard library's contexts give pools with an engine and adopted processes."""
    done = f.run_script(
        tmp_path,
        """
import multiprocessing, sys
import functions as f

if __name__ == "__main__":
    import gopool
    from gopool import _core
    gopool.install()
    ctx = multiprocessing.get_context(sys.argv[1])
    with ctx.Pool(2) as pool:
        print(type(pool).__module__, hasattr(pool, "_engine"), pool.map(f.square, [2, 3]))
    adopted = _core.load().ProcessStat(0)
    process = ctx.Process(target=f.exit_hard, args=(5,))
    process.start()
    process.join()
    print(process.exitcode, _core.load().ProcessStat(0) - adopted)
    with multiprocessing.Pool(1) as pool:
        print(hasattr(pool, "_engine"), pool.apply(f.square, (4,)))
""",
        method,
    )
    f.assert_silent_success(done, "multiprocessing.pool True [4, 9]\n5 1\nTrue 16\n")


def test_set_executable(tmp_path: Any) -> None:
    """set_executable decides what spawn runs under install() too."""
    marker = tmp_path / "marker"
    wrapper = tmp_path / "python-wrapper"
    done = f.run_script(
        tmp_path,
        """
import multiprocessing, os, sys
import functions as f

if __name__ == "__main__":
    wrapper, marker = sys.argv[1:]
    with open(wrapper, "w") as script:
        script.write(f'#!/bin/sh\\necho x >> {marker}\\nexec {sys.executable} "$@"\\n')
    os.chmod(wrapper, 0o755)
    import gopool
    gopool.install()
    multiprocessing.set_executable(wrapper)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert hasattr(pool, "_engine")
        print(pool.map(f.square, [2, 3]))
""",
        str(wrapper),
        str(marker),
    )
    f.assert_silent_success(done, "[4, 9]\n")
    assert len(marker.read_text().split()) >= 2


def test_forkserver_preload(tmp_path: Any) -> None:
    """set_forkserver_preload works under install(): the server has imported it, the child not."""
    (tmp_path / "preloaded.py").write_text("import os\nowner = os.getpid()\n")
    done = f.run_script(
        tmp_path,
        """
import multiprocessing, os

def look():
    import preloaded
    return preloaded.owner != os.getpid()

if __name__ == "__main__":
    import gopool
    gopool.install()
    multiprocessing.set_forkserver_preload(["preloaded"])
    with multiprocessing.get_context("forkserver").Pool(1) as pool:
        print(pool.apply(look))
""",
        env={"PYTHONPATH": f"{tmp_path}:{f.__file__.rsplit('/', 1)[0]}"},
    )
    f.assert_silent_success(done, "True\n")


@pytest.mark.parametrize("method", METHODS)
def test_logging(tmp_path: Any, method: str) -> None:
    """log_to_stderr shows util's lines, from parent and workers, as without gopool."""
    done = f.run_script(
        tmp_path,
        """
import logging, multiprocessing, sys
import functions as f

if __name__ == "__main__":
    multiprocessing.freeze_support()  # does nothing, and is there
    import gopool
    gopool.install()
    multiprocessing.log_to_stderr(logging.DEBUG)
    pool = multiprocessing.get_context(sys.argv[1]).Pool(1)
    pool.apply(f.square, (2,))
    multiprocessing.get_logger().info("from the program")
    pool.close()
    pool.join()
""",
        method,
    )
    assert done.returncode == 0, done.stderr
    for line in (
        "[DEBUG/MainProcess] added worker",
        "[INFO/MainProcess] from the program",
        "[DEBUG/MainProcess] closing pool",
        "[DEBUG/MainProcess] joining pool",
        "PoolWorker-1] child process calling self.run()",
        "PoolWorker-1] worker exiting after 1 tasks",
        "PoolWorker-1] process exiting with exitcode 0",
    ):
        assert line in done.stderr, f"{line!r} is missing in\n{done.stderr}"


@pytest.mark.parametrize("method", METHODS)
def test_process_pool_executor(tmp_path: Any, method: str) -> None:
    """ProcessPoolExecutor's processes are adopted; max_tasks_per_child replaces them."""
    done = f.run_script(
        tmp_path,
        """
import multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
import functions as f

if __name__ == "__main__":
    import gopool
    from gopool import _core
    gopool.install()
    _core.load()  # from here on every process is adopted
    method = sys.argv[1]
    ctx = multiprocessing.get_context(method)
    with ProcessPoolExecutor(2, mp_context=ctx) as executor:
        print(list(executor.map(f.square, range(4))))
    assert _core.load().ProcessStat(0) >= 1
    if method != "fork" and sys.version_info >= (3, 11):  # fork is refused by the stdlib
        with ProcessPoolExecutor(1, mp_context=ctx, max_tasks_per_child=1) as executor:
            pids = [executor.submit(f.pid).result() for _ in range(3)]
        assert len(set(pids)) == 3, pids
    stat = _core.load().ProcessStat
    assert (stat(0), stat(2)) == (stat(1), 0), [stat(i) for i in range(3)]
""",
        method,
    )
    f.assert_silent_success(done, "[0, 1, 4, 9]\n")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("order", ["wrap first", "install first"])
def test_wrapped_bootstrap_reaches_workers(tmp_path: Any, method: str, order: str) -> None:
    """Tools that wrap BaseProcess._bootstrap (coverage.py) see every worker and process."""
    done = f.run_script(
        tmp_path,
        """
import multiprocessing, os, sys
from multiprocessing import process
import functions as f

original = process.BaseProcess._bootstrap

def traced(self, *args, **kwds):
    os.write(1, b"enter\\n")
    try:
        return original(self, *args, **kwds)
    finally:
        os.write(1, b"leave\\n")

def wrap():
    process.BaseProcess._bootstrap = traced

if __name__ != "__main__":
    wrap()  # in a spawned child, while it imports the script
else:
    import gopool
    steps = [wrap, gopool.install]
    for step in steps if sys.argv[2] == "wrap first" else reversed(steps):
        step()
    ctx = multiprocessing.get_context(sys.argv[1])
    pool = ctx.Pool(2)
    assert hasattr(pool, "_engine")
    pool.map(f.square, range(4), 1)
    pool.close()
    pool.join()
    one = ctx.Process(target=f.square, args=(2,))
    one.start()
    one.join()
    assert one.exitcode == 0
""",
        method,
        order,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.split()) == ["enter"] * 3 + ["leave"] * 3


def test_install_in_a_forked_child(tmp_path: Any) -> None:
    """A child forked while another thread is inside install() can install all the same."""
    done = f.run_script(
        tmp_path,
        """
import os, threading
import gopool
from gopool import _install

inside, leave = threading.Event(), threading.Event()

def hold():
    with _install._lock:
        inside.set()
        leave.wait()

holder = threading.Thread(target=hold)
holder.start()
inside.wait()
pid = os.fork()
if pid == 0:
    gopool.install()
    os._exit(7 if _install.installed() else 1)
_, status = os.waitpid(pid, 0)
leave.set()
holder.join()
print(os.waitstatus_to_exitcode(status))
""",
        flags=("-W", "ignore:This process:DeprecationWarning"),
    )
    f.assert_silent_success(done, "7\n")
