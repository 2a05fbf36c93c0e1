# SPDX-License-Identifier: MIT
"""Importable functions and classes that workers run, and objects that sabotage them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from multiprocessing import util
from typing import Any, NoReturn

state: dict[str, Any] = {}


def square(x: int) -> int:
    return x * x


def square_in_list(x: int) -> list[int]:
    """The outcome of a map's chunk of one item."""
    return [x * x]


def invert(x: float) -> float:
    return 1 / x


def mapper(chunk: tuple[Any, tuple[Any, ...]]) -> list[Any]:
    """What multiprocessing.pool.mapstar does."""
    function, items = chunk
    return [function(item) for item in items]


def failing_input() -> Iterator[int]:
    """An input of two items and an error."""
    yield 1
    yield 2
    raise KeyError("input")


def add(x: int, y: int = 0, *, z: int = 0) -> int:
    return x + y + z


def last(values: Any) -> Any:
    """The last element."""
    return values[-1]


def identity(x: Any) -> Any:
    return x


def pid(_: Any = None) -> int:
    return os.getpid()


def append_one(items: list[int]) -> list[int]:
    """Returns its argument, one longer: shows which arguments are the same object."""
    items.append(1)
    return items


def fail(x: Any) -> NoReturn:
    raise ValueError(x)  # the line that a remote traceback shows


def fail_at(x: int, bad: int) -> int:
    if x == bad:
        raise ValueError(x)
    return x


def chained() -> NoReturn:
    try:
        raise KeyError("inner")
    except KeyError as error:
        raise RuntimeError("outer") from error


def raise_it(error: BaseException) -> NoReturn:
    raise error


def exit_hard(code: int = 3) -> NoReturn:
    os._exit(code)


def kill_self(number: int = signal.SIGKILL) -> None:
    os.kill(os.getpid(), number)
    time.sleep(60)


def segfault() -> None:
    """Crashes in C: reads address 0."""
    import ctypes

    ctypes.string_at(0)


def abort() -> NoReturn:
    os.abort()


def crash(number: int) -> None:
    """End by a signal that native code ends with."""
    signal.raise_signal(number)


def crash_with(enable: bool) -> None:
    """Crash after the task turned faulthandler on for stderr, or off."""
    import faulthandler

    if enable:
        faulthandler.enable()
    else:
        faulthandler.disable()
    segfault()


def crash_in_fork() -> int:
    """A child that the task forks crashes, and the worker later: the child's signal."""
    pid = os.fork()
    if pid == 0:
        segfault()
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def write_stderr(text: str, count: int = 1) -> None:
    """Write to descriptor 2, past sys.stderr."""
    for _ in range(count):
        os.write(2, text.encode())


def start_process(method: str, release: str, path: str) -> None:
    """A process that the task does not wait for."""
    import gopool

    context = gopool.get_context(method)
    context.Process(target=note_after, args=(release, path, "child")).start()


def note_after(release: str, path: str, word: str) -> None:
    wait_for(release)
    note(path, word)


def keep_inner_pool(method: str, depth: int = 1) -> list[int]:
    """Make a pool in this worker that stays, one worker to a level, and return all their pids."""
    import gopool

    inner = state["inner"] = gopool.get_context(method).Pool(1, daemon=False)
    pids = [inner.apply(pid)]
    if depth > 1:
        pids += inner.apply(keep_inner_pool, (method, depth - 1))
    return pids


def busy_in_inner_pool(method: str, started: str) -> NoReturn:
    """Wait for a task of a pool in this worker, which never ends; notes tell the pids."""
    import gopool

    note(started, "outer")
    with gopool.get_context(method).Pool(1, daemon=False) as inner:
        inner.apply(note_and_spin, (started,))
    raise AssertionError("it never ends")


def note_and_spin(started: str) -> None:
    note(started, "inner")
    busy_in_python()


def write_and_wait(text: str, release: str) -> None:
    write_stderr(text)
    wait_for(release)


def start_shell(program: str, fifo: str) -> int:
    """A program that lives on, reads from a named pipe and writes to another."""
    script = f"exec <{fifo} >{fifo}.out; {program}"
    return subprocess.Popen(["sh", "-c", script], close_fds=True).pid


def nested_crash(method: str) -> str:
    """The first line of the dump of a crash in a pool inside a task."""
    import gopool

    with gopool.get_context(method).Pool(1) as inner:
        try:
            inner.apply(segfault)
        except gopool.WorkerLostError as error:
            return error.dump.splitlines()[0]
    return "no crash"


def write_stderr_and_die(text: str, count: int = 1) -> NoReturn:
    write_stderr(text, count)
    os._exit(3)


def raise_unpicklable_here() -> NoReturn:
    raise UnpicklableHere("a", "b")


def call(function: Any, args: tuple[Any, ...]) -> Any:
    return function(*args)


def print_to(path: str) -> None:
    """An initializer: what is printed from now on goes to a file, buffered."""
    sys.stdout = open(path, "w")  # noqa: SIM115  closed at the worker's exit, or its text is lost


def result_and_lambda() -> Any:
    """Does not pickle, after something that does."""
    return ["a", "b"], lambda: None


def make_lambda() -> Any:
    return lambda: None


def raise_unpicklable() -> NoReturn:
    raise Unpicklable


def remember(value: Any) -> None:
    """An initializer."""
    state["remembered"] = value


def remembered() -> Any:
    return state.get("remembered")


def fail_initializer() -> NoReturn:
    raise RuntimeError("no worker can be made")


def note(path: str, word: str) -> int:
    """Append a line with this process's pid to a file."""
    with open(path, "a") as notes:
        notes.write(f"{os.getpid()} {word}\n")
    return os.getpid()


def note_under_sigint(path: str, word: str) -> None:
    """Ctrl-C arrives before the note."""
    os.kill(os.getpid(), signal.SIGINT)
    note(path, word)


def note_finalizer(path: str) -> None:
    """An initializer: a finalizer of the worker's will make a note."""
    from multiprocessing import util

    util.Finalize(None, note, args=(path, "finalizer"), exitpriority=10)


def exit() -> NoReturn:
    """Ends whoever does not catch it; an exit hook."""
    raise SystemExit(7)


def is_daemon() -> bool:
    import multiprocessing

    return multiprocessing.current_process().daemon


def nested_pool(method: str) -> list[int]:
    """A pool inside a task; the worker must not be daemonic."""
    import gopool

    with gopool.get_context(method).Pool(2) as inner:
        return inner.map(square, range(4))


def process_pool(method: str, answers: Any) -> None:
    """A pool inside a process."""
    answers.put(nested_pool(method))


def die_with_living_child(release: str) -> NoReturn:
    """End while a child that the task forked lives on and holds all descriptors."""
    if os.fork() == 0:
        wait_for(release)
        os._exit(0)
    os._exit(5)


_replaced: list[Any] = []


def replace_descriptors(size: int) -> bytes:
    """Close all descriptors and open sockets of the kind that gopool uses in their place."""
    os.closerange(3, 4096)
    for _ in range(20):
        _replaced.extend(socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    return b"x" * size


def replace_descriptors_and_fork(told: str) -> None:
    """The same; a child writes to a file whether it has all of those sockets."""
    replace_descriptors(0)
    pid = os.fork()
    if pid == 0:
        there = all(os.path.exists(f"/proc/self/fd/{end.fileno()}") for end in _replaced)
        with open(told, "w") as file:
            file.write(str(there))
        os._exit(0)
    os.waitpid(pid, 0)


def never_end(way: str) -> int:
    """Leave something behind that keeps this process from ending in order; returns its number."""
    if way == "thread":
        threading.Thread(target=pause_for_ever).start()
    else:
        util.Finalize(None, pause_for_ever, exitpriority=1)
    return os.getpid()


def pause_for_ever() -> None:
    """Never return."""
    threading.Event().wait()


def fork_and_return() -> str:
    """A task that forks by itself and lets both sides return."""
    return "child" if os.fork() == 0 else "parent"


def exit_code_of_fork(end: Any) -> int:
    """The exit code of a child that leaves the task by sys.exit(end)."""
    child = os.fork()
    if child == 0:
        sys.exit(end)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def large_result_without_descriptors() -> bytes:
    """Leaves the process no descriptor to open."""
    import resource

    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(3, highest), limit[1]))
    return bytes(1_000_000)


def wait_for(path: str) -> bool:
    """Block until a file exists (what a test creates is the event)."""
    while not os.path.exists(path):
        time.sleep(0.002)
    return True


def touch_and_wait(started: str, release: str) -> int:
    with open(started, "w"):
        pass
    wait_for(release)
    return os.getpid()


def meet(folder: str, number: int, count: int) -> None:
    """Return when so many have come here: each in a worker of its own."""
    with open(f"{folder}/met-{number}", "w"):
        pass
    for other in range(count):
        wait_for(f"{folder}/met-{other}")


def sleep(seconds: float) -> None:
    time.sleep(seconds)


def obey(connection: Any) -> None:
    """A process's target: says that it runs, then exits the way it is told to.

    An int is an exit code, an exception is raised, a string is an attribute of the current
    process that is sent back.
    """
    import multiprocessing

    connection.send("started")
    while isinstance(order := connection.recv(), str):
        connection.send(getattr(multiprocessing.current_process(), order))
    raise order if isinstance(order, BaseException) else SystemExit(order)


def busy_in_python() -> None:
    while True:
        pass


def busy_in_c() -> None:
    """Holds the interpreter lock within one call of C code, for hours."""
    sum(range(10**13))


def announce_pool(method: str, depth: int, kind: str) -> None:
    """Make a pool whose workers are in a state; say this process's pid, then those of two workers.

    Another level is begun in a process of this one. A process's target, and what a program that is
    to be killed does; never returns.
    """
    import gopool

    context = gopool.get_context(method)
    pool = context.Pool(2)
    pids = [os.getpid(), *(worker.pid for worker in pool._pool)]
    if kind != "starting":
        pool.map(square, range(4), 1)
    if kind == "python":
        pool.apply_async(busy_in_python)
    elif kind == "C":
        pool.apply_async(busy_in_c)
    if depth:
        # Not a pool's worker, which must not have children: a process of this level's own.
        context.Process(target=announce_pool, args=(method, depth - 1, kind)).start()
    os.write(1, "".join(f"{pid}\n" for pid in pids).encode())
    threading.Event().wait()


def grow_tree(connection: Any, depth: int) -> None:
    """A process's target: starts another of its kind and a program, says their pids, and waits.

    Every process of the tree has the connection's end: its end of file is the end of the last.
    """
    import gopool

    if depth:
        # Forked: the forkserver's children are its own, not of who asked for them.
        gopool.get_context("fork").Process(target=grow_tree, args=(connection, depth - 1)).start()
    program = subprocess.Popen(["sleep", "600"], pass_fds=[connection.fileno()])
    connection.send((os.getpid(), program.pid))
    threading.Event().wait()


def use_memory_and_time(size: int) -> None:
    memory = bytearray(size)
    for i in range(0, size, 4096):
        memory[i] = 1
    end = time.process_time() + 0.02
    while time.process_time() < end:
        pass


def tell_parent(answers: Any) -> None:
    """A process's target: tells who its parent is."""
    import gopool

    parent = gopool.parent_process()
    assert parent is not None
    answers.send((parent.pid, parent.is_alive()))


def thread_name() -> str:
    return threading.current_thread().name


class Unpicklable(Exception):
    """Pickles nowhere."""

    def __reduce__(self) -> NoReturn:
        raise TypeError("not to be pickled")


class UnpicklableHere(Exception):
    """Pickles, and does not unpickle: its __init__ needs more than what is kept."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(first)


class BadArgument:
    """Does not pickle."""

    def __reduce__(self) -> NoReturn:
        raise TypeError("this argument does not pickle")


class ClosesPool:
    """Closes a pool while it is being pickled."""

    pool: Any = None

    def __reduce__(self) -> Any:
        ClosesPool.pool.close()
        return int, ()


class ExitsAtPickling:
    """Pickling it raises SystemExit."""

    def __reduce__(self) -> NoReturn:
        raise SystemExit(4)


class Bomb:
    """Pickles; unpickling it calls a function with arguments."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


class WaitsFor:
    """Becomes a text; pickling it takes until a file is there."""

    def __init__(self, path: str, text: str) -> None:
        self.path, self.text = path, text

    def __reduce__(self) -> Any:
        assert wait_for(self.path), f"{self.path} is not there"
        return str, (self.text,)


class Submits:
    """Submits another task to a pool while it is being pickled."""

    pool: Any = None
    results: list[Any] = []

    def __reduce__(self) -> Any:
        Submits.results.append(Submits.pool.apply_async(square, (7,)))
        return int, ()


def run_script(
    folder: Any, text: str, *arguments: str, flags: tuple[str, ...] = (), env: Any = None
) -> Any:
    """Run a script file in an interpreter of its own, as its children may import it again.

    Returns the CompletedProcess; the caller judges it. The script can import this module.
    """
    script = folder / "script.py"
    script.write_text(textwrap.dedent(text))
    path = [os.path.dirname(os.path.abspath(__file__)), os.environ.get("PYTHONPATH", "")]
    return subprocess.run(
        [sys.executable, *flags, str(script), *arguments],
        capture_output=True,
        text=True,
        timeout=90,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path)), **(env or {})},
    )


def assert_silent_success(done: Any, expected: str = "") -> None:
    """The script printed what was expected, nothing on stderr, and ended with 0."""
    assert (done.returncode, done.stdout, done.stderr) == (0, expected, ""), (
        f"exit code {done.returncode}\nstdout: {done.stdout}\nstderr: {done.stderr}"
    )


# Tasks that meet each other, and what a worker has of its lane.


def open_path(path: str, mode: str) -> None:
    """Open a file; a FIFO's two ends wait for each other."""
    with open(path, mode):
        pass


_barrier: Any = None
_counters: Any = None


def set_barrier(barrier: Any) -> None:
    """An initializer."""
    global _barrier
    _barrier = barrier


def pass_barrier(wait: bool) -> bool:
    """Wait until as many as the barrier wants are here, or do nothing."""
    if wait:
        _barrier.wait(30)
    return wait


def set_counters(counters: Any) -> None:
    """An initializer."""
    global _counters
    _counters = counters


def count_run(index: int) -> int:
    """Count a run of this index."""
    _counters[index] += 1
    return index


def lanes_mapped() -> tuple[int, int]:
    """How many lanes are mapped here, and in a child that is forked here."""

    def mapped() -> int:
        with open("/proc/self/maps") as maps:
            return sum("gopool-lane" in line for line in maps)

    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writer, b"%d" % mapped())
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(writer)
    with open(reader, "rb") as file:
        return mapped(), int(file.read())
