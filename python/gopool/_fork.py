# SPDX-License-Identifier: MIT
"""What a fork means for gopool: one registry of what a child must not inherit, and a generation.

Guaranteed in a forked child, before any code of the user runs there:
    - every descriptor and mapping of gopool's is closed, except the descriptors that the fork was
      made to pass on;
    - `generation` is another: whoever keeps something that belongs to one process (a loaded Go,
      a pool, a pipe) keeps the generation beside it and looks before use.

That look is why next to nothing is done in the child: each page that is touched there is copied,
which costs 2 to 3 us, and few children ever use gopool themselves.

Runs in every process that has gopool imported. The registry needs no lock: sets change in single
steps under the interpreter lock, and a descriptor leaves the registry before it is closed, so
that a number which means something else by now is never closed.
"""

from __future__ import annotations

import os
import sys
from _thread import RLock, _count, get_ident
from collections.abc import Callable
from itertools import repeat, starmap
from operator import methodcaller

TYPE_CHECKING = False  # typing is not imported at run time: it costs milliseconds
if TYPE_CHECKING:
    from mmap import mmap
    from typing import Any

generation = 0  # how many forks of processes with gopool lie between the first one and this

_TYPE = 0o170000  # stat.S_IFMT(), without its module

_owned: set[int] = set()
_mapped: set[mmap] = set()
_left: list[mmap] = []  # what disown_closed() has left as it is
_hooks: list[Callable[[], None]] = []  # what in_child() was called with
_concerned = False  # whether there was ever anything in these three
# By thread: the descriptors that stay open in a child that it forks. A plain dict, so that taking
# them out again is one step (_threads.py says why).
passing: dict[int, tuple[int, ...]] = {}
# By thread: what a child that it forks calls before the hooks that were registered after this one.
first_in_child: dict[int, Callable[[], None]] = {}
_whole = RLock()  # held round every fork, and by whoever must not be forked meanwhile
_guarding = False  # whether forks take it


def own(fd: int) -> int:
    """Register a descriptor to be closed in forked children; returns it."""
    global _concerned
    _concerned = True
    _owned.add(fd)
    return fd


def hold(owner: list[int], make: Callable[..., int], *arguments: object) -> int:
    """Make a descriptor by a C function, note it in its owner's list, and register it.

    The first two are one step: a signal's handler that raises loses no descriptor of a list that
    somebody will close. The caller is inside unforked().
    """
    take(owner, make, *arguments)
    return own(owner[-1])


def take(into: list[Any], function: Callable[..., object], *arguments: object) -> None:
    """Append function(*arguments) to a list. Where the function is C no handler comes between."""
    into.extend(starmap(function, (arguments,)))


def close_all(owner: list[int]) -> None:
    """Close all descriptors of an owner's list, and empty it; where this is interrupted it may be
    called again.
    """
    _owned.difference_update(owner)
    while owner:
        try:
            # Each is taken out and closed in one step: none is closed twice.
            _ = [*map(os.close, map(owner.pop, [-1] * len(owner)))]
        except (OSError, IndexError):
            pass  # closed by a hostile user before us; by another thread or a handler meanwhile


def close(*fds: int) -> None:
    """Close registered descriptors; numbers below 0 are none."""
    close_all([fd for fd in fds if fd >= 0])


def own_mapping(memory: mmap) -> mmap:
    """Register shared memory to be unmapped in forked children; returns it.

    Its mmap object keeps a duplicate of the descriptor open that nobody else can close.
    """
    global _concerned
    _concerned = True
    _mapped.add(memory)
    return memory


def unmap(memory: mmap) -> None:
    """Unmap registered memory."""
    _mapped.discard(memory)
    memory.close()


def disown_closed() -> None:
    """Forget the descriptors that the program has closed, and may have others of the same number.

    Of files and sockets nobody can tell whose they are: they stay open in forked children. So do
    mappings: a mmap object closes a number of its own with itself.
    """
    _owned.difference_update([fd for fd in list(_owned) if not is_anonymous(fd)])
    _left.extend(_mapped)
    _mapped.clear()


def file_type(fd: int) -> int | None:
    """The type bits of a descriptor's st_mode; None: there is no such descriptor."""
    try:
        return os.fstat(fd).st_mode & _TYPE
    except OSError:
        return None


def is_anonymous(fd: int) -> bool:
    """Whether a descriptor has no file's type, as an eventfd and an epoll: else the program has
    closed it, and may have opened a file of its own under its number.
    """
    return file_type(fd) == 0


def is_pidfd_of(fd: int, pid: int) -> bool:
    """Whether a descriptor is the pidfd of a process that has not been reaped.

    Source: proc_pid_fdinfo(5); the kernel puts -1 there once the process is reaped.
    """
    try:
        with open(f"/proc/self/fdinfo/{fd}") as info:
            return f"Pid:\t{pid}\n" in info.readlines()
    except OSError:  # there is no such descriptor, or no number is left to look
        return False


def owned() -> frozenset[int]:
    """The registered descriptors (for tests)."""
    return frozenset(_owned)


def unforked() -> RLock:
    """Let no other thread fork inside the block that is entered with the result, nor enter another:
    for making descriptors and registering them, and for loading Go.

    The block forks nothing and takes no lock that anybody takes round forks. The lock itself is
    given: a signal's handler that raises can't come between its taking and the block.
    """
    return _whole


def guard_forks() -> None:
    """Have the lock of unforked() held round every fork: called by what uses it, at its import.

    Not here: a program that only starts processes forks quicker without. The hooks are C
    functions: no signal's handler comes before them, and they touch few pages.
    """
    global _guarding
    if not _guarding:
        _hold_in_forks(_whole)
        # Who holds logging's lock may fork, so it is taken before: what is registered last is
        # called first. If logging is imported later it does so itself.
        lock = getattr(sys.modules.get("logging"), "_lock", None)
        if lock is not None:
            _hold_in_forks(lock)
        _guarding = True  # where it is interrupted before, twice: that does no harm


def in_child(hook: Callable[[], None]) -> None:
    """Have hook called in every forked child, in the order of registration.

    For what can't wait until the child uses gopool; all else looks at the generation.
    """
    global _concerned
    _concerned = True
    if hook not in _hooks:
        _hooks.append(hook)


def not_in_child(hook: Callable[[], None]) -> None:
    """Undo in_child(), where that was called."""
    if hook in _hooks:
        _hooks.remove(hook)


def _after_fork_in_child() -> None:
    global generation
    generation += 1
    _whole._at_fork_reinit()  # type: ignore[attr-defined]  # typeshed does not know it
    if _concerned:
        _drop()
    if first_in_child:
        first_in_child.pop(get_ident(), int)()
        first_in_child.clear()


def _drop() -> None:
    """Close and unmap what is registered, and call the hooks."""
    kept = passing.get(get_ident(), ()) if passing else ()
    for fd in _owned:
        if fd not in kept:
            try:
                os.close(fd)
            except OSError:
                pass  # closed by a hostile user before us
    for memory in _mapped:
        try:
            memory.close()
        except BufferError:
            pass  # another thread was reading in it at the fork
    _owned.clear()
    _mapped.clear()
    passing.clear()
    for hook in _hooks:
        hook()


def _hold_in_forks(lock: RLock) -> None:
    # A fork of another thread that has begun already has not taken the lock.
    release = _owned_release(lock) if _count() else lock.release
    os.register_at_fork(before=lock.acquire, after_in_parent=release)


def _owned_release(lock: RLock) -> Callable[[], object]:
    """What calls lock.release() where this thread has the lock."""
    return map(
        methodcaller("__call__"),
        map(
            {True: lock.release, False: int}.__getitem__,
            map(methodcaller("_is_owned"), repeat(lock)),
        ),
    ).__next__


os.register_at_fork(after_in_child=_after_fork_in_child)
