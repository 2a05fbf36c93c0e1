# SPDX-License-Identifier: MIT
"""Messages between parent and worker, as msgpack (station 9; runs in the worker).

Twin: bridge/message.go, bridge/codec.go, bridge/decode.go. Rules: bridge/PROTOCOL.md, sections 3
to 6. What a worker that gets along with its parent writes and reads is made in C (_message.h).
decode walks a message element by element: it says what is wrong with one that C did not know.
"""

from __future__ import annotations

from collections.abc import Callable

from gopool._worker import _lane
from gopool._worker._lane import encode
from gopool._worker.frame import HEADER, MAX_FRAME, ProtocolError, frame

TYPE_CHECKING = False  # typing is not imported at run time: it costs milliseconds
if TYPE_CHECKING:
    from typing import Any, NoReturn

VERSION = 1
TASK, STOP, LOOK = 1, 2, 3
HELLO, READY, DONE, FAILED, DOZING = 16, 17, 18, 19, 20
FLAG_LANE = 1  # of Hello.flags

MAX_REGION = 2**63 - 1  # bytes; an off_t holds it
_MAX_U32 = 2**32 - 1
_MAX_U64 = 2**64 - 1
_MAX_PID = 2**31 - 1

# Legal bodies of messages without fields. Look comes before each task that finds its worker asleep.
_STOP_BODY = encode(STOP)
_LOOK_BODY = encode(LOOK)

# A region's size where the payload would be, or the payload itself.
Payload = bytes | bytearray | memoryview | int
Task = tuple[int, int, int, bytes | int, bytes | None]


def pack_done(task: int, status: int, payload: Payload) -> bytes:
    """Build a Done frame.

    Args:
        task: number of the task, at least 1.
        status: 0 value, 1 error, 2 error of encoding.
        payload: bytes (a contiguous memoryview will do), or the size in bytes of the region
            whose descriptor is sent along.

    Raises:
        FrameTooLargeError: payload is larger than a frame; not below MAX_INLINE.
    """
    return frame(encode(DONE, task, status, payload))


def pack_hello(pid: int, flags: int = 0) -> bytes:
    """Build a Hello frame, the first message of a worker."""
    return frame(encode(HELLO, VERSION, pid, flags))


def pack_ready() -> bytes:
    """Build a Ready frame: the initializer returned."""
    return frame(encode(READY))


def pack_dozing() -> bytes:
    """Build a Dozing frame: this worker is about to sleep, and Go wanted to know."""
    return frame(encode(DOZING))


def pack_failed(stage: str, text: str) -> bytes:
    """Build a Failed frame; of a text that does not fit the end is kept.

    Lone surrogates, which a traceback may hold and UTF-8 may not, are written as escapes.
    """
    data = text.encode("utf-8", "backslashreplace")
    room = MAX_FRAME - HEADER.size - 16 - len(stage.encode())
    if len(data) > room:
        # What is left of a character cut in two is dropped.
        data = data[-room:].decode("utf-8", "ignore").encode()
    return frame(encode(FAILED, stage, data.decode()))


def decode_task(body: bytes | memoryview, descriptor: bool) -> Task | tuple[()] | None:
    """Decode a message to a worker.

    Args:
        body: a frame's body.
        descriptor: whether exactly one descriptor came with it.

    Returns:
        (task, mode, function, payload, definition), None for Stop, () for Look. payload is bytes,
        or the size of the region; definition is bytes or None. All are copies: body can be reused.

    Raises:
        ProtocolError: the message breaks the protocol.
    """
    if body == _LOOK_BODY and not descriptor:
        return ()
    task = _lane.decode_task(body, descriptor)
    if task is not None:
        return task
    if body == _STOP_BODY and not descriptor:
        return None
    return _decode_slowly(body, descriptor)


def _decode_slowly(body: bytes | memoryview, descriptor: bool) -> Task | tuple[()] | None:
    kind, *fields = decode(body, descriptor, to_worker=True)
    if kind == STOP:
        return None
    if kind == LOOK:
        return ()
    task, mode, function, payload, definition = fields
    return task, mode, function, payload, definition


def decode(body: bytes | memoryview, descriptor: bool, *, to_worker: bool) -> list[Any]:
    """Decode a message of either direction from left to right.

    Returns:
        the elements, kind first.

    Raises:
        ProtocolError: the first thing that is wrong; its offset counts the frame's header.
    """
    walk = _Walk(bytes(body))
    count = walk.array()
    if count == 0:
        walk.fail(4, "wrong number of elements")
    kind = walk.read_kind(_KINDS_TO_WORKER if to_worker else _KINDS_FROM_WORKER)
    readers = _READERS[kind]
    fields: list[Any] = [kind]
    if kind == HELLO and count > 1:
        fields.append(walk.version())
        readers = readers[1:]
    if count != len(fields) + len(readers):
        walk.fail(4, "wrong number of elements")
    fields += [read(walk) for read in readers]
    walk.end(descriptor)
    return fields


class _Walk:
    """Reads a body element by element; offsets are those of the frame."""

    def __init__(self, body: bytes) -> None:
        import msgpack  # see _message.h: what that knows needs it not

        self._body = body
        self._unpacker = msgpack.Unpacker(
            max_buffer_size=len(body) + 1, max_array_len=_MAX_U32, strict_map_key=False
        )
        self._unpacker.feed(body)
        self._function = 0
        self._region = False
        self.kind = 0

    def fail(self, offset: int, reason: str) -> NoReturn:
        raise ProtocolError(self.kind, offset, reason)

    def _place(self) -> tuple[int, int]:
        """(offset in the frame, first byte) of the next element."""
        at = self._unpacker.tell()
        if at >= len(self._body):
            self.fail(at + 4, "truncated")
        return at + 4, self._body[at]

    def _take(self, at: int, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except UnicodeDecodeError:
            self.fail(at, "not utf-8")
        except Exception:  # the type was looked at before: bytes are missing
            self.fail(at, "truncated")

    def array(self) -> int:
        at, code = self._place()
        if not (0x90 <= code <= 0x9F or code in (0xDC, 0xDD)):
            self.fail(at, "not an array")
        count: int = self._take(at, self._unpacker.read_array_header)
        return count

    def uint(self, low: int, high: int) -> int:
        at, code = self._place()
        if not _is_int(code):
            self.fail(at, "wrong type")
        value: int = self._take(at, self._unpacker.unpack)
        if not low <= value <= high:
            self.fail(at, "out of range")
        return value

    def read_kind(self, legal: tuple[int, ...]) -> int:
        at, _ = self._place()
        self.kind = self.uint(0, _MAX_U64)
        if self.kind not in legal:
            self.fail(at, "unknown kind")
        return self.kind

    def version(self) -> int:
        at, _ = self._place()
        value = self.uint(0, _MAX_U32)
        if value != VERSION:
            self.fail(at, "unknown version")
        return value

    def function(self) -> int:
        self._function = self.uint(0, _MAX_U32)
        return self._function

    def payload(self) -> bytes | int:
        at, code = self._place()
        if _is_int(code):
            self._region = True
            return self.uint(1, MAX_REGION)
        return self._bin(at, code)

    def definition(self) -> bytes | None:
        at, code = self._place()
        if code == 0xC0:
            self._unpacker.skip()
            return None
        value = self._bin(at, code)
        if not value or not self._function:
            self.fail(at, "out of range")
        return value

    def _bin(self, at: int, code: int) -> bytes:
        if not 0xC4 <= code <= 0xC6:
            self.fail(at, "wrong type")
        value: bytes = self._take(at, self._unpacker.unpack)
        return value

    def text(self, least: int) -> str:
        at, code = self._place()
        if not (0xA0 <= code <= 0xBF or 0xD9 <= code <= 0xDB):
            self.fail(at, "wrong type")
        value: str = self._take(at, self._unpacker.unpack)
        if len(value) < least:
            self.fail(at, "out of range")
        return value

    def end(self, descriptor: bool) -> None:
        at = self._unpacker.tell()
        if at < len(self._body):
            self.fail(at + 4, "trailing bytes")
        if self._region and not descriptor:
            self.fail(at + 4, "region without descriptor")
        if descriptor and not self._region:
            self.fail(at + 4, "descriptor without region")


def _is_int(code: int) -> bool:
    return code <= 0x7F or code >= 0xE0 or 0xCC <= code <= 0xD3


def _uint(low: int, high: int) -> Callable[[_Walk], int]:
    return lambda walk: walk.uint(low, high)


_ID = _uint(1, _MAX_U64)
_KINDS_TO_WORKER = (TASK, STOP, LOOK)
_KINDS_FROM_WORKER = (HELLO, READY, DONE, FAILED, DOZING)
_READERS: dict[int, tuple[Callable[[_Walk], Any], ...]] = {
    TASK: (_ID, _uint(0, 2), _Walk.function, _Walk.payload, _Walk.definition),
    STOP: (),
    LOOK: (),
    DOZING: (),
    HELLO: (_Walk.version, _uint(1, _MAX_PID), _uint(0, _MAX_U32)),
    READY: (),
    DONE: (_ID, _uint(0, 2), _Walk.payload),
    FAILED: (lambda walk: walk.text(1), lambda walk: walk.text(0)),
}
