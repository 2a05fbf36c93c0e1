# SPDX-License-Identifier: MIT
"""Large data when workers die, pools end, limits are small, or messages are huge."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import functions as f
import gopool
from gopool._worker import mapping, pickling, warm
from usage import left_since, usage

TIMEOUT = 60  # seconds for any one result
N = 2 * pickling.LEAST_BUFFER  # bytes or more in everything that is large here

_kept: list[Any] = []


def keep(values: Any) -> int:
    """Keep an argument for the worker's life."""
    _kept.append(values)
    return os.getpid()


def kept_are_intact() -> list[bool]:
    return [bool((values == values[0]).all()) for values in _kept]


def keep_and_die(values: Any) -> None:
    keep(values)
    os.kill(os.getpid(), signal.SIGKILL)


def fork_and_keep(values: Any) -> int:
    """Leave a child that holds a copy of the argument until it is killed."""
    child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(0)
    return child


def close_stderr(value: int) -> Any:
    os.closerange(2, 3)
    return np.full(N, value)


def write_to_stderr() -> None:
    os.write(2, b"an error" * N)


def free() -> list[bool]:
    return [region.is_free() for region in warm._kept]


@pytest.fixture
def pool() -> Iterator[Any]:
    warm.drop()
    with gopool.get_context("fork").Pool(1) as pool:
        yield pool
        pool.close()
        pool.join()


def test_worker_that_dies_with_a_region(pool: Any, eventually: Any) -> None:
    """A worker that is killed with an argument loses its task; the memory is free again."""
    for number in range(3):
        with pytest.raises(gopool.WorkerLostError):
            pool.apply(keep_and_die, (np.full(N, number),))
    assert pool.apply(int, (np.full(1, 5)[0],)) == 5
    # A replacement, forked at that moment, has a descriptor of it until its first steps.
    eventually(lambda: all(free()), "the memory is free")
    assert pool.apply(len, (np.zeros(N),)) == N
    assert len(free()) <= 3


def test_worker_without_stderr(pool: Any) -> None:
    """Where a task has closed it, what is written there goes into no result."""
    results = [pool.apply(close_stderr, (number,)) for number in range(3)]
    with pytest.raises(OSError, match="Bad file descriptor"):
        pool.apply(write_to_stderr)
    for number, values in enumerate(results):
        assert (values == number).all()


def test_worker_that_keeps_its_arguments(pool: Any) -> None:
    """Arguments that a worker keeps stay what they were, whatever is sent later."""
    for number in range(100):
        pool.apply(keep, (np.full(N, number),))
    assert pool.apply(kept_are_intact) == [True] * 100


def test_task_that_forks(pool: Any) -> None:
    """A child that a task leaves behind keeps the region of its argument from being used again."""
    child = pool.apply(fork_and_keep, (np.full(N, 1),))
    assert free() == [False]
    assert (pool.apply(f.identity, (np.full(N, 2),)) == 2).all()
    os.kill(child, signal.SIGKILL)


def test_results_outlive_worker_and_pool(pool: Any) -> None:
    """A result is there, and can be written, after its worker was killed and its pool has ended."""
    results = pool.map(f.identity, [np.full(N, number) for number in range(4)], 1)
    (worker,) = pool._pool
    os.kill(worker.pid, signal.SIGKILL)
    assert pool.apply(f.pid) != worker.pid
    pool.terminate()
    pool.join()
    mapped = len(mapping._live)
    for number, values in enumerate(results):
        values += 1
        assert (values == number + 1).all()
    del values, results
    assert len(mapping._live) == mapped - 4  # and is gone with its last view


def test_terminate_with_regions_on_their_way(pool: Any) -> None:
    """A pool that is terminated with large tasks and results under way leaves no memory."""
    before = usage()
    for _ in range(10):
        with gopool.get_context("fork").Pool(2) as other:
            other.map_async(f.identity, [np.full(N, number) for number in range(40)], 1)
        other.join()
    warm.drop()
    assert not left_since(before)


def test_nothing_is_left_after_many_transfers(pool: Any) -> None:
    """A thousand arrays there and back: no descriptor, mapping or memory more than before."""

    def transfer(rounds: int) -> None:
        for number in range(rounds):
            values = pool.apply(f.identity, (np.full(N // 8, number),))
            assert values[-1] == number

    transfer(50)
    warm.drop()  # how many it takes depends on who is quicker
    before, mapped = usage(), len(mapping._live)
    transfer(1_000)
    assert len(warm._kept) < 8
    warm.drop()
    assert not left_since(before)
    assert len(mapping._live) == mapped
    assert usage().memory - before.memory < 16 << 20


LOWER_LIMIT = """
limit = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, limit[1]))
"""

SMALL_LIMIT = """
import resource
import numpy as np
import functions as f
import gopool

if __name__ == "__main__":
    {before}
    with gopool.get_context({method!r}).Pool(2) as pool:
        pool.map(f.square, range(4))
        {after}
        values = [np.full(40_000, number) for number in range(100)]
        kept = pool.map(f.identity, values, 1)
        kept += [pool.apply(f.identity, (one,)) for one in values]
        kept += list(pool.imap(f.identity, values))
        kept += pool.map(f.identity, values[:1] * 100, 1)
        results = [pool.apply_async(f.identity, (one,)) for one in values]
        kept += [result.get() for result in results]
        wanted = values * 3 + values[:1] * 100 + values
        print(all((a == b).all() for a, b in zip(kept, wanted, strict=True)))
"""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_small_limit_of_descriptors(tmp_path: Any, method: str, when: str) -> None:
    """Five hundred large results are kept under a limit of 64 descriptors, whether it was set
    before the pool was made or after.
    """
    lower = LOWER_LIMIT.strip().replace("\n", "; ")
    parts = {"before": "", "after": "", when: lower}
    script = SMALL_LIMIT.format(method=method, **parts)
    f.assert_silent_success(f.run_script(tmp_path, script), "True\n")


NO_DESCRIPTORS = """
import os, resource
import numpy as np
import functions as f
import gopool
from gopool._worker import warm

def fill(spare):
    taken = []
    try:
        while True:
            taken.append(os.dup(0))
    except OSError:
        for _ in range(spare):
            os.close(taken.pop())

if __name__ == "__main__":
    with gopool.get_context("fork").Pool(2) as pool:
        pool.map(f.square, range(4))
        pool.map(len, [b"x" * 200_000] * 2)
        values = [np.full(40_000, number) for number in range(50)]
        if not {spare}:
            warm.drop()  # what it keeps is a descriptor too
        fill({spare})
        for name in "map", "imap":
            print([int(one) for one in getattr(pool, name)(f.last, values)] == list(range(50)))
        results = [pool.apply_async(f.last, (one,)) for one in values]
        print([int(result.get()) for result in results] == list(range(50)))
"""


@pytest.mark.parametrize("spare", [0, 3, 5])
def test_program_that_uses_all_descriptors(tmp_path: Any, spare: int) -> None:
    """Large arguments wait for one another where the program leaves descriptors for few of them."""
    done = f.run_script(tmp_path, NO_DESCRIPTORS.format(spare=spare))
    f.assert_silent_success(done, "True\n" * 3)


def without_descriptors(script: str) -> str:
    """A script whose last part, which knows Reserve, runs where a program has left none."""
    start = NO_DESCRIPTORS.format(spare=0).partition("        for name in")[0]
    return f"import threading\nfrom gopool._reserve import Reserve\n{start}{script}"


def test_program_that_leaves_no_descriptor(tmp_path: Any) -> None:
    """Where gopool has none in reserve either, a large argument is the system's error, a large
    result one that says what to do, and small ones go on.
    """
    script = """
        Reserve.give_up = lambda self: False
        for large in ((f.last, (values[0],)), (bytes, (300_000,))) * 2:
            try:
                pool.apply(*large)
            except (OSError, gopool.GopoolError) as error:
                print(error)
        print(pool.map(f.square, range(3)))
"""
    done = f.run_script(tmp_path, without_descriptors(script))
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    lost = (
        "the task is done, but its outcome of 300072 bytes was lost: this process may open no "
        f"more descriptors (RLIMIT_NOFILE is {limit}; raise `ulimit -n`, or hold fewer files open)"
    )
    f.assert_silent_success(done, f"[Errno 24] Too many open files\n{lost}\n" * 2 + "[0, 1, 4]\n")


PLACE_TAKEN = """
        give_up = Reserve.give_up
        def give_up_to_another(self):
            given = give_up(self)
            if given:
                thief = os.dup(0)  # the file that another thread opens at that moment
                threading.Timer(0.1, os.close, (thief,)).start()
            return given
        Reserve.give_up = give_up_to_another
        print(len(pool.apply(bytes, (300_000,))))
"""


def test_place_that_another_thread_had_first(tmp_path: Any) -> None:
    """A result waits while the place that was made for it is that of a file of the program."""
    done = f.run_script(tmp_path, without_descriptors(PLACE_TAKEN))
    f.assert_silent_success(done, "300000\n")


LIMIT_BELOW_WHAT_IS_OPEN = """
import os, resource, sys
import numpy as np
import functions as f
import gopool

def no_more():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (6 if int(sys.argv[2]) else 30, hard))
    spare = []
    try:
        while True:
            spare.append(os.dup(0))
    except OSError:
        return spare

if __name__ == "__main__":
    context = gopool.get_context(sys.argv[1])
    with context.Pool(2) as pool:
        pool.map(f.square, range(4))
        kept = no_more()
        print({len(pool.apply(bytes, (300_000,))) for _ in range(20)})
        results = [pool.apply_async(bytes, (300_000,)) for _ in range(1000)]
        print({len(result.get()) for result in results})
        values = [np.full(40_000, number) for number in range(60)]
        for name in "map", "imap":
            back = getattr(pool, name)(f.identity, values, 1)
            print([int(one[-1]) for one in back] == list(range(60)))
        print([int(pool.apply(f.last, (one,))) for one in values] == list(range(60)))
        print(pool.map(f.square, range(3)))
        pool.close()
        pool.join()
"""


@pytest.mark.parametrize("below", [False, True])
def test_limit_below_what_is_open(tmp_path: Any, start_method: str, below: bool) -> None:
    """Large arguments and results arrive, one after the other, after RLIMIT_NOFILE was lowered so
    far that this process may open nothing more, also where most that it has open is beyond it.
    """
    done = f.run_script(tmp_path, LIMIT_BELOW_WHAT_IS_OPEN, start_method, str(int(below)))
    printed = "{300000}\n" * 2 + "True\n" * 3 + "[0, 1, 4]\n"
    f.assert_silent_success(done, printed)


LAST_RESULT = """
import os, resource
import gopool

if __name__ == "__main__":
    with gopool.get_context("fork").Pool(1) as pool:
        pool.apply(abs, (1,))  # what submissions need is there from now on
    pool.join()
    with gopool.get_context("fork").Pool(2, maxtasksperchild=1) as pool:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (6, hard))
        results = [pool.apply_async(bytes, (300_000,)) for _ in range(2)]
        print([len(result.get()) for result in results])
"""


def test_last_result_without_descriptors(tmp_path: Any) -> None:
    """A result that has to wait for a descriptor is not lost where its worker ends meanwhile."""
    done = f.run_script(tmp_path, LAST_RESULT)
    f.assert_silent_success(done, "[300000, 300000]\n")


TERMINATED = """
import resource
import functions as f
import gopool

if __name__ == "__main__":
    for _ in range(20):
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with gopool.get_context("fork").Pool(2) as pool:
            pool.map(f.square, range(4))
            resource.setrlimit(resource.RLIMIT_NOFILE, (6, hard[1]))
            results = [pool.apply_async(bytes, (300_000,)) for _ in range(10)]
            results[0].get()
        resource.setrlimit(resource.RLIMIT_NOFILE, hard)
        pool.join()
    print("done")
"""


def test_terminate_while_results_wait(tmp_path: Any) -> None:
    """A pool whose results wait for descriptors can be terminated."""
    f.assert_silent_success(f.run_script(tmp_path, TERMINATED), "done\n")


SMALL_SHM = """
import os
import numpy as np
import functions as f
import gopool

if __name__ == "__main__":
    room = os.statvfs("/dev/shm")
    with gopool.get_context("fork").Pool(2) as pool:
        back = pool.map(f.identity, [np.full(1_000_000, number) for number in range(4)], 1)
    print(room.f_blocks * room.f_frsize, [int(one[-1]) for one in back])
"""


def test_small_shared_memory_file_system(tmp_path: Any) -> None:
    """A /dev/shm of 64 KiB, as containers may have it, is no bound for arrays of 8 MB."""
    mount = "mount -t tmpfs -o size=64k tmpfs /dev/shm"
    enter = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    try:
        subprocess.run([*enter, mount], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no file system can be mounted here")
    script = tmp_path / "script.py"
    script.write_text(SMALL_SHM)
    command = f"{mount} && exec {sys.executable} {script}"
    paths = os.pathsep.join([os.path.dirname(f.__file__), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [*enter, command],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        env={**os.environ, "PYTHONPATH": paths},
    )
    f.assert_silent_success(done, "65536 [0, 1, 2, 3]\n")


def large_result_beyond_the_limit(size: int) -> Any:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (pickling.LEAST_BUFFER, limit[1]))
    return np.zeros(size, np.uint8)


def test_no_memory(pool: Any) -> None:
    """Where a region can't be written, that call fails with the system's error, both ways, and the
    next one is well. (A limit of file sizes stands for a machine without memory.)
    """
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (pickling.LEAST_BUFFER, limit[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            pool.apply(len, (np.zeros(N),))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert pool.apply(len, (np.zeros(N),)) == N
    pid = pool.apply(f.pid)
    with pytest.raises(OSError, match="File too large"):
        pool.apply(large_result_beyond_the_limit, (N,))
    assert pool.apply(f.pid) == pid


def _available() -> int:
    """Bytes of memory that this machine has to spare."""
    with open("/proc/meminfo") as lines:
        for line in lines:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    return 0


HUGE = """
import sys
import numpy as np
import gopool

def ones(size):
    values = np.ones(size, np.uint8)
    values[-1] = 7
    return values

def ends(obj):
    return len(obj), int(obj[0]), int(obj[-1])

if __name__ == "__main__":
    size = int(sys.argv[1])
    with gopool.get_context("fork").Pool(1) as pool:
        values = ones(size)
        assert pool.apply(ends, (values,)) == (size, 1, 7)
        del values
        assert ends(pool.apply(ones, (size,))) == (size, 1, 7)
        data = b"a" * (size - 1) + b"z"
        assert pool.apply(ends, (data,)) == (size, ord("a"), ord("z"))
        del data
        assert ends(pool.apply(bytes, (size,))) == (size, 0, 0)
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(_available() < 16 << 30, reason="needs three times 5 GB of free memory")
@pytest.mark.parametrize(
    "size",
    [
        pytest.param(
            (2 << 30) + 5,
            id="2 GiB",
            marks=pytest.mark.skipif(
                not os.environ.get("GOPOOL_CHAOS"),
                reason="4 GiB crosses this limit too: run by `make chaos`",
            ),
        ),
        pytest.param((4 << 30) + 5, id="4 GiB"),
    ],
)
def test_huge_messages(tmp_path: Any, size: int) -> None:
    """Messages of more than 2 and 4 GiB, where a call of the kernel's moves 2 GiB at most."""
    script = tmp_path / "script.py"  # in a process of its own, whose peak of memory nobody inherits
    script.write_text(HUGE)
    command = [sys.executable, str(script), str(size)]
    f.assert_silent_success(subprocess.run(command, capture_output=True, text=True, timeout=500))
