# SPDX-License-Identifier: MIT
"""Frames: a length field and a body (station 9; runs in the worker).

Twin: bridge/frame.go. Rules: bridge/PROTOCOL.md, section 2.
"""

from __future__ import annotations

import struct

MAX_FRAME = 65_536  # bytes, header included
MAX_INLINE = MAX_FRAME - 64  # bytes of payload that fit into any Done frame
HEADER = struct.Struct("<I")  # bytes of the body that follows

_unpack_length = HEADER.unpack_from


class ProtocolError(Exception):
    """A frame breaks bridge/PROTOCOL.md; its sender can't be trusted any more.

    Attributes:
        kind: kind of the message, 0 where it was not reached.
        offset: bytes from the beginning of the frame to what is wrong.
        reason: one of the texts of PROTOCOL.md, section 6.
    """

    def __init__(self, kind: int, offset: int, reason: str) -> None:
        super().__init__(kind, offset, reason)
        self.kind = kind
        self.offset = offset
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"message of kind {self.kind} breaks the protocol at byte {self.offset}: {self.reason}"
        )


class FrameTooLargeError(ValueError):
    """A message does not fit into one frame; nothing was sent."""


def body(buffer: memoryview, size: int) -> memoryview:
    """Check the length field of a received frame.

    Args:
        buffer: memory that begins with the frame, at least size bytes.
        size: bytes received.

    Returns:
        the frame's body, a part of buffer.

    Raises:
        ProtocolError: the length field does not say size - 4, or size is no frame's.
    """
    if size < 4:
        raise ProtocolError(0, 0, "frame shorter than its header")
    if size > MAX_FRAME:
        raise ProtocolError(0, 0, "frame larger than the limit")
    if _unpack_length(buffer)[0] != size - 4:
        raise ProtocolError(0, 0, "length mismatch")
    return buffer[4:size]


def frame(content: bytes) -> bytes:
    """Put the length field before a body.

    Raises:
        FrameTooLargeError: the frame would exceed MAX_FRAME.
    """
    size = len(content)
    if size > MAX_FRAME - 4:
        raise FrameTooLargeError(f"frame of {size + 4} bytes exceeds the limit of {MAX_FRAME}")
    return HEADER.pack(size) + content
