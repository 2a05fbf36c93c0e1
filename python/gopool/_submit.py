# SPDX-License-Identifier: MIT
"""From Python objects to a task in Go (stations 3 to 5 of the data flow).

A payload is pickled by a Dumper, written into a staging area that Go maps as well, and handed
over in one call with ints. Dumper and staging area are one person's for the time of a call: each
call takes a pair from a list of free ones, or makes one. Taking from a list is atomic, so that
threads, signal handlers, `__del__` and a `__reduce__` that submits never share a pair, and no
lock is held while the user's code runs.
"""

from __future__ import annotations

import contextlib
import copyreg
import errno
import mmap
import os
import pickle
import resource
import sys
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import reduction
from types import BuiltinFunctionType, FunctionType, ModuleType

from gopool import _core, _fork
from gopool._reserve import Places
from gopool._worker import filesize
from gopool._worker.call import NO_ARGUMENTS, NOTHING
from gopool._worker.channel import MAX_INLINE
from gopool._worker.pickling import Dumper, dumps

TYPE_CHECKING = False  # typing is not imported at run time: it costs milliseconds
if TYPE_CHECKING:
    from typing import Any

    from gopool._sharing import Sharing

    # A function's number, and where it must still be found: module name, module, its dict, name.
    Known = tuple[int, str, Any, Any, str]

STDLIB_PICKLER = reduction.ForkingPickler  # unless the user put another in its place

_STAGING_SIZE = 65_536  # bytes; holds MAX_INLINE
_LEAST_FREE = 2  # with a new pool
_MAX_FREE = 16  # pairs kept for the next calls; more callers at a time make their own

_NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE)

MAX_REGIONS = 64  # each keeps a descriptor open; fewer where RLIMIT_NOFILE is low

# The types that pickle by reference, unless a reducer is registered for them.
_BY_REFERENCE = frozenset((FunctionType, BuiltinFunctionType, type))


class Desk:
    """A Dumper and a staging area: what one submission needs for itself."""

    __slots__ = (
        "_file",
        "_generation",
        "_mapped",
        "_native",
        "_opened",
        "dumper",
        "handle",
        "memory",
    )

    def __init__(self, native: Any) -> None:
        filesize.check(_STAGING_SIZE)
        self._native, self._generation = native, _fork.generation
        self._file: list[int] = []
        self._mapped: list[mmap.mmap] = []
        self._opened: list[int] = []
        with _fork.unforked():
            fd = _fork.hold(self._file, os.memfd_create, "gopool-staging", os.MFD_CLOEXEC)
            os.ftruncate(fd, _STAGING_SIZE)
            _fork.take(self._mapped, mmap.mmap, fd, _STAGING_SIZE)
            self.memory = _fork.own_mapping(self._mapped[0])
        _fork.take(self._opened, native.StagingOpen, fd, _STAGING_SIZE)
        self.handle = _core.checked(self._opened[0])
        _fork.close_all(self._file)
        self.dumper = Dumper()

    def __del__(self, _is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        """Too many are free; or a signal's handler has come between taking one and using it."""
        if _is_finalizing() or getattr(self, "_generation", -1) != _fork.generation:
            return
        for handle in self._opened:
            self._native.StagingClose(handle)
        for memory in self._mapped:
            _fork.unmap(memory)
        _fork.close_all(self._file)


def take_desk(native: Any) -> Desk:
    """A free desk of this loaded copy of Go, or a new one."""
    try:
        desk: Desk = native.desks.pop()
    except IndexError:
        return Desk(native)
    return desk


def have_desks(native: Any) -> None:
    """Have one free for whoever submits, and one for the thread that sends what had to wait: made
    with a pool, since a program may open no more descriptors later.
    """
    with contextlib.suppress(OSError):
        while len(native.desks) < _LEAST_FREE:
            native.desks.append(Desk(native))


def return_desk(native: Any, desk: Desk) -> None:
    """Give a desk back after use."""
    if len(native.desks) < _MAX_FREE:
        native.desks.append(desk)


class Functions:
    """Which functions are sent once per worker and named by a number afterwards.

    Only what pickles by reference: plain functions, builtins and classes that their module still
    has under their name, with no reducer registered for their type. All else, and all beyond
    _LIMIT, travels inside each payload. Holds strong references, so that an id never means
    another function.
    """

    _LIMIT = 4096
    _MAX_DEFINITION = 4096  # bytes; beside MAX_INLINE it fits into a frame

    def __init__(self, native: Any, pool: int) -> None:
        self._native = native
        self._pool = pool
        self.known: dict[Any, Known] = {}

    def add(self, function: Any) -> int:
        """The number of a function that is not `known`; 0: put it into the payload."""
        kind = type(function)
        if kind not in _BY_REFERENCE:
            return 0
        module_name, name = getattr(function, "__module__", None), function.__qualname__
        bound = getattr(function, "__self__", None)
        if (
            not isinstance(module_name, str)
            or not (bound is None or isinstance(bound, ModuleType))
            or len(self.known) >= self._LIMIT
        ):
            return 0
        module = sys.modules.get(module_name)
        namespace = getattr(module, "__dict__", {})
        if namespace.get(name) is not function or _has_reducer(kind):
            return 0
        definition = _by_reference(function)
        if len(definition) > self._MAX_DEFINITION:
            return 0
        number = self._send(definition)
        self.known[function] = number, module_name, module, namespace, name
        return number

    def _send(self, definition: bytes) -> int:
        desk = take_desk(self._native)
        desk.memory[: len(definition)] = definition
        number = self._native.FunctionAdd(self._pool, desk.handle, len(definition))
        return_desk(self._native, desk)
        return _core.checked(number)


def _by_reference(function: Any) -> bytes:
    """Pickle what pickles by reference. ForkingPickler gives the same bytes, but making one touches
    seventy pages, right after the forks of a pool whose first task this is.
    """
    ours = reduction.ForkingPickler is STDLIB_PICKLER
    return pickle.dumps(function) if ours else dumps(function)


def _has_reducer(kind: type) -> bool:
    pickler: Any = reduction.ForkingPickler
    return kind in copyreg.dispatch_table or kind in pickler._extra_reducers


def _lacks_descriptor(error: Exception) -> bool:
    # An import finds nothing where it may open nothing.
    return isinstance(error, ImportError) or getattr(error, "errno", 0) in _NO_DESCRIPTOR


class NoDescriptor(Exception):
    """A large task finds no descriptor for its region; the cause is the system's error, or None
    where another task has the last one.
    """


def affordable_regions(workers: int) -> int:
    """How many regions of tasks, and as many of results, RLIMIT_NOFILE has room for just now."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return MAX_REGIONS
    # Six descriptors for each worker, seventeen for the process, and some for the program. A
    # result's region is open twice while it is read.
    spare = limit - 6 * workers - 35
    return max(1, min(MAX_REGIONS, spare // 4))


class Submitter:
    """Hands the tasks of one pool to Go."""

    def __init__(
        self,
        native: Any,
        pool: int,
        functions: Functions,
        workers: int,
        places: Places,
    ) -> None:
        self.native = native
        self.pool = pool
        self._places = places
        self._known = functions.known
        self._add = functions.add
        self._desks: list[Desk] = native.desks
        self._submit: Callable[..., int] = native.Submit
        # Descriptors of unsettled tasks' regions: the outcome says when to close one.
        self.regions: set[int] = set()
        self.workers = workers
        self.max_regions = affordable_regions(workers)  # the program may lower its limit later
        # By job, of calls whose input was listed first.
        self._sharings: dict[int, Sharing | None] = {}  # None: it has sent nothing large yet

    def sharing(self, job: int, tasks: Iterable[Any]) -> Iterator[Any]:
        """The tasks of a job, submitted as they are drawn: each of their buffers is sent once."""
        self._sharings[job] = None
        try:
            yield from tasks
        finally:
            sharing = self._sharings.pop(job)
            if sharing is not None:
                sharing.close()

    def number_of(self, function: Any) -> int:
        """The number that stands for a function now; 0: it travels in the payload.

        submit() has the same written out, without a call for each task.
        """
        kind = type(function)
        known = self._known.get(function) if kind in _BY_REFERENCE else None
        if known is None:
            return self._add(function)
        number, module_name, module, namespace, name = known
        there = sys.modules.get(module_name) is module and namespace.get(name) is function
        return number if there and not _has_reducer(kind) else 0

    def submit(
        self, job: int, index: int, mode: int, function: Any, arguments: Any, options: int = 0
    ) -> int:
        """Pickle a task and hand it over; options is a number of Go's, 0 for none.

        Returns:
            bytes of payload that are unsettled now.

        Raises:
            whatever pickling raises; ValueError or PoolTerminatedError where the pool takes
            nothing any more; for a large payload NoDescriptor, and OSError where it finds no
            memory.
        """
        kind = type(function)
        pickler: Any = reduction.ForkingPickler
        known = self._known.get(function) if kind in _BY_REFERENCE else None
        if known is None:
            number = self._add(function)
        elif (
            sys.modules.get(known[1]) is known[2]
            and known[3].get(known[4]) is function
            and kind not in copyreg.dispatch_table  # _has_reducer(), without a call for each task
            and kind not in pickler._extra_reducers
        ):
            number = known[0]
        else:
            number = 0  # pickling says what is wrong, or asks the reducer
        shares = bool(self._sharings) and job in self._sharings
        desks = self._desks
        try:
            desk = desks.pop()
        except IndexError:
            desk = Desk(self.native)
        try:
            if arguments is NO_ARGUMENTS and number and pickler is STDLIB_PICKLER:
                desk.memory[:len(NOTHING)] = NOTHING
                load = self._submit(
                    self.pool, desk.handle, len(NOTHING), job, index, mode, number, options
                )
            else:
                desk.dumper.plain = shares
                chunks = desk.dumper.dump(arguments if number else (function, arguments))
                if shares and not desk.dumper.plain:
                    self.stop_sharing(job)  # what was sent may have been changed since
                    shares = False
                payload = chunks[0]
                size = len(payload)
                if len(chunks) == 1 and size <= MAX_INLINE:
                    desk.memory[:size] = payload
                    load = self._submit(
                        self.pool, desk.handle, size, job, index, mode, number, options
                    )
                else:
                    load = self.submit_region(chunks, shares, job, index, mode, number, options)
                desk.dumper.clear()
        except BaseException:
            desk.dumper.clear()
            desk.dumper = Dumper()  # the other one may hold half a pickle
            return_desk(self.native, desk)  # not where this was interrupted: it holds that still
            raise
        if len(desks) < _MAX_FREE:
            desks.append(desk)
        if load < 0:
            raise _core.exception_for(load)
        return load

    def submit_region(
        self,
        chunks: list[Any],
        shares: bool,
        job: int,
        index: int,
        mode: int,
        fn: int,
        options: int,
    ) -> int:
        """Hand over a large task; the result is Submit's. Raises NoDescriptor, or OSError.

        Args:
            shares: its buffers may be sent once, if its job's are at all.
        """
        fd, size = self._write(chunks, job if shares and job in self._sharings else 0)
        # From here on whoever takes it out of the set closes it: this method, where Go refuses
        # it, the collector with the outcome, or terminate().
        self.regions.add(fd)
        self.max_regions = affordable_regions(self.workers)
        load = int(self.native.SubmitRegion(self.pool, fd, size, job, index, mode, fn, options))
        if load < 0:
            self.close_region(fd)
        return load

    def _write(self, chunks: list[Any], job: int) -> tuple[int, int]:
        """Write a region; job is the one whose buffers are sent once, or 0."""
        places = self._places
        with places.writing:
            places.look_again()
            if not places.tight:
                try:
                    return self._write_freely(chunks, job)
                except (OSError, ImportError) as error:
                    if not _lacks_descriptor(error):
                        raise
                    places.tight = True
        return self._write_in_reserve(chunks)

    def _write_freely(self, chunks: list[Any], job: int) -> tuple[int, int]:
        with _fork.unforked():
            from gopool import _regions, _sharing
        if not job:
            return _regions.regions.write(chunks)
        sharing = self._sharings[job]
        if sharing is None:
            sharing = self._sharings[job] = _sharing.Sharing()
        return sharing.write(chunks)

    def _write_in_reserve(self, chunks: list[Any]) -> tuple[int, int]:
        """The same where there is no descriptor but the one that is kept for it: while another task
        has that, this one has to wait.
        """
        if self.regions:
            raise NoDescriptor
        try:
            self.native.Tighten(self.pool, 1)
            self._places.of_task.give_up()
            with _fork.unforked():
                from gopool import _regions
            _regions.warm.drop()
            return _regions.regions.write_once(chunks)
        except (OSError, ImportError) as error:
            self._places.of_task.renew()
            if _lacks_descriptor(error):
                raise NoDescriptor from error
            raise
        finally:
            self.native.Tighten(self.pool, 0)

    def stop_sharing(self, job: int) -> None:
        """Send again what was sent: code of the user's has run, which may have changed it."""
        sharing = self._sharings.get(job)
        if sharing is not None:
            sharing.close()

    def close_region(self, fd: int) -> None:
        """Close the region of a settled task, unless somebody did."""
        try:
            self.regions.remove(fd)
        except KeyError:
            return
        if not self._places.of_task.take_over(fd):
            _fork.close(fd)

    def close_regions(self) -> None:
        """Close the regions of the tasks that a terminated pool dropped."""
        for fd in list(self.regions):
            self.close_region(fd)
