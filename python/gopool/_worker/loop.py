# SPDX-License-Identifier: MIT
"""What a worker process does from its first message to its last.

It reads a task only when it is about to begin it: what it has not read, the parent may take back.

Ctrl-C reaches every process of the terminal. A worker between tasks ignores it, within a task it
is that task's outcome. Python's own handler is replaced for this by one that asks where the
worker is; programs that a task starts inherit the system's default either way. A handler that
the user set, in the parent before a fork or in the initializer, is left alone.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # typeshed has signal only
import errno
import os
from collections.abc import Callable
from itertools import starmap
from multiprocessing import util

from gopool._worker import crash, lifeline, message, ondemand
from gopool._worker.call import (
    CALL,
    MAP,
    Definition,
    pack_error,
    pack_value,
    receive,
    unpack,
)
from gopool._worker.channel import Channel, ParentGone, RegionError
from gopool._worker.lane import open_lane
from gopool._worker.passing import PassedFD
from gopool._worker.pickling import Dumper, spare_dumper

TYPE_CHECKING = False  # typing is not imported at run time: it costs milliseconds
if TYPE_CHECKING:
    from typing import Any

# The worker that this process is; None in every other process, forked children included.
_current: Worker | None = None


def main(
    endpoint: PassedFD,
    parent: PassedFD,
    memory: PassedFD | None,
    bell: PassedFD,
    stderr: PassedFD | None,
    sigint_held: bool,
    initializer: Callable[..., object] | None,
    initargs: tuple[Any, ...],
    maxtasks: int | None,
    wrap_exception: bool,
    worker_exit: Callable[[], object] | None,
    may_map: bool = True,
) -> None:
    """Run a pool's worker until it is told to stop or has done maxtasks tasks.

    Args:
        endpoint: this worker's end of the socket pair.
        parent: the read end of the parent's lifeline.
        memory: what is shared with the parent, the lane and the crash dump; None: nothing.
        bell: the eventfd that wakes the collector.
        stderr: what becomes descriptor 2; None: that stays as it is.
        sigint_held: whether the parent has blocked SIGINT for the time until here.
        initializer, initargs, maxtasks: as in multiprocessing.Pool.
        wrap_exception: whether the text of a task's traceback travels with its exception.
        worker_exit: called last, where the worker ends in order.
        may_map: whether memory kept for later results may stay mapped.
    """
    global _current
    if not may_map:
        from gopool._worker import warm

        warm.may_map = False
    lifeline.arm(parent.fd)
    if stderr is not None:
        os.dup2(stderr.fd, 2)
        os.close(stderr.fd)
    ondemand.free_import_locks()
    ondemand.offer_pool_module()
    shared = None if memory is None else open_lane(memory.fd, bell.fd)
    worker = _current = Worker(Channel(endpoint.fd, shared, bell.fd), maxtasks, wrap_exception)
    try:
        if initializer is not None and sigint_held:
            _unblock_sigint()  # what it starts inherits the mask
        worker.initialize(initializer, initargs, -1 if memory is None else memory.fd)
        if sigint_held:
            _unblock_sigint()
        worker.serve()
        if worker_exit is not None:
            worker.say_goodbye(worker_exit)
    except (ParentGone, BrokenPipeError, ConnectionResetError):
        util.debug("gopool worker: the parent is gone")
    finally:
        _current = None
        worker.retire()


class Worker:
    """One worker's state; everything runs on the process's main thread."""

    def __init__(self, channel: Channel, maxtasks: int | None, wrap_exception: bool) -> None:
        self._channel = channel
        self._publish = _nowhere if channel.lane is None else channel.lane.publish
        self._maxtasks = maxtasks
        self._wrap_exception = wrap_exception
        self._dumper = spare_dumper()
        self._definitions: dict[int, Definition] = {}
        self._in_user_code = False
        self._is_worker = True  # False in a child that a task forked

    def initialize(
        self, initializer: Callable[..., object] | None, initargs: tuple[Any, ...], dump: int
    ) -> None:
        """Greet, run the initializer, and say that tasks may come.

        An initializer's exception is told to the parent and raised on, as in the standard
        library, where it ends the process with a traceback.
        """
        if initializer is not None:
            self._greet()
            if dump >= 0:
                crash.arm(dump)
            try:
                initializer(*initargs)
            except BaseException:
                self._tell_failure()
                raise
        # The C functions: signal's own look for enum members, at a cost that a fork multiplies.
        if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
            _signal.signal(_signal.SIGINT, self._on_sigint)
        if initializer is None:
            self._greet()  # not before: the parent wakes up once for both messages
        self._channel.send(message.pack_ready())
        if initializer is None and dump >= 0:
            crash.arm(dump)  # while the first task is on its way; an initializer may have undone it

    def _greet(self) -> None:
        flags = 0 if self._channel.lane is None else message.FLAG_LANE
        self._channel.send(message.pack_hello(os.getpid(), flags))

    def _tell_failure(self) -> None:
        import traceback

        self._channel.send(message.pack_failed("initializer", traceback.format_exc()))

    def serve(self) -> None:
        """Take tasks until Stop."""
        completed, receive, run = 0, self._channel.receive, self._run
        while completed != self._maxtasks:
            task, fd = receive()
            if task is None:
                break
            run(task, fd)
            completed += 1
        util.debug("worker exiting after %d tasks", completed)

    def say_goodbye(self, worker_exit: Callable[[], object]) -> None:
        """Call the exit hook. Ctrl-C is ignored meanwhile, as it is between two tasks."""
        try:
            worker_exit()
        except BaseException:
            if self._is_worker:
                import traceback

                traceback.print_exc()
        if not self._is_worker:
            raise SystemExit(0)

    def _run(self, task: Any, fd: int) -> None:
        number, mode, function, payload, definition = task
        call_function: Any
        arguments: Any
        value: Any
        if definition is not None:
            self._definitions[function] = Definition(definition)
        try:
            try:
                self._in_user_code = True
                if type(payload) is not bytes:
                    if fd < 0:
                        raise OSError(errno.EMFILE, "no descriptor is left for a large argument")
                    payload = receive(fd, payload)
                call_function, arguments = unpack(payload, self._definitions.get(function))
                payload = None
                if mode == CALL:
                    args, kwds = arguments
                    value = call_function(*args, **kwds)
                    args = kwds = None
                elif mode == MAP:
                    value = list(map(call_function, arguments))
                else:
                    value = list(starmap(call_function, arguments))
                call_function = arguments = None
                if not self._is_worker:
                    raise SystemExit(0)
                status, chunks = pack_value(self._dumper, value)
            finally:
                self._in_user_code = False
        except BaseException as error:
            self._in_user_code = False
            if not self._is_worker:
                raise  # the process's own bootstrap ends it: flush, finalizers, exit code
            self._dumper.clear()
            self._dumper = Dumper()  # the other one may hold half a pickle
            status, chunks = pack_error(error, self._wrap_exception)
            error.__traceback__ = None
        call_function = arguments = args = kwds = value = task = payload = None
        try:
            if len(chunks) != 1 or not self._publish(number, status, chunks[0]):
                self._channel.send_done(number, status, chunks)
        except RegionError as problem:
            status, chunks = pack_error(problem.__cause__ or problem, self._wrap_exception)
            self._channel.send_done(number, status, chunks)
        self._dumper.clear()

    def _on_sigint(self, number: int, frame: Any) -> None:
        if self._in_user_code or not self._is_worker:
            _signal.default_int_handler(number, frame)

    def retire(self) -> None:
        """Let go of the objects round the descriptors, which stay open until the process ends."""
        self._channel.unwrap()

    def disown(self) -> None:
        """In a child that a task forked: be no worker, use none of its descriptors."""
        self._is_worker = False
        self._channel.close()
        crash.disown()


def _nowhere(task: int, status: int, payload: Any) -> bool:
    """Lane.publish where there is no lane."""
    return False


def _unblock_sigint() -> None:
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (_signal.SIGINT,))


def _after_fork_in_child() -> None:
    global _current
    if _current is not None:
        _current.disown()
        _current = None


os.register_at_fork(after_in_child=_after_fork_in_child)
