# SPDX-License-Identifier: MIT
"""A child that is forked while another thread is within a file's buffer gets on all the same."""

from __future__ import annotations

from typing import Any

import pytest

import functions as f

# Forking beside threads is what these tests are about; 3.12 and newer warn of it.
QUIET = ("-W", "ignore:This process:DeprecationWarning")

# A thread that is within a buffer's lock: what it writes does not fit into the pipe.
STUCK = """
import fcntl, logging, os, struct, sys, termios, threading
import functions as f
import gopool

def is_full(pipe):
    (waiting,) = struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))
    return waiting == fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ)

def get_stuck(pipe, write):
    threading.Thread(target=write, args=("x" * (1 << 20),), daemon=True).start()
    while not is_full(pipe):  # nothing tells; from then on the thread is within its write
        os.sched_yield()

def drain(pipe, into):
    with open(pipe, "rb") as source:
        into.append(source.read())

def run_beside(pipe, process):
    process.start()
    text = []
    drainer = threading.Thread(target=drain, args=(pipe, text), daemon=True)
    drainer.start()
    process.join(20)
    if process.is_alive():
        print("the child hangs", file=sys.__stdout__)
        process.kill()
    return drainer, text
"""


def test_worker_replaced_while_the_main_thread_reads_stdin(tmp_path: Any) -> None:
    """A child closes sys.stdin first of all, whose lock the main thread has while it waits."""
    done = f.run_script(
        tmp_path,
        """
import os, sys, threading
import functions as f
import gopool

def use(pool, writer):
    for n in range(5):
        try:
            print(pool.apply_async(f.square, (n,)).get(20))
        except gopool.TimeoutError:
            print("no worker comes up")
            pool.terminate()
            break
    pool.close()
    pool.join()
    os.write(writer, b"over\\n")

if __name__ == "__main__":
    reader, writer = os.pipe()
    os.dup2(reader, 0)
    pool = gopool.get_context("fork").Pool(1, maxtasksperchild=1)
    threading.Thread(target=use, args=(pool, writer)).start()
    print(sys.stdin.readline(), end="")
""",
        flags=QUIET,
    )
    f.assert_silent_success(done, "0\n1\n4\n9\n16\nover\n")


def test_log_that_a_thread_writes_to(tmp_path: Any) -> None:
    """What is logged in the child is not lost, nor what the thread of the parent is at."""
    done = f.run_script(
        tmp_path,
        STUCK
        + """
def tell():
    logging.warning("from the child")

if __name__ == "__main__":
    reader, writer = os.pipe()
    logging.basicConfig(stream=open(writer, "w"), format="%(message)s")
    get_stuck(reader, logging.warning)
    process = gopool.get_context("fork").Process(target=tell)
    drainer, text = run_beside(reader, process)
    logging.root.handlers[0].acquire()  # the thread has written all
    logging.root.handlers[0].stream.close()
    drainer.join()
    print(process.exitcode, text[0].count(b"x"), text[0].count(b"from the child"))
""",
        flags=QUIET,
    )
    f.assert_silent_success(done, f"0 {1 << 20} 1\n")


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_standard_stream_that_a_thread_writes_to(tmp_path: Any, name: str) -> None:
    """The stream is flushed before a fork, but another thread may come between."""
    done = f.run_script(
        tmp_path,
        STUCK
        + """
def tell(name):
    print("from the child", file=getattr(sys, name))

def print_much(text):
    print(text, file=getattr(sys, sys.argv[1]), flush=True)
    written.set()

if __name__ == "__main__":
    written = threading.Event()
    reader, writer = os.pipe()
    setattr(sys, sys.argv[1], open(writer, "w"))
    leave = threading.Event()
    threading.Thread(target=leave.wait).start()  # a program with threads, before the fork begins
    os.register_at_fork(before=lambda: get_stuck(reader, print_much))
    process = gopool.get_context("fork").Process(target=tell, args=(sys.argv[1],))
    drainer, text = run_beside(reader, process)
    written.wait()
    leave.set()
    getattr(sys, sys.argv[1]).close()
    setattr(sys, sys.argv[1], getattr(sys, f"__{sys.argv[1]}__"))
    drainer.join()
    print(process.exitcode, text[0].count(b"x"), text[0].count(b"from the child"))
""",
        name,
        flags=QUIET,
    )
    f.assert_silent_success(done, f"0 {1 << 20} 1\n")


@pytest.mark.parametrize(
    ("hook", "output"),
    [("before", "child\nhook\n"), ("after_in_child", "hook\nchild\n")],
)
def test_output_round_the_fork_is_written_once(tmp_path: Any, hook: str, output: str) -> None:
    """What is printed between the flush and the fork is the parent's to write, and not the child's
    too; what the child's own hooks print is the child's.
    """
    done = f.run_script(
        tmp_path,
        """
import os, sys, threading
import functions as f
import gopool

if __name__ == "__main__":
    leave = threading.Event()
    threading.Thread(target=leave.wait).start()
    with open(1, "w", closefd=False) as sys.stdout:  # in blocks, as into any file
        os.register_at_fork(**{sys.argv[1]: lambda: print("hook")})
        process = gopool.get_context("fork").Process(target=print, args=("child",))
        process.start()
        process.join()
    sys.stdout = sys.__stdout__
    leave.set()
""",
        hook,
        flags=QUIET,
    )
    f.assert_silent_success(done, output)


def test_fork_by_hand_keeps_what_was_printed(tmp_path: Any) -> None:
    """Only children of gopool's start with empty buffers, also right after one of them."""
    done = f.run_script(
        tmp_path,
        """
import os, sys, threading
import functions as f
import gopool

if __name__ == "__main__":
    leave = threading.Event()
    threading.Thread(target=leave.wait).start()
    process = gopool.get_context("fork").Process(target=f.square, args=(2,))
    process.start()
    process.join()
    with open(1, "w", closefd=False) as sys.stdout:
        print("twice")
        pid = os.fork()
        if pid == 0:
            sys.stdout.flush()
            os._exit(0)
        os.waitpid(pid, 0)
    sys.stdout = sys.__stdout__
    leave.set()
""",
        flags=QUIET,
    )
    f.assert_silent_success(done, "twice\ntwice\n")


def test_nothing_to_renew(tmp_path: Any) -> None:
    """A child starts also where a stream is not there, or of another kind; so the tracker."""
    done = f.run_script(
        tmp_path,
        """
import io, logging, sys, threading, types
import functions as f
import gopool

class Odd(io.StringIO):
    @property
    def buffer(self):
        raise RuntimeError("asked for its buffer")

if __name__ == "__main__":
    leave = threading.Event()
    threading.Thread(target=leave.wait).start()
    del sys.__stderr__
    sys.stdin = Odd()
    logging.root.addHandler(logging.StreamHandler(Odd()))
    # As another thread finds it that is at the import.
    sys.modules["multiprocessing.resource_tracker"] = types.ModuleType("half imported")
    process = gopool.get_context("fork").Process(target=print, args=("child",))
    process.start()
    process.join()
    print(process.exitcode)
    leave.set()
""",
        flags=QUIET,
    )
    f.assert_silent_success(done, "child\n0\n")


def test_resource_tracker_that_a_thread_is_at(tmp_path: Any) -> None:
    """A child shares memory while a thread of its parent had just begun to start the tracker."""
    done = f.run_script(
        tmp_path,
        """
import threading
from multiprocessing import resource_tracker
import functions as f
import gopool
from gopool.shared_memory import SharedMemory

def share_memory():
    memory = SharedMemory(create=True, size=1)
    memory.close()
    memory.unlink()

if __name__ == "__main__":
    inside, leave = threading.Event(), threading.Event()
    def hold():
        with resource_tracker._resource_tracker._lock:
            inside.set()
            leave.wait()
    threading.Thread(target=hold).start()
    inside.wait()
    process = gopool.get_context("fork").Process(target=share_memory)
    process.start()
    process.join(20)
    print(process.exitcode)
    process.kill()
    leave.set()
""",
        flags=QUIET,
    )
    f.assert_silent_success(done, "0\n")
