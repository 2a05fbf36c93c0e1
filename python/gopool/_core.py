# SPDX-License-Identifier: MIT
"""The only module that imports the Go extension: when it is loaded, and what its codes mean.

The extension is loaded at the first Pool. A forked child can't use its parent's
Go runtime, whose threads are gone there: if it needs Go itself, it loads a second copy, from
another inode because the dynamic loader knows files by inode.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import resource
import sys
import warnings
from multiprocessing import util
from types import ModuleType, SimpleNamespace

from gopool import _fork, _heap
from gopool._worker import filesize
from gopool.exceptions import CoreError, GopoolError, PayloadTooLargeError, PoolTerminatedError

TYPE_CHECKING = False  # typing is not imported at run time: it costs milliseconds
if TYPE_CHECKING:
    from typing import Any

_fork.guard_forks()

_NAME = "gopool._native._pyapi"

# What Go maps at start (measured: 1.2 GB do, 0.6 GB abort the process) and the threads it makes.
_ADDRESS_SPACE = 1_300_000_000
_THREADS = 16
TOTALS = 6  # the counters of a pool that stats_text() adds up (PoolStat of pyapi/pool.go)
# The largest memory file of a pool's own, in bytes: what large data takes comes on top.
POOL_FILE = 1 << 20
# The file behind each lock of the standard library's pool (sem_open), in bytes.
_LOCK_FILE = 32
# Below this limit counting the user's threads in /proc is worth its time.
_SMALL_NPROC = 4096

_native: Any = None  # what load() returns, once it was called in the process of _generation
_generation = -1
_pollers: list[int] = []  # descriptors without which it can't watch anything
_CLOSED = (
    "this process has closed descriptor {}, by which gopool's Go core watches workers "
    "(os.closerange()?); it can't make a pool any more, but a process that it starts can"
)
# Of a load() that has begun: the generation, and what _inherited(), _descriptors() and
# _heap.handled() said before. One that was interrupted is gone on with: Go is loaded once.
_begun: tuple[int, bool, set[str], set[int]] | None = None


def load() -> Any:
    """The extension's functions; it is loaded at the first call in a process (some ms).

    Raises:
        CoreError: it can't be loaded, or the program has closed its descriptors.
    """
    global _native, _generation, _begun
    if not loaded():
        with _fork.unforked():  # nor is it loaded twice
            if not loaded():
                if _begun is None or _begun[0] != _fork.generation:
                    _begun = _fork.generation, _inherited(), _descriptors(), _heap.handled()
                _, inherited, before, handled = _begun
                # Where an ancestor has loaded it, that copy must not be entered.
                native = _functions(_import_copy() if inherited else _import())
                _heap.note(native, handled)
                _pollers[:] = [checked(native.PollerFD(i)) for i in range(2)]
                _pollers.extend(_runtime_poller(before))
                for fd in _pollers:
                    _fork.own(fd)
                _native, _generation = native, _fork.generation
    closed = _closed_poller()
    if closed is not None:
        raise CoreError(_CLOSED.format(closed))
    return _native


def _closed_poller() -> int | None:
    """A descriptor of Go's own that the program has closed."""
    return next(itertools.filterfalse(_fork.is_anonymous, _pollers), None)


def _inherited() -> bool:
    """Whether an ancestor of this process has loaded the extension."""
    if _begun is not None and _begun[0] == _fork.generation:
        return _begun[1]
    return _native is not None or sys.modules.get(_NAME) is not None


def _descriptors() -> set[str]:
    """The numbers of this process's descriptors; none where /proc does not tell."""
    try:
        return set(os.listdir("/proc/self/fd"))
    except OSError:
        return set()


def _runtime_poller(before: set[str]) -> list[int]:
    """What Go's runtime has opened since: an epoll, and the eventfd that is alone in it.

    Nobody says their numbers. Another thread may open descriptors at the same time, but an epoll
    of that form is the runtime's.
    """
    found: list[int] = []
    for name in _descriptors() - before:
        try:
            if os.readlink(f"/proc/self/fd/{name}") != "anon_inode:[eventpoll]":
                continue
            targets = _watched(name)
            if len(targets) == 1:
                target = os.readlink(f"/proc/self/fd/{targets[0]}")
                if target == "anon_inode:[eventfd]" and targets[0] not in before:
                    found += int(name), int(targets[0])
        except OSError:
            continue  # closed meanwhile: not the runtime's
    return found


def _watched(epoll: str) -> list[str]:
    """The descriptors in an epoll."""
    with open(f"/proc/self/fdinfo/{epoll}") as info:
        lines = info.readlines()
    return [line.split()[1] for line in lines if line.startswith("tfd:")]


def _functions(module: ModuleType) -> SimpleNamespace:
    """The functions of pyapi/ under their own names; gopy puts the package's in front.

    Beside them stands what else belongs to one loaded copy: the free desks of submission
    (_submit.py) and the counters of pools that are gone (_engine.py).
    """
    prefix = "pyapi_"
    return SimpleNamespace(
        desks=[],
        closed_totals=[0] * TOTALS,
        **{
            name.removeprefix(prefix): function
            for name, function in vars(module).items()
            if name.startswith(prefix)
        }
    )


def loaded() -> bool:
    """Whether this process has loaded the extension."""
    return _generation == _fork.generation and _native is not None


def at_hand() -> Any:
    """What load() gives where it is loaded already and can watch a process, else None."""
    return _native if loaded() and _closed_poller() is None else None


def obstacle() -> str | None:
    """Why Go can't be loaded under this process's limits, or None.

    Go aborts the process where it can't get its address space or threads, so it is asked before.
    """
    if loaded():
        return None
    space, _ = resource.getrlimit(resource.RLIMIT_AS)
    if space != resource.RLIM_INFINITY and space - _mapped() < _ADDRESS_SPACE:
        return (
            f"RLIMIT_AS is {space} bytes and Go needs {_ADDRESS_SPACE} beside what is in use "
            "(raise `ulimit -v`)"
        )
    threads, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if threads != resource.RLIM_INFINITY and threads < _SMALL_NPROC:
        used = _threads_of_user()
        if threads - used < _THREADS:
            return f"RLIMIT_NPROC is {threads} and {used} are in use (raise `ulimit -u`)"
    return None


def file_obstacle() -> str | None:
    """Why this process may not have the memory files of a pool, or None. Go itself needs none.

    Raises:
        OSError: EFBIG, where the standard library's pool can't be made either.
    """
    most = filesize.limit()
    if most < _LOCK_FILE:
        filesize.check(_LOCK_FILE)
    need = POOL_FILE
    if most != sys.maxsize and _inherited() and not loaded():
        from gopool import _copies

        need = max(need, _copies.size(_NAME))
    if need <= most:
        return None
    return f"RLIMIT_FSIZE is {most} bytes and a pool needs {need} (raise `ulimit -f`)"


def checked(result: int) -> int:
    """A result of the extension, or the exception that its code stands for."""
    if result >= 0:
        return result
    raise exception_for(result)


def exception_for(code: int) -> Exception:
    """The exception that a negative result of the extension stands for (pyapi/codes.go)."""
    kind, text = _EXCEPTIONS.get(code, (CoreError, "unknown code"))
    return kind(f"{text} [code {code}]" if issubclass(kind, CoreError) else text)


_EXCEPTIONS: dict[int, tuple[type[Exception], str]] = {
    -10: (ValueError, "Pool not running"),
    -11: (PoolTerminatedError, "the pool was terminated"),
    -30: (PayloadTooLargeError, "the message is larger than a frame may be"),
    -40: (CoreError, "Go does not know this handle"),
    -41: (CoreError, "Go was given a number out of its range"),
    -50: (GopoolError, "the operating system refused memory or a descriptor"),
}


def stats_text() -> str:
    """What the Go core did in this process, in a line or two for people."""
    from gopool import _engine

    if not loaded():
        reason = _reason_warned or "no pool needed it"
        return f"gopool: the Go core was not used: {reason}"
    return _engine.stats_text(_native)


_reason_warned = ""  # what the one warning of this process said


def warn_unsupervised(obstacle: str) -> None:
    """Say once per process that a pool is the standard library's, without Go.

    The warning points at the first line outside gopool and multiprocessing.
    """
    global _reason_warned
    if _reason_warned:
        return
    _reason_warned = obstacle
    inside = tuple(os.path.dirname(module.__file__ or "") for module in (_fork, util))
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(inside):
        level, frame = level + 1, frame.f_back
    text = f"gopool runs without its Go core, on the standard library's pool: {obstacle}"
    warnings.warn(text, RuntimeWarning, stacklevel=level)


def _import() -> ModuleType:
    try:
        __import__(_NAME)  # `from` would read an attribute of the package instead
    except ImportError as error:
        raise CoreError(f"the Go extension can't be loaded: {error}") from error
    return sys.modules[_NAME]


def _import_copy() -> ModuleType:
    from gopool import _copies  # needed in children of children only

    return _copies.load(_NAME)


def _mapped() -> int:
    """Bytes of address space that this process uses; 0 where /proc does not tell."""
    try:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[0]) * resource.getpagesize()
    except (OSError, ValueError):
        return 0


def _threads_of_user() -> int:
    """How many threads the user of this process has; 0 where /proc does not tell."""
    with contextlib.suppress(OSError):
        return sum(map(_threads_of, filter(str.isdigit, os.listdir("/proc"))))
    return 0


def _threads_of(pid: str) -> int:
    try:
        if os.stat(f"/proc/{pid}").st_uid != os.getuid():
            return 0
        return len(os.listdir(f"/proc/{pid}/task"))
    except OSError:
        return 0  # ended meanwhile
