# SPDX-License-Identifier: MIT
"""A program that closes descriptors that it does not know, those of a living pool among them.

Not the two of Go's runtime: without them it aborts the process, where its monitor looks at them.
"""

from __future__ import annotations

from typing import Any

import pytest

import functions as f

CLOSES = """
import gc, os, sys
import functions as f
import gopool
from gopool import _core

def are_whole(files):
    for file in files:
        assert os.lseek(file.fileno(), 0, os.SEEK_CUR) == 0
        assert file.read() == "x" * 100
        file.seek(0)

def outcome(call, *arguments):
    try:
        return call(*arguments)
    except gopool.GopoolError as error:
        return f"{{type(error).__name__}}: {{error}}"

if __name__ == "__main__":
    context = gopool.get_context(sys.argv[1])
    pool = context.Pool(2)
    pool.map(abs, range(4))
    waiting = pool.apply_async(f.sleep, (1000,))
    for fd in set(range(3, 4096)) - set(_core._pollers[2:]):
        os.closerange(fd, fd + 1)
    files = [open(f"file{{number}}", "w+") for number in range({files})]
    for file in files:
        file.write("x" * 100)
        file.seek(0)
    {end}
    print(outcome(waiting.get, 30).partition(" before")[0])
    print(outcome(gopool.get_context("fork").Pool, 1).partition(" closed")[0])
    del pool, waiting
    gc.collect()
    process = gopool.get_context("fork").Process(target=are_whole, args=(files,))
    process.start()
    process.join()
    print(process.exitcode)
    are_whole(files)
"""
PRINTED = """\
PoolTerminatedError: the pool was terminated
CoreError: this process has
0
"""


@pytest.mark.parametrize("files", [0, 60])
@pytest.mark.parametrize("end", ["pool.terminate()", "pool.close()", "sys.exit()"])
def test_pool_ends(tmp_path: Any, start_method: str, end: str, files: int) -> None:
    """Its pool ends at once, busy as it is, and the next one is refused with the reason. What has
    its descriptors' numbers by then is left alone.
    """
    if end != "sys.exit()":
        end += "; pool.join()"
    done = f.run_script(tmp_path, CLOSES.format(end=end, files=files), start_method)
    f.assert_silent_success(done, "" if end == "sys.exit()" else PRINTED)
    assert [file.stat().st_size for file in tmp_path.glob("file*")] == [100] * files


HALF_BLIND = """
import multiprocessing, os, select, sys
import functions as f
import gopool

if __name__ == "__main__":
    of = {"gopool": gopool, "stdlib": multiprocessing}[sys.argv[2]]
    pool = gopool.pool.Pool(2, context=of.get_context(sys.argv[1]))
    waiting = pool.apply_async(f.sleep, (1000,))
    pidfds = [os.pidfd_open(worker.pid) for worker in pool._pool]
    os.close(pool._engine._wake_fd)
    pool.terminate()
    print([bool(select.select([pidfd], [], [], 30)[0]) for pidfd in pidfds])
"""


@pytest.mark.parametrize("of", ["gopool", "stdlib"])
def test_one_descriptor(tmp_path: Any, start_method: str, of: str) -> None:
    """A pool that has lost a single one ends as well, with its workers, whosever children they
    are: the lifeline is whole, and would keep them for as long as the program lives.
    """
    done = f.run_script(tmp_path, HALF_BLIND, start_method, of)
    f.assert_silent_success(done, "[True, True]\n")
