# SPDX-License-Identifier: MIT
"""Buffers that one call of map or starmap sends once, however many of its tasks have them.

Its input is listed before the first task is pickled, so that a buffer is the same in all of them;
imap draws its items one by one, and a generator may refill one buffer. So may code of the user's
that runs while an item is pickled (`__reduce__`, `__getstate__`): what such a task brings is not
shared, and what was sent before it is forgotten. A task with a buffer that an
earlier one brought is written behind that one, into the same region, and refers to what lies there.
What is sent is still one pickle for each task, and each maps the region for itself: they share
nothing that they could change.
"""

from __future__ import annotations

import weakref

from gopool import _fork
from gopool._regions import regions, warm
from gopool._worker.pickling import Buffers

TYPE_CHECKING = False  # typing is not imported at run time: it costs milliseconds
if TYPE_CHECKING:
    from typing import Any

# Bytes that may be written behind the first task of a region: its receivers keep all of it.
_MOST_BEHIND = 64 << 20


class Sharing:
    """What one call has sent. One thread at a time uses it."""

    def __init__(self) -> None:
        self._generation = _fork.generation
        self._region: warm.Region | None = None  # where the latest new buffers lie
        self._end = self._most = 0  # bytes written there, and that may be
        self._sent: dict[int, tuple[Any, int, int]] = {}  # by id: weak reference, offset, bytes

    def write(self, pieces: list[Any]) -> tuple[int, int]:
        """As regions.write, which it is for a task without buffers."""
        if type(pieces[-1]) is not Buffers:
            return regions.write(pieces)
        known = self._known(pieces[-1])
        region = self._region
        if region is None or not known or self._end > self._most:
            self.close()
            known, layout = {}, regions.Layout(pieces)
            region = regions.write_new(layout)
        else:
            layout = regions.Layout(pieces, -(-self._end // 64) * 64, known)
            regions.append(region, layout)
        try:
            fd = warm.lend_and_hold(region)
        except OSError:
            if region is self._region:
                self.close()
                return regions.write(pieces)
            return warm.lend(region), layout.end
        if region is not self._region:
            self._region, self._most = region, layout.end + _MOST_BEHIND
        self._end = layout.end
        self._remember(pieces[-1], layout.offsets)
        return fd, layout.end

    def close(self) -> None:
        """Let go of the region; tasks that are on their way still have it."""
        region, self._region = self._region, None
        self._sent.clear()
        if region is not None and self._generation == _fork.generation:
            warm.keep(region)

    def _known(self, buffers: Any) -> dict[int, int]:
        """Offsets of those that lie in the region, by their place."""
        known = {}
        for place, buffer in enumerate(buffers):
            view = memoryview(buffer)
            reference, offset, size = self._sent.get(id(view.obj), (None, 0, 0))
            if reference is not None and reference() is view.obj and size == view.nbytes:
                known[place] = offset
        return known

    def _remember(self, buffers: Any, offsets: list[int]) -> None:
        for buffer, offset in zip(buffers, offsets, strict=True):
            view = memoryview(buffer)
            try:
                self._sent[id(view.obj)] = weakref.ref(view.obj), offset, view.nbytes
            except TypeError:
                pass  # nobody could tell whether it is still the same
