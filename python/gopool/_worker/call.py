# SPDX-License-Identifier: MIT
"""One task in the worker: unpickle, call, pickle (station 9 of the data flow).

Whatever the user's code does here, also in `__reduce__` and `__setstate__`, becomes the task's
outcome.
"""

from __future__ import annotations

import io
import os
import pickle
import sys
from collections.abc import Callable

from gopool._worker.pickling import Dumper, dumps

TYPE_CHECKING = False  # typing is not imported at run time: it costs milliseconds
if TYPE_CHECKING:
    from typing import Any

CALL, MAP, STARMAP = 0, 1, 2  # PROTOCOL.md, Task.mode
VALUE, ERROR, ENCODING = 0, 1, 2  # PROTOCOL.md, Done.status

# What a call without arguments is submitted with, and its pickle; then the pickle of no value.
NO_ARGUMENTS: Any = ((), {})
NOTHING = pickle.dumps(NO_ARGUMENTS)
_NONE: list[Any] = [pickle.dumps(None)]


class Definition:
    """A function that was sent once: where the worker finds it.

    It is found anew for each task, by module and name, so that a reload or a patch in the worker is
    seen, as it is when it travels with each task.
    """

    __slots__ = ("_pickle", "_uses", "module", "name")

    def __init__(self, data: bytes) -> None:
        self._pickle = data
        self._uses = 0
        self.module = self.name = ""  # known from the second use on, where there is one of each

    def load(self) -> Any:
        """Unpickle it; raises whatever that does."""
        self._uses += 1
        if self._uses != 2:  # most functions of short programs are used once
            return pickle.loads(self._pickle)
        finder = _Finder(io.BytesIO(self._pickle))
        function = finder.load()
        if len(finder.found) == 1:
            module, name = finder.found[0]
            if getattr(sys.modules.get(module), "__dict__", {}).get(name) is function:
                self.module, self.name = module, name
        return function


class _Finder(pickle.Unpickler):
    """An unpickler that tells what it looked for."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.found: list[tuple[str, str]] = []

    def find_class(self, module: str, name: str) -> Any:
        self.found.append((module, name))
        return super().find_class(module, name)


def unpack(payload: Any, definition: Definition | None) -> tuple[Callable[..., Any], Any]:
    """Find what a task is about.

    Args:
        payload: bytes, or a `regions.Received`.
        definition: of the function; None: it is in the payload.
    """
    load = pickle.loads if type(payload) is bytes else _load_received
    if definition is None:
        function, arguments = load(payload)
        return function, arguments
    module = sys.modules.get(definition.module)
    function = None if module is None else module.__dict__.get(definition.name)
    if function is None:
        function = definition.load()
    # Made anew: in a map it may be a chunk of two items, which the function may change.
    return function, ((), {}) if payload == NOTHING else load(payload)


def receive(fd: int, size: int) -> Any:
    """The payload in a region, for `unpack`; takes the descriptor."""
    try:
        from gopool._worker import regions  # with the first one: see there
    except BaseException:
        os.close(fd)
        raise
    return regions.Received(fd, size)


def _load_received(payload: Any) -> Any:
    return payload.load()


def pack_value(dumper: Dumper, value: Any) -> tuple[int, list[Any]]:
    """(status, buffers) of a task that returned.

    A value that does not pickle is the standard library's MaybeEncodingError.
    """
    if value is None:
        return VALUE, _NONE
    try:
        return VALUE, dumper.dump(value)
    except Exception as error:
        return ENCODING, [_pack_exception(_encoding_error(error, value), "")]


def pack_error(error: BaseException, with_traceback: bool) -> tuple[int, list[Any]]:
    """(status, buffers) of a task that raised."""
    text = _traceback(error) if with_traceback else ""
    try:
        return ERROR, [_pack_exception(error, text)]
    except Exception as problem:
        return ENCODING, [_pack_exception(_encoding_error(problem, error), "")]


def _traceback(error: BaseException) -> str:
    """The text of a task's traceback; making it may need what the worker has no more of."""
    try:
        return str(_stdlib_pool().ExceptionWithTraceback(error, error.__traceback__).tb)
    except Exception as problem:
        return f"{_repr(error)} (its traceback can't be formatted: {_repr(problem)})"


def _pack_exception(error: BaseException, traceback: str) -> bytes:
    """Two pickles: the exception in words, for whoever can't rebuild it, and the exception."""
    words = (type(error).__qualname__, _repr(error), traceback)
    return dumps(words) + dumps(error)


def _encoding_error(problem: Exception, value: Any) -> Exception:
    kind = _stdlib_pool().MaybeEncodingError
    try:
        error: Exception = kind(problem, value)
        return error
    except Exception:  # a repr that raises
        error = kind(_repr(problem), object.__repr__(value))
        return error


def _stdlib_pool() -> Any:
    """multiprocessing.pool: imported when the first task fails, not before the first task."""
    from multiprocessing import pool

    return pool


def _repr(obj: object) -> str:
    try:
        return repr(obj)
    except Exception:
        return object.__repr__(obj)
