# SPDX-License-Identifier: MIT
"""The worker's way to its parent: a socket pair and a lane (twin: bridge/link_linux.go)."""

from __future__ import annotations

import _socket
import array
import errno
import mmap
import os

from gopool._worker import frame, message
from gopool._worker._lane import Lane, identify, is_still

TYPE_CHECKING = False  # typing is not imported at run time: it costs milliseconds
if TYPE_CHECKING:
    from typing import Any

REGION = "gopool-region"  # name of each memory region, as /proc shows it

# Larger payloads go into a memory region. Beside this many bytes a function's definition (at most
# 4,096) fits into the frame as well.
MAX_INLINE = 60_000

_TELL = 2  # of Lane.doze: tell Go first

_ONE_FD = _socket.CMSG_SPACE(array.array("i", [0]).itemsize)


class ParentGone(Exception):
    """The parent closed its end or broke the protocol's framing."""


class RegionError(Exception):
    """A large outcome finds no memory region; the cause is the system's error."""


class Channel:
    """Receives and sends one message at a time; both block."""

    def __init__(self, fd: int, lane: Lane | None, bell_fd: int) -> None:
        """bell_fd is the lane's; closed here where there is none."""
        self.lane = lane
        self._bell = bell_fd, *identify(bell_fd)
        if lane is None:
            os.close(bell_fd)
        # The C class, and memory that is not filled: a forked worker's first steps each copy the
        # pages that they touch.
        self._endpoint = fd, *identify(fd)
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, fileno=fd)
        self._socket.setblocking(True)  # whatever socket.setdefaulttimeout() says
        self._buffer = mmap.mmap(-1, frame.MAX_FRAME)
        self._view = memoryview(self._buffer)
        self._receive = self._socket.recvmsg_into

    def receive(self) -> tuple[Any, int]:
        """Wait for a task, which is begun with that, or for Stop.

        Returns:
            (message as gopool._worker.message.decode_task gives it, descriptor of its region or
            -1).

        Raises:
            ParentGone; ProtocolError; OSError where the socket is not there any more.
        """
        lane = self.lane
        if lane is None:
            self._check()
            return self._receive_message()
        while True:
            task = lane.claim()
            if task is not None:
                return task if isinstance(task, tuple) else message.decode_task(task, False), -1
            asleep = lane.doze()
            if asleep:
                self._check()
                if asleep == _TELL:
                    self._socket.send(message.pack_dozing())
                task, fd = self._receive_message()
                lane.rouse()
                if task != ():
                    if task is not None:
                        lane.note(task[0])
                    return task, fd

    def _receive_message(self) -> tuple[Any, int]:
        size, ancillary, flags, _ = self._receive([self._buffer], _ONE_FD)
        fd = _descriptor(ancillary)
        if size == 0 or flags & _socket.MSG_TRUNC:
            raise ParentGone
        # A process that may open no more descriptors receives the frame without its own.
        came = fd >= 0 or bool(flags & _socket.MSG_CTRUNC)
        return message.decode_task(frame.body(self._view, size), came), fd

    def send(self, data: bytes) -> None:
        """Send a whole frame."""
        self._socket.send(data)

    def send_done(self, task: int, status: int, chunks: list[Any]) -> None:
        """Send the outcome of a task by the socket; large ones in a region.

        Raises:
            RegionError: there is no descriptor or memory for a region; nothing was sent.
            OSError: the socket is not there any more.
        """
        if len(chunks) == 1 and len(chunks[0]) <= MAX_INLINE:
            self._check()
            self._socket.send(message.pack_done(task, status, chunks[0]))
            return
        try:
            from gopool._worker import regions, warm

            fd, size = regions.write(chunks)
        except (OSError, ImportError) as error:
            raise RegionError from error
        try:
            rights = array.array("i", [fd])
            self._check()
            self._socket.sendmsg(
                [message.pack_done(task, status, size)],
                [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)],
            )
        finally:
            warm.close(fd)

    def _check(self) -> None:
        """Look whether the socket is still what it was: a task may have closed all descriptors, and
        opened some of its own under the same numbers. The parent could wait for ever then.
        """
        if not is_still(*self._endpoint):
            raise OSError(errno.EBADF, "a task has closed the socket of its worker, which ends")

    def close(self) -> None:
        """Close this end (in a child that is no worker): what the parent shares is not mapped any
        more, so that no task can be claimed.
        """
        if self.lane is not None:
            self.lane.close()
            self.lane = None
            if is_still(*self._bell):
                os.close(self._bell[0])
        if is_still(*self._endpoint):
            self._socket.close()
        else:
            self._socket.detach()  # the number is something of the task's


def _descriptor(ancillary: list[tuple[int, int, bytes]]) -> int:
    for level, kind, data in ancillary:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            fds = array.array("i")
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
            return fds[0]
    return -1
