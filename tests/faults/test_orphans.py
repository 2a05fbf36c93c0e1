# SPDX-License-Identifier: MIT
"""No pool worker survives its parent, however that ends; a plain Process does."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing import connection
from typing import Any

import pytest

import functions as f

# Seconds that a worker may live on; the kernel needs some milliseconds.
LIMIT = 1.0

# A fork beside Go's threads, by hand, is among what is tested; 3.12 and newer warn of it.
QUIET = ("-W", "ignore:This process:DeprecationWarning")


class Program:
    """A script that writes the pids of processes, one a line, and then waits to be killed."""

    def __init__(self, folder: Any, text: str, *arguments: str) -> None:
        script = folder / "script.py"
        script.write_text(text)
        self.process = subprocess.Popen(
            [sys.executable, *QUIET, str(script), *arguments],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.path.dirname(os.path.abspath(f.__file__))},
        )
        self.pidfds: dict[int, int] = {}  # by pid

    def read_pids(self, count: int) -> list[int]:
        """The next pids; a descriptor is opened for each while it still means that process."""
        assert self.process.stdout is not None
        pids = [int(self.process.stdout.readline()) for _ in range(count)]
        for pid in pids:
            if pid not in self.pidfds:
                self.pidfds[pid] = os.pidfd_open(pid)
        return pids

    def left(self, pids: list[int], within: float = LIMIT) -> list[int]:
        """Which of the processes have not ended when the time is over."""
        deadline = time.monotonic() + within
        waiting = {self.pidfds[pid]: pid for pid in pids}
        while waiting and (ended := connection.wait(list(waiting), deadline - time.monotonic())):
            for pidfd in ended:
                del waiting[pidfd]  # type: ignore[arg-type]
        return list(waiting.values())

    def close(self) -> None:
        """End what is left."""
        self.process.kill()
        self.process.wait(30)
        for pidfd in self.pidfds.values():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.close(pidfd)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def program(tmp_path: Any) -> Iterator[Any]:
    """Makes a Program; what it started is gone after the test."""
    made: list[Program] = []

    def make(text: str, *arguments: str) -> Program:
        made.append(Program(tmp_path, text, *arguments))
        return made[-1]

    yield make
    for one in made:
        one.close()


POOL = """
import sys
import functions as f

if __name__ == "__main__":
    f.announce_pool(sys.argv[1], 0, sys.argv[2])
"""


@pytest.mark.parametrize("kind", ["idle", "python", "C", "starting"])
def test_parent_killed(program: Any, start_method: str, kind: str) -> None:
    """Workers that are idle, busy in Python, busy in C, or not yet up end with their parent."""
    run = program(POOL, start_method, kind)
    _, *workers = run.read_pids(3)
    if kind == "C":
        _await_one_spinning(workers)
    run.process.kill()
    run.process.wait(30)
    assert run.left(workers) == []


def _await_one_spinning(pids: list[int]) -> None:
    """Wait until a worker runs on the processor for good: it has begun its endless task.

    Nothing signals this; the processor time used is what can be seen from outside.
    """
    deadline = time.monotonic() + 30
    start = {pid: _ticks(pid) for pid in pids}
    while all(_ticks(pid) - start[pid] < 5 for pid in pids):
        assert time.monotonic() < deadline, "no worker is busy"
        threading.Event().wait(0.01)


def _ticks(pid: int) -> int:
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


NESTED = """
import sys
import functions as f
import gopool

if __name__ == "__main__":
    f.announce_pool(sys.argv[1], 1, sys.argv[2])
"""


def test_nested_pools_of_a_killed_process(program: Any, start_method: str) -> None:
    """Each pool ends with its own parent: the outer with the program, the inner later."""
    run = program(NESTED, start_method, "python")
    levels = [run.read_pids(3) for _ in range(2)]
    (_, *outer), (process, *inner) = sorted(levels, key=lambda pids: pids[0] != run.process.pid)
    run.process.kill()
    run.process.wait(30)
    assert run.left(outer) == []
    assert run.left([process, *inner], within=0.3) == [process, *inner]
    os.kill(process, signal.SIGKILL)
    assert run.left([process, *inner]) == []


NESTED_IN_WORKER = """
import os, sys, threading
import functions as f
import gopool

def work(method, pids):
    # Pools in workers: the flag that forbids children is taken off, as programs do.
    gopool.current_process()._config["daemon"] = False
    f.announce_pool(method, 0, "python")

if __name__ == "__main__":
    pool = gopool.get_context(sys.argv[1]).Pool(1)
    os.write(1, b"%d\\n" % pool.apply(f.pid))
    pool.apply_async(work, (sys.argv[1], None))
    threading.Event().wait()
"""


def test_pool_in_a_worker(program: Any, start_method: str) -> None:
    """A pool that a pool's worker made ends too when the program is killed."""
    run = program(NESTED_IN_WORKER, start_method)
    workers = {*run.read_pids(1), *run.read_pids(3)}
    assert len(workers) == 3
    run.process.kill()
    run.process.wait(30)
    assert run.left(list(workers)) == []


NESTED_DEEPLY = """
import os, sys, threading
import functions as f
import gopool

if __name__ == "__main__":
    pool = gopool.get_context(sys.argv[1]).Pool(1, daemon=False)
    pids = [pool.apply(f.pid), *pool.apply(f.keep_inner_pool, (sys.argv[1], 3))]
    os.write(1, b"".join(b"%d\\n" % pid for pid in pids))
    threading.Event().wait()
"""


def test_pools_in_workers_of_pools_in_workers(program: Any, start_method: str) -> None:
    """When the program is killed, no worker is left at any depth: each level's kills the next."""
    run = program(NESTED_DEEPLY, start_method)
    workers = run.read_pids(4)
    assert len(set(workers)) == 4
    run.process.kill()
    run.process.wait(30)
    assert run.left(workers) == []


SIBLING = """
import os, sys
import functions as f
import gopool

if __name__ == "__main__":
    context = gopool.get_context(sys.argv[1])
    pool = context.Pool(2)
    pool.map(f.square, range(4), 1)
    for worker in pool._pool:
        os.write(1, b"%d\\n" % worker.pid)
    # Started after the workers: it inherits what the parent had open for them.
    process = context.Process(target=f.sleep, args=(60,))
    process.start()
    bare = os.fork()
    if bare == 0:
        f.sleep(60)
        os._exit(0)
    os.write(1, b"%d\\n%d\\n" % (process.pid, bare))
    process.join()
"""


def test_siblings_survive(program: Any, start_method: str) -> None:
    """A Process and a forked child that were started later keep no worker alive, and live on."""
    run = program(SIBLING, start_method)
    first, second, process, bare = run.read_pids(4)
    run.process.kill()
    run.process.wait(30)
    assert run.left([first, second]) == []
    assert run.left([process, bare], within=0.3) == [process, bare]


EXEC = """
import os, sys
import functions as f
import gopool

if __name__ == "__main__":
    pool = gopool.get_context(sys.argv[1]).Pool(2)
    pool.map(f.square, range(4), 1)
    pool.apply_async(f.busy_in_python)
    for worker in pool._pool:
        os.write(1, b"%d\\n" % worker.pid)
    os.execv(sys.executable, [sys.executable, "-c", "import sys; sys.stdin.read()"])
"""


def test_exec_of_the_parent(program: Any, start_method: str) -> None:
    """When the parent becomes another program, no worker of it runs on."""
    run = program(EXEC, start_method)
    assert run.process.stdout is not None
    pids = [int(run.process.stdout.readline()) for _ in range(2)]
    deadline = time.monotonic() + LIMIT
    # A zombie of the new program's is left, as it never waits; pids can't be opened race-free here.
    while running := [pid for pid in pids if _runs(pid)]:
        assert time.monotonic() < deadline, f"still running: {running}"
        threading.Event().wait(0.005)


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:  # no such file, or, where it ended after the open, no such process
        return False


def _may_unshare() -> bool:
    command = ["unshare", "--pid", "--fork", "--mount-proc", "true"]
    with contextlib.suppress(OSError):
        return subprocess.run(command, capture_output=True, timeout=30).returncode == 0
    return False


CONTAINED = """
import subprocess, sys
if __name__ == "__main__":
    program = subprocess.Popen([sys.executable, sys.argv[1], sys.argv[2], "C"], stdout=-1)
    pids = [int(program.stdout.readline()) for _ in range(3)]
    program.kill()
    program.wait()
    print(*pids[1:], flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(not _may_unshare(), reason="no right to make a process-id namespace here")
def test_parent_killed_in_a_pid_namespace(tmp_path: Any, start_method: str) -> None:
    """The same inside a process-id namespace of its own, as in a container."""
    (tmp_path / "pool.py").write_text(POOL)
    (tmp_path / "contained.py").write_text(CONTAINED)
    inner = f"{sys.executable} {tmp_path}/contained.py {tmp_path}/pool.py {start_method} & wait"
    container = subprocess.Popen(
        ["unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", f"exec 3<&0; {inner} <&3"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.path.dirname(os.path.abspath(f.__file__))},
    )
    assert container.stdin is not None
    assert container.stdout is not None
    try:
        numbers = container.stdout.readline().split()
        assert len(numbers) == 2
        deadline = time.monotonic() + LIMIT
        while alive := [n for n in numbers if _alive_inside(container.pid, n)]:
            assert time.monotonic() < deadline, f"workers {alive} live on"
            threading.Event().wait(0.01)
    finally:
        container.stdin.close()
        container.kill()
        container.wait(30)
        container.stdout.close()


def _alive_inside(container: int, number: str) -> bool:
    """Whether a process of a namespace below the container's has not ended."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{entry}/status") as status:
                fields = dict(line.split(":\t", 1) for line in status if ":\t" in line)
                inside = fields["NSpid"].split()
                if len(inside) > 1 and inside[-1] == number and fields["State"][0] != "Z":
                    return True
    return False
