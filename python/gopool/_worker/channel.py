# SPDX-License-Identifier: MIT
"""The worker's way to its parent: a socket pair and a lane (twin: bridge/link_linux.go)."""

from __future__ import annotations

import errno
import os

from gopool._worker import frame, message
from gopool._worker._lane import Lane, block, identify, is_still, receive, send

TYPE_CHECKING = False  # typing is not imported at run time: it costs milliseconds
if TYPE_CHECKING:
    import _socket
    from typing import Any

REGION = "gopool-region"  # name of each memory region, as /proc shows it

# Larger payloads go into a memory region. Beside this many bytes a function's definition (at most
# 4,096) fits into the frame as well.
MAX_INLINE = 60_000

_TELL = 2  # of Lane.doze: tell Go first


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
        self._fd = fd
        self._endpoint = fd, *identify(fd)
        self._wrapped: _socket.socket | None = None
        block(fd)  # whatever it said where the pair was made

    @property
    def _socket(self) -> _socket.socket:
        """The socket as an object, for what takes more than a message."""
        if self._wrapped is None:
            import _socket

            self._wrapped = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, fileno=self._fd)
            self._wrapped.setblocking(True)  # whatever socket.setdefaulttimeout() says here
        return self._wrapped

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
                    send(self._fd, message.pack_dozing())
                task, fd = self._receive_message()
                lane.rouse()
                if task != ():
                    if task is not None:
                        lane.note(task[0])
                    return task, fd

    def _receive_message(self) -> tuple[Any, int]:
        data, fd, lost = receive(self._fd)
        if not data:
            raise ParentGone
        # A process that may open no more descriptors receives the frame without its own.
        came = fd >= 0 or lost
        return message.decode_task(frame.body(memoryview(data), len(data)), came), fd

    def send(self, data: bytes) -> None:
        """Send a whole frame."""
        send(self._fd, data)

    def send_done(self, task: int, status: int, chunks: list[Any]) -> None:
        """Send the outcome of a task by the socket; large ones in a region.

        Raises:
            RegionError: there is no descriptor or memory for a region; nothing was sent.
            OSError: the socket is not there any more.
        """
        if len(chunks) == 1 and len(chunks[0]) <= MAX_INLINE:
            self._check()
            send(self._fd, message.pack_done(task, status, chunks[0]))
            return
        try:
            import _socket
            import array

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

    def unwrap(self) -> None:
        """Forget the socket's object, which would warn where it is still open at the worker's end:
        that is how the parent sees it end.
        """
        if self._wrapped is not None:
            self._wrapped.detach()
            self._wrapped = None

    def close(self) -> None:
        """Close this end (in a child that is no worker): what the parent shares is not mapped any
        more, so that no task can be claimed.
        """
        if self.lane is not None:
            self.lane.close()
            self.lane = None
            if is_still(*self._bell):
                os.close(self._bell[0])
        self.unwrap()
        if is_still(*self._endpoint):  # else the number is something of the task's
            os.close(self._fd)
