# SPDX-License-Identifier: MIT
"""Importable functions and classes that workers run, and objects that sabotage them."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import Any, NoReturn

state: dict[str, Any] = {}


def square(x: int) -> int:
    return x * x


def add(x: int, y: int = 0, *, z: int = 0) -> int:
    return x + y + z


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


def raise_unpicklable_here() -> NoReturn:
    raise UnpicklableHere("a", "b")


def call(function: Any, args: tuple[Any, ...]) -> Any:
    return function(*args)


def print_to(path: str) -> None:
    """An initializer: what is printed from now on goes to a file, buffered."""
    sys.stdout = open(path, "w")  # noqa: SIM115  closed at the worker's exit, or its text is lost


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


def nested_pool(method: str) -> list[int]:
    """A pool inside a task; the worker must not be daemonic."""
    import gopool

    with gopool.get_context(method).Pool(2) as inner:
        return inner.map(square, range(4))


def process_pool(method: str, answers: Any) -> None:
    """A pool inside a process."""
    answers.put(nested_pool(method))


def fork_and_return() -> str:
    """A task that forks by itself and lets both sides return."""
    return "child" if os.fork() == 0 else "parent"


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


def sleep(seconds: float) -> None:
    time.sleep(seconds)


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


class Bomb:
    """Pickles; unpickling it calls a function with arguments."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


class Submits:
    """Submits another task to a pool while it is being pickled."""

    pool: Any = None
    results: list[Any] = []

    def __reduce__(self) -> Any:
        Submits.results.append(Submits.pool.apply_async(square, (7,)))
        return int, ()
