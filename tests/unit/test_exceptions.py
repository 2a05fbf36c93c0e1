# SPDX-License-Identifier: MIT
"""The exception tree: as drawn, complete, picklable, and telling what happened."""

from __future__ import annotations

import concurrent.futures
import copy
import inspect
import multiprocessing
import pickle
from typing import Any

import pytest

import gopool
from gopool import _core, exceptions

# Each name with the classes that it must be: as the drawing in exceptions.py says.
TREE = {
    "GopoolError": (multiprocessing.ProcessError,),
    "WorkerLostError": (exceptions.GopoolError,),
    "BrokenPoolError": (exceptions.GopoolError,),
    "WorkerStartError": (exceptions.BrokenPoolError,),
    "PoolTerminatedError": (exceptions.GopoolError,),
    "TaskCancelledError": (exceptions.GopoolError, concurrent.futures.CancelledError),
    "TaskTimeoutError": (exceptions.GopoolError, multiprocessing.TimeoutError),
    "SoftTimeoutError": (exceptions.TaskTimeoutError,),
    "SupervisorError": (exceptions.GopoolError,),
    "RemoteTaskError": (exceptions.GopoolError,),
    "PayloadTooLargeError": (exceptions.GopoolError, ValueError),
    "ForkedChildError": (exceptions.GopoolError, RuntimeError),
    "CoreError": (exceptions.GopoolError,),
}

# Arguments of each, and the attributes that they become.
ARGUMENTS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "WorkerLostError": (
        (12, -11, 0.5, "mod.f", "why", "Fatal\n", "last\n"),
        {
            "pid": 12,
            "exitcode": -11,
            "seconds": 0.5,
            "task": "mod.f",
            "reason": "why",
            "dump": "Fatal\n",
            "stderr": "last\n",
            "signal_name": "SIGSEGV",
        },
    ),
    "BrokenPoolError": ((12, 1, "text"), {"pid": 12, "exitcode": 1, "reason": "text"}),
    "WorkerStartError": ((12, None, ""), {"pid": 12, "exitcode": None, "reason": ""}),
    "TaskTimeoutError": (
        (0.5, "mod.f", 12),
        {"seconds": 0.5, "task": "mod.f", "pid": 12},
    ),
    "SoftTimeoutError": ((0.5,), {"seconds": 0.5}),
    "SupervisorError": (("web", 3, 1), {"name": "web", "restarts": 3, "exitcode": 1}),
    "RemoteTaskError": (
        ("mod.E", "E(1)", "line 1"),
        {"type_name": "mod.E", "text": "E(1)", "traceback": "line 1"},
    ),
}


@pytest.mark.parametrize("name", TREE)
def test_tree(name: str) -> None:
    """Every exception has the bases that the drawing gives it, and is in it and in gopool."""
    kind = getattr(exceptions, name)
    assert kind.__bases__ == TREE[name]
    assert getattr(gopool, name) is kind
    assert kind.__module__ == "gopool.exceptions"
    assert kind.__doc__
    drawing = exceptions.__doc__ or ""
    assert f"+-- {name} " in drawing or f"+-- {name}\n" in drawing


def test_nothing_is_left_out() -> None:
    """The table above, __all__ and the module's classes are the same set."""
    classes = {
        name
        for name, value in vars(exceptions).items()
        if inspect.isclass(value) and value.__module__ == exceptions.__name__
    }
    assert classes | {"TaskCancelledError"} == set(TREE) == set(exceptions.__all__)
    assert set(TREE) <= set(gopool.__all__)


def test_the_standard_librarys_are_the_standard_librarys() -> None:
    """What multiprocessing has is passed on, never made anew: old except clauses go on working."""
    for name in ("ProcessError", "TimeoutError", "BufferTooShort", "AuthenticationError"):
        assert getattr(gopool, name) is getattr(multiprocessing, name)


@pytest.mark.parametrize("name", TREE)
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickling(name: str, protocol: int) -> None:
    """All survive pickling and copying with type, text and attributes; a task may raise one."""
    arguments, attributes = ARGUMENTS.get(name, (("some text",), {}))
    error = getattr(exceptions, name)(*arguments)
    for twin in (pickle.loads(pickle.dumps(error, protocol)), copy.copy(error)):
        assert type(twin) is type(error)
        assert (str(twin), twin.args) == (str(error), error.args)
        assert {key: getattr(twin, key) for key in attributes} == attributes


@pytest.mark.parametrize(
    "exitcode, name, words",
    [
        (None, None, "ended (with what exit code is unknown: something else reaped it)"),
        (0, None, "exited with code 0"),
        (3, None, "exited with code 3"),
        (-9, "SIGKILL", "was ended by SIGKILL"),
        (-11, "SIGSEGV", "was ended by SIGSEGV"),
        (-200, "signal 200", "was ended by signal 200"),
    ],
)
def test_exit_codes_in_words(exitcode: Any, name: Any, words: str) -> None:
    """Messages name the signal, or say that nobody knows."""
    assert exceptions.signal_name(exitcode) == name
    assert exceptions.describe_exit(exitcode) == words
    lost = exceptions.WorkerLostError(7, exitcode, 1.25)
    assert str(lost) == f"worker 7 {words}, 1.25 s into its task"
    assert lost.signal_name == name
    for kind in (exceptions.BrokenPoolError, exceptions.WorkerStartError):
        assert f"7{',' if kind is exceptions.BrokenPoolError else ''} {words}" in str(
            kind(7, exitcode)
        )


def test_messages_say_what_to_try() -> None:
    """A worker that never spoke: where to look, and the likely causes."""
    text = str(exceptions.WorkerStartError(7, 1))
    for part in ("before its first message", "stderr", "if __name__ == '__main__':", "stdin"):
        assert part in text
    assert str(exceptions.RemoteTaskError()).endswith("the cause says why")
    assert "raised E(1), which" in str(exceptions.RemoteTaskError("m.E", "E(1)", "tb"))
    assert str(exceptions.BrokenPoolError(7, 1, "Traceback")).endswith(":\nTraceback")
    assert str(exceptions.WorkerLostError(7, 1, 1, "mod.f", "why")).endswith("into mod.f: why")
    assert str(exceptions.WorkerStartError(7, -9, "why")).endswith("as those before it: why")
    assert str(exceptions.WorkerStartError(0, None, "why")) == "no worker can be started: why"


def test_amended() -> None:
    """What is learned later is in the attribute, in repr(), and in what pickling takes along."""
    error = exceptions.TaskTimeoutError(1.5, pid=7)
    exceptions.amend(error, task="mod.f")
    assert repr(error) == "TaskTimeoutError(1.5, 'mod.f', 7)"
    lost = exceptions.WorkerLostError(7, 1, 1.5)
    exceptions.amend(lost, dump="Stack", stderr="text")
    assert lost.args == (7, 1, 1.5, "", "", "Stack", "text")
    assert pickle.loads(pickle.dumps(lost)).dump == "Stack"


def test_unknown_name() -> None:
    """The module's lazy attribute does not hide misspelt ones."""
    with pytest.raises(AttributeError, match=r"gopool\.exceptions"):
        _ = exceptions.TaskCanceledError


def test_every_code_has_an_exception() -> None:
    """No code of the extension is without an exception of its own, and none is left over."""
    native = _core.load()
    codes = {native.Code(i) for i in range(native.Codes())}
    assert codes == set(_core._EXCEPTIONS)
    assert all(code < 0 for code in codes)
    for code in codes:
        error = _core.exception_for(code)
        kind, text = _core._EXCEPTIONS[code]
        assert type(error) is kind
        assert text in str(error)
        # A bug is reported with its number; the user's own mistakes are not numbered.
        assert (f"[code {code}]" in str(error)) == isinstance(error, exceptions.CoreError)
