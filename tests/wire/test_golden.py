# SPDX-License-Identifier: MIT
"""The golden frames, which Go's tests read too (bridge/golden_test.go)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gopool._worker import frame, message

_FILE = Path(__file__).parents[2] / "bridge" / "testdata" / "frames" / "frames.json"
_GOLDEN = json.loads(_FILE.read_text(encoding="utf-8"))


def _parameters(name):
    return pytest.mark.parametrize("case", _GOLDEN[name], ids=lambda case: case["name"])


def _bytes(case):
    return bytes.fromhex(case["hex"]) + bytes(case.get("pad", 0))


def _decode(data, case):
    body = frame.body(memoryview(data), len(data))
    return message.decode(body, case["descriptor"], to_worker=case["to_worker"])


def _payload(fields):
    return fields["region"] or bytes.fromhex(fields["payload"])


def _elements(fields):
    """What the decoder should return for a golden message."""
    kind = fields["kind"]
    if kind == message.TASK:
        definition = fields["definition"]
        return [
            kind,
            fields["task"],
            fields["mode"],
            fields["function"],
            _payload(fields),
            None if definition is None else bytes.fromhex(definition),
        ]
    if kind == message.DONE:
        return [kind, fields["task"], fields["status"], _payload(fields)]
    return list(fields.values())


def _pack(fields):
    kind = fields["kind"]
    if kind == message.HELLO:
        return message.pack_hello(fields["pid"], fields["flags"])
    if kind == message.READY:
        return message.pack_ready()
    if kind == message.DONE:
        return message.pack_done(fields["task"], fields["status"], _payload(fields))
    if kind == message.DOZING:
        return message.pack_dozing()
    return message.pack_failed(fields["stage"], fields["text"])


@_parameters("good")
def test_good_frame_decodes(case):
    """A golden frame decodes to its message."""
    assert _decode(_bytes(case), case) == _elements(case["message"])


@pytest.mark.parametrize(
    "case",
    [case for case in _GOLDEN["good"] if not case["to_worker"] and case["canonical"]],
    ids=lambda case: case["name"],
)
def test_good_frame_is_what_the_worker_writes(case):
    """A worker's message encodes to exactly the golden bytes."""
    assert _pack(case["message"]).hex() == case["hex"]


@pytest.mark.parametrize(
    "case",
    [case for case in _GOLDEN["good"] if case["to_worker"]],
    ids=lambda case: case["name"],
)
def test_worker_reads_good_frame(case):
    """The function that the worker's loop calls gives the same fields; None for Stop."""
    data = _bytes(case)
    got = message.decode_task(frame.body(memoryview(data), len(data)), case["descriptor"])
    want = _elements(case["message"])
    assert got == (None if want == [message.STOP] else tuple(want[1:]))


@_parameters("bad")
def test_bad_frame_is_refused(case):
    """A bad frame is refused with the kind, place and reason that Go gives."""
    with pytest.raises(frame.ProtocolError) as caught:
        _decode(_bytes(case), case)
    error = caught.value
    want = {key: case["error"][key] for key in ("kind", "offset", "reason")}
    assert {"kind": error.kind, "offset": error.offset, "reason": error.reason} == want
    assert want["reason"] in str(error)


@pytest.mark.parametrize(
    "case",
    [case for case in _GOLDEN["bad"] if case["to_worker"]],
    ids=lambda case: case["name"],
)
def test_worker_refuses_bad_frame(case):
    """The quick path refuses with the same reason as the walk through the elements."""
    data = _bytes(case)
    with pytest.raises(frame.ProtocolError) as caught:
        message.decode_task(frame.body(memoryview(data), len(data)), case["descriptor"])
    assert caught.value.reason == case["error"]["reason"]
