# SPDX-License-Identifier: MIT
"""Workers that break the wire protocol at a given place, and are honest otherwise.

A pool made with `scripted_context` runs them in place of its ordinary workers.
"""

from __future__ import annotations

import array
import os
import pickle
import socket
import threading
from collections.abc import Callable, Iterable
from typing import Any

import gopool
from gopool._worker import frame, loop, message
from gopool._worker.channel import Channel

BLOCK = threading.Event().wait  # for ever; the pool ends the process


def send(channel: Channel, data: bytes, *fds: int) -> None:
    """Send any bytes as one message, with any number of descriptors."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    channel._socket.sendmsg([data], rights)


def done(number: int, value: object = None) -> bytes:
    return message.pack_done(number, 0, pickle.dumps(value))


# What a worker does in place of a task's outcome. It gets its channel, the number of the task
# that it holds, and that of the one before.
Offence = Callable[[Channel, int, int], object]

OFFENCES: dict[str, Offence] = {
    "torn frame": lambda c, n, _: send(c, done(n)[:-1]),
    "cut header": lambda c, n, _: send(c, done(n)[:3]),
    "empty message": lambda c, n, _: send(c, b""),
    "length too small": lambda c, n, _: send(c, frame.HEADER.pack(1) + done(n)[4:]),
    "length of 2 GiB": lambda c, n, _: send(c, frame.HEADER.pack(1 << 31) + done(n)[4:]),
    "larger than a frame": lambda c, n, _: send(c, done(n) + bytes(frame.MAX_FRAME)),
    "unknown kind": lambda c, n, _: send(c, frame.frame(b"\x91\x63")),
    "parent's kind": lambda c, n, _: send(c, frame.frame(b"\x91\x02")),
    "garbage": lambda c, n, _: send(c, frame.frame(b"\xc1\xff" * 50)),
    "array of 4 G": lambda c, n, _: send(c, frame.frame(b"\xdd\xff\xff\xff\xff\x12")),
    "garbage, then an outcome": lambda c, n, _: (send(c, frame.frame(b"\xc1")), send(c, done(n))),
    "outcome of the last again": lambda c, _, last: send(c, done(last)),
    "outcome of no task": lambda c, _, __: send(c, done(4_711_000)),
    "Hello again": lambda c, _, __: send(c, message.pack_hello(os.getpid(), 0)),
    "Ready again": lambda c, _, __: send(c, message.pack_ready()),
    "region without descriptor": lambda c, n, _: send(c, message.pack_done(n, 0, 4096)),
    "descriptor without region": lambda c, n, _: send(c, done(n), 0),
    "two descriptors": lambda c, n, _: send(c, message.pack_done(n, 0, 4096), 0, 1),
    "flood of descriptors": lambda c, n, _: send(c, message.pack_done(n, 0, 4096), *[0] * 253),
    "flood of messages": lambda c, n, _: flood(c),
    "outcome of a task that was taken back": lambda c, _, __: answer_what_was_taken_back(c),
    "writing half closed": lambda c, n, _: c._socket.shutdown(socket.SHUT_WR),
    "both halves closed": lambda c, n, _: c._socket.shutdown(socket.SHUT_RDWR),
}


def answer_what_was_taken_back(channel: Channel) -> None:
    """Look at the next task without reading it, and answer it once it has been taken back."""
    peeked = channel._socket.recv(frame.MAX_FRAME, socket.MSG_PEEK)
    body = memoryview(peeked)[frame.HEADER.size :]
    _, ahead, *_ = message.decode(body, False, to_worker=True)
    with open(os.environ["GOPOOL_TEST_PEEKED"], "w"):
        pass
    while True:
        try:
            channel._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            break
        BLOCK(0.002)
    send(channel, done(ahead))


def flood(channel: Channel) -> None:
    """As many messages as the socket takes, each with a descriptor."""
    channel._socket.setblocking(False)
    try:
        while True:
            send(channel, message.pack_ready(), 0)
    except OSError:
        return  # full, or too many descriptors on their way


# How a worker comes up instead of Hello, Ready.
STARTS: dict[str, Callable[[Channel], object]] = {
    "Ready before Hello": lambda c: send(c, message.pack_ready()),
    "Hello twice": lambda c: [send(c, message.pack_hello(os.getpid(), 0)) for _ in range(2)],
    "outcome before Hello": lambda c: send(c, done(1)),
    "garbage before Hello": lambda c: send(c, bytes(100)),
    "Hello of version 9": lambda c: send(c, frame.frame(b"\x94\x10\x09\x01\x00")),
    "nothing, writing half closed": lambda c: c._socket.shutdown(socket.SHUT_WR),
}


def offend(_: str) -> None:
    """The task that a scripted worker answers with an offence, the task's argument."""
    raise AssertionError("this worker is not scripted")


class Worker(loop.Worker):
    """Does ordinary tasks ordinarily."""

    start = ""  # how it comes up: one of STARTS, "never reads", "reading half closed", or ""
    last = 0  # the task that it did last

    def initialize(self, *settings: Any) -> None:
        if self.start in STARTS:
            STARTS[self.start](self._channel)
            BLOCK()
        if self.start == "reading half closed":  # before Ready: a task that it was sent is its own
            self._channel._socket.shutdown(socket.SHUT_RD)
        super().initialize(*settings)
        if self.start in ("never reads", "reading half closed"):
            BLOCK()

    def _run(self, task: Any, fd: int) -> None:
        number, _, function, payload, definition = task
        known = self._definitions.get(function)
        call = pickle.loads(definition) if definition else known and known.load()
        if fd < 0 and call is offend:
            ((name,), _) = pickle.loads(payload)
            OFFENCES[name](self._channel, number, self.last)
            BLOCK()
        super()._run(task, fd)
        self.last = number


def main(start: str, *arguments: Any) -> None:
    """The twin of gopool._worker.loop.main, after one of Worker.start."""
    Worker.start = start
    loop.Worker = Worker  # type: ignore[misc]
    loop.main(*arguments)


def scripted_context(method: str, starts: Iterable[str] = ()) -> Any:
    """A context whose processes are scripted workers.

    Args:
        method: a start method.
        starts: how the first workers come up; ordinarily after these.
    """
    context: Any = gopool.get_context(method)
    kind: Any = type(context)
    coming = iter(starts)

    class Context(kind):  # type: ignore[misc]
        def Process(self, *, target: Any, args: Any, **kwds: Any) -> Any:
            return context.Process(target=main, args=(next(coming, ""), *args), **kwds)

    return Context()
