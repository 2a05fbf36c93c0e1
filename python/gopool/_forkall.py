# SPDX-License-Identifier: MIT
"""Forking the workers of a pool one right after the other.

After a fork each page that this process writes is copied, and again after the next. start() of one
process after the other would do half of its work between two forks. Here the first half of all is
done before the first fork, the second half of all after the last.
"""

from __future__ import annotations

from _thread import get_ident
from collections.abc import Sequence
from multiprocessing import context as stdlib
from multiprocessing import popen_fork
from multiprocessing import process as stdlib_process
from types import ModuleType

from gopool import _fork, context, popen

TYPE_CHECKING = False  # typing is not imported at run time: it costs milliseconds
if TYPE_CHECKING:
    from typing import Any

    from gopool._crew import Member


class _Later(popen.ForkPopen):
    """A Popen object that is made before its process is forked."""

    def _heed(self, native: Any) -> None:
        pass

    def _launch(self, process_obj: Any) -> None:
        pass


def fits(process: Any) -> bool:
    """Whether start() is the standard library's, by gopool's ForkPopen, and will be let."""
    kind = type(process)
    start, opener = getattr(kind, "start", None), getattr(kind, "_Popen", None)
    if opener is context.ForkProcess._Popen:
        ours = _is_of(context, opener)
    else:
        ours = opener is stdlib.ForkProcess._Popen and popen_fork.Popen is popen.ForkPopen
        ours = ours and _is_of(stdlib, opener)
    return (
        ours
        and start is stdlib_process.BaseProcess.start
        and _is_of(stdlib_process, start)
        and not {"start", "_Popen"} & process.__dict__.keys()
        and not stdlib_process.current_process()._config.get("daemon")  # type: ignore[attr-defined]
    )


def _is_of(module: ModuleType, function: Any) -> bool:
    """Whether a module's function is its own: nobody has put another in its place."""
    code = getattr(function, "__code__", None)
    return code is not None and code.co_filename == module.__file__


def start_all(members: Sequence[Member]) -> None:
    """Do what multiprocessing.process.BaseProcess.start() does for the process of each.

    Raises:
        OSError: one could not be forked. Those before it are started, whatever is raised.
    """
    thread = get_ident()
    before = _fork.passing.get(thread)  # a handler may start a pool while another is started
    stdlib_process._cleanup()  # type: ignore[attr-defined]
    popens = _prepare(members)
    native = popen.loaded_go()

    def fork() -> None:
        for member, each in zip(members, popens, strict=True):
            _fork.passing[thread] = member.passed()
            each.fork(member.process)

    try:
        if native is None:
            fork()
        else:
            popen.fork_beside_go(native, fork)
    finally:
        if before is None:
            _fork.passing.pop(thread, None)
        else:
            _fork.passing[thread] = before
        for member, each in zip(members, popens, strict=True):
            if hasattr(each, "pid"):  # else its fork was cut short, and its worker will be ended
                _finish(member.process, each)
                member.note_start()


def _prepare(members: Sequence[Member]) -> list[_Later]:
    here = get_ident(), _fork.generation
    before = popen.unadopted.get(here)
    popens = []
    try:
        for member in members:
            popen.unadopted[here] = member.popens
            popens.append(_Later(member.process))
    finally:
        if before is None:
            popen.unadopted.pop(here, None)
        else:
            popen.unadopted[here] = before
    return popens


def _finish(process: Any, its_popen: _Later) -> None:
    process._popen, process._sentinel = its_popen, its_popen.sentinel
    del process._target, process._args, process._kwargs
    stdlib_process._children.add(process)  # type: ignore[attr-defined]
