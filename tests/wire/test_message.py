# SPDX-License-Identifier: MIT
"""Frames and messages: every legal one survives the way there and back, no bytes do harm."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gopool._worker import _lane, frame, message

_IDS = st.integers(1, 2**64 - 1)
_REGIONS = st.integers(1, message.MAX_REGION)
_PAYLOADS = st.binary(max_size=2_000) | _REGIONS

# Elements as a hostile peer would choose them: nearly right.
_NEARLY = st.one_of(
    st.sampled_from([0, 1, 2, 3, 16, 17, 18, 19, True, False, None, 1.0, -1, 2**32, 2**63]),
    st.integers(-(2**63), 2**64 - 1),
    st.binary(max_size=8),
    st.text(max_size=8),
    st.lists(st.integers(0, 3), max_size=3),
    st.dictionaries(st.integers(0, 3), st.none(), max_size=2),
)


def _body(data):
    return frame.body(memoryview(data), len(data))


def _from_worker(data, descriptor=False):
    return message.decode(_body(data), descriptor, to_worker=False)


def _outcome(function):
    """What a decoder returned, or the place and reason it gave."""
    try:
        return function()
    except frame.ProtocolError as error:
        return error.kind, error.offset, error.reason


@given(_IDS, st.integers(0, 2), _PAYLOADS)
def test_done_round_trip(task, status, payload):
    """A Done is read as it was written, with its payload inline or in a region."""
    data = message.pack_done(task, status, payload)
    assert _from_worker(data, isinstance(payload, int)) == [message.DONE, task, status, payload]


@given(
    _IDS,
    st.integers(0, 2),
    st.integers(0, 2**32 - 1),
    _PAYLOADS,
    st.none() | st.binary(min_size=1, max_size=100),
)
def test_task_round_trip(task, mode, function, payload, definition):
    """A Task is read as it was written; a definition needs a function other than 0."""
    if function == 0:
        definition = None
    body = msgpack.packb([message.TASK, task, mode, function, payload, definition])
    region = isinstance(payload, int)
    assert message.decode_task(body, region) == (task, mode, function, payload, definition)


@given(st.integers(1, 2**31 - 1), st.integers(0, 2**32 - 1))
def test_hello_round_trip(pid, flags):
    """A Hello carries the version, the pid and the flags."""
    assert _from_worker(message.pack_hello(pid, flags)) == [16, message.VERSION, pid, flags]


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_failed_round_trip(text):
    """A Failed carries its text."""
    assert _from_worker(message.pack_failed("initializer", text)) == [19, "initializer", text]


@pytest.mark.parametrize("character", ["x", "\xe9", "\u20ac", "\U0001f600"])
def test_failed_keeps_the_end_of_a_long_text(character):
    """A traceback that fits no frame loses its beginning, never half a character."""
    data = message.pack_failed("initializer", character * 70_000 + "the reason")
    assert frame.MAX_FRAME - 40 < len(data) <= frame.MAX_FRAME
    text = _from_worker(data)[2]
    assert text.endswith(character + "the reason")
    assert set(text) == set(character + "the reason")


def test_failed_writes_lone_surrogates_as_escapes():
    """A traceback with undecodable file names can be told; UTF-8 has no lone surrogates."""
    assert _from_worker(message.pack_failed("initializer", "a\udc80b"))[2] == "a\\udc80b"


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview])
def test_done_takes_any_buffer(make):
    """A pickler's buffer needs no copy before it is packed."""
    assert _from_worker(message.pack_done(1, 0, make(b"abc"))) == [message.DONE, 1, 0, b"abc"]


def test_largest_inline_payload_fits():
    """MAX_INLINE bytes fit beside the largest numbers, and the frame is legal."""
    data = message.pack_done(2**64 - 1, 2, bytes(frame.MAX_INLINE))
    assert len(data) <= frame.MAX_FRAME
    assert len(_from_worker(data)[3]) == frame.MAX_INLINE


def test_done_that_fits_no_frame_is_refused():
    """A payload beyond a frame raises, and the packer is usable afterwards."""
    with pytest.raises(frame.FrameTooLargeError, match="65536"):
        message.pack_done(1, 0, bytes(frame.MAX_FRAME))
    assert _from_worker(message.pack_ready()) == [message.READY]


@given(st.binary(max_size=64), st.integers(0, 70_000))
def test_frame_of_any_bytes(data, size):
    """A received message is a frame exactly if its length field says so."""
    buffer = memoryview(data.ljust(70_000, b"\0"))
    legal = 4 <= size <= frame.MAX_FRAME and int.from_bytes(buffer[:4], "little") == size - 4
    try:
        body = frame.body(buffer, size)
    except frame.ProtocolError:
        assert not legal
    else:
        assert legal and body == buffer[4:size]


@given(st.lists(_NEARLY, max_size=7), st.booleans())
def test_quick_and_slow_decoder_agree(elements, descriptor):
    """The decoder of the worker's loop accepts what the walk accepts, and nothing else."""
    body = msgpack.packb(elements)
    slow = _outcome(lambda: message.decode(body, descriptor, to_worker=True))
    quick = _outcome(lambda: message.decode_task(body, descriptor))
    if isinstance(slow, list):
        slow = None if slow == [message.STOP] else tuple(slow[1:])
    assert quick == slow


@given(
    _NEARLY | st.just(1),
    _NEARLY | _IDS,
    _NEARLY | st.integers(0, 2),
    _NEARLY | st.integers(0, 9),
    _NEARLY | _PAYLOADS,
    _NEARLY | st.none() | st.binary(),
    st.booleans(),
)
def test_nearly_a_task(kind, task, mode, function, payload, definition, descriptor):
    """Both decoders give the same fields or the same error for six elements of any type."""
    body = msgpack.packb([kind, task, mode, function, payload, definition])
    slow = _outcome(lambda: message.decode(body, descriptor, to_worker=True))
    quick = _outcome(lambda: message.decode_task(body, descriptor))
    assert quick == (tuple(slow[1:]) if isinstance(slow, list) else slow)


@given(st.binary(max_size=200), st.booleans(), st.booleans())
@example(b"\x96\x01\x01" + b"\xdd\x00\x00\xff\xff" * 13_000, False, True)
@example(b"\x96\x01\x01\x00\x00\xc6\xff\xff\xff\xff", False, True)
@example(b"\x96\x01\x01\x00\x00\xd7\xff" + b"\xff" * 8 + b"\xc0", False, True)
@example(b"\xdf\xff\xff\xff\xff", False, True)
def test_any_bytes(data, descriptor, to_worker):
    """Bytes are a message or a ProtocolError whose offset lies in the frame."""
    for decode in (
        lambda: message.decode(data, descriptor, to_worker=to_worker),
        lambda: message.decode_task(data, descriptor),
    ):
        try:
            decode()
        except frame.ProtocolError as error:
            assert 0 <= error.offset <= len(data) + 4
            assert error.reason


@given(
    st.lists(
        st.integers(0, 2**64 - 1)
        | st.sampled_from([0, 127, 128, 255, 256, 2**16 - 1, 2**16, 2**32 - 1, 2**32])
        | st.text()
        | st.binary()
        | st.binary().map(bytearray)
        | st.binary().map(memoryview),
        max_size=15,
    )
)
@example(["t" * size for size in (0, 31, 32, 255, 256, 65_535, 65_536)])
@example([b"b" * size for size in (0, 31, 32, 255, 256, 65_535, 65_536)])
def test_written_as_msgpack_does(elements):
    """A message's bytes are those of the msgpack package."""
    assert _lane.encode(*elements) == msgpack.packb(elements)


@pytest.mark.parametrize(
    ("elements", "error"),
    [
        ([-1], OverflowError),
        ([2**64], OverflowError),
        ([None], TypeError),
        ([1.0], TypeError),
        ([["x"]], TypeError),
        (["\ud800"], UnicodeEncodeError),
        ([b"x", memoryview(b"1234")[::2]], BufferError),
        ([0] * 16, TypeError),
    ],
)
def test_not_to_be_written(elements, error):
    """What no message holds is an error, and whatever came before it is free again."""
    held = bytearray(b"held")
    with pytest.raises(error):
        _lane.encode(held, *elements)
    held.append(0)


@given(st.data())
def test_damaged_messages(data):
    """One changed, lost or added byte in a message gives a message or a ProtocolError."""
    body = bytearray(
        data.draw(
            st.sampled_from(
                [
                    msgpack.packb([1, 300, 1, 7, b"payload", b"definition"]),
                    msgpack.packb([18, 300, 0, b"payload"]),
                    msgpack.packb([19, "initializer", "text"]),
                    msgpack.packb([16, 1, 4711, 0]),
                ]
            )
        )
    )
    at = data.draw(st.integers(0, len(body) - 1))
    body[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    to_worker = data.draw(st.booleans())
    result = _outcome(lambda: message.decode(bytes(body), False, to_worker=to_worker))
    assert isinstance(result, (list, tuple))
