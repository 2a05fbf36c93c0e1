# SPDX-License-Identifier: MIT
"""Pickling by multiprocessing's rules, without a copy of what is large.

Used on both sides: payloads of tasks in the parent, of outcomes in the worker.
"""

from __future__ import annotations

import copyreg
import pickle
from collections.abc import Callable
from multiprocessing import reduction

TYPE_CHECKING = False  # typing is not imported at run time: it costs milliseconds
if TYPE_CHECKING:
    from typing import Any

# Buffers of at least so many bytes lie beside the pickle. Measured: see docs/design.md.
LEAST_BUFFER = 128 << 10

# Packages whose objects' pickling changes nothing.
_PLAIN = frozenset(
    ("builtins", "collections", "datetime", "decimal", "functools", "numpy", "pandas", "pyarrow")
)


class Buffers(tuple):  # type: ignore[type-arg]  # of pickle.PickleBuffer
    """The buffers beside a pickle; the last one in the list of its pieces."""

    __slots__ = ()


class Dumper:
    """A reused ForkingPickler that collects what it writes as a list of pieces.

    The C pickler writes a small pickle in one piece, and passes a large bytes object on as it
    is. Buffers of at least LEAST_BUFFER bytes (pickle protocol 5) are left out of the pickle; they
    follow it in the list, as one `Buffers`. Types registered with ForkingPickler at any time
    count. Not to be entered twice: whoever pickles takes a Dumper of his own, also inside a
    `__reduce__`.
    """

    __slots__ = (
        "_clear", "_dump", "_kind", "before_user_code", "buffers", "chunks", "plain", "write"
    )

    def __init__(self) -> None:
        self.plain = False  # set before a dump, it is False after one that ran code of the user's
        # Called before that: within a pickle whose pieces follow what is whole in `chunks`.
        self.before_user_code: Callable[[], None] | None = None
        self.chunks: list[Any] = []
        self.write = self.chunks.append
        self.buffers: list[pickle.PickleBuffer] = []
        self._kind: Any = None
        self._clear: Callable[[], None] = self.chunks.clear  # until there is a pickler

    def dump(self, obj: Any) -> list[Any]:
        """Pickle one object; the list is this object's own and is emptied by `clear`.

        Raises whatever pickling raises; clear the Dumper and throw it away then.
        """
        if reduction.ForkingPickler is not self._kind:
            self.pickler()
        self._dump(obj)
        return self.all_chunks() if self.buffers else self.chunks

    def pickler(self) -> tuple[Callable[[Any], None], Callable[[], None]]:
        """The C functions below dump(), for several pickles in one list: one that writes an
        object's behind the others, and one that forgets the objects of the last.
        """
        kind: Any = reduction.ForkingPickler
        if kind is not self._kind:  # the first time, or the user put another in its place
            pickler: Any = self._make(kind)
            self._dump, self._clear, self._kind = pickler.dump, pickler.clear_memo, kind
        return self._dump, self._clear

    def all_chunks(self) -> list[Any]:
        """The list, with the buffers that are not in the pickles."""
        if self.buffers:
            self.chunks.append(Buffers(self.buffers))
        return self.chunks

    def clear(self) -> None:
        """Forget the pieces, and the objects that the pickler holds for its memo."""
        self.chunks.clear()
        if self.buffers:
            self.buffers.clear()
        self._clear()

    def _make(self, kind: Any) -> Any:
        """A pickler that leaves buffers out; a class that somebody put in ForkingPickler's place
        may not be able to.
        """
        theirs = kind.__module__ != "multiprocessing.reduction"
        pickler: Any = kind(self) if theirs else kind(self, 5, True, self._leave_out)
        # A pickler copies the registered reducers when it is made; this one lives on.
        arrays = None if theirs else _reduce_array
        pickler.dispatch_table = _Reducers(kind._extra_reducers, arrays, self)
        return pickler

    def _leave_out(self, buffer: pickle.PickleBuffer) -> bool:
        """The pickler's buffer_callback: whether a buffer stays in the pickle."""
        if memoryview(buffer).nbytes < LEAST_BUFFER:
            return True
        self.buffers.append(buffer)
        return False


class _Reducers(dict):  # type: ignore[type-arg]  # Any is no name at run time
    """A pickler's dispatch_table: what is registered at the time, and what numpy's arrays need.

    Always empty, so that every look comes to __missing__.
    """

    def __init__(self, registered: dict[type, Any], arrays: Any, dumper: Dumper) -> None:
        self._registered = registered
        self._arrays = arrays
        self._dumper = dumper

    def __missing__(self, kind: type) -> Any:
        dumper = self._dumper
        if dumper.plain and (kind in self._registered or not _is_plain(kind)):
            dumper.plain = False
            if dumper.before_user_code is not None:
                dumper.before_user_code()
        reducer = self._registered.get(kind) or copyreg.dispatch_table.get(kind)
        if reducer is not None:
            return reducer
        if kind.__name__ == "ndarray" and kind.__module__ == "numpy" and self._arrays:
            return self._arrays
        raise KeyError(kind)


def _is_plain(kind: type) -> bool:
    """Whether pickling an object of this type runs no code of the user's."""
    if kind.__module__.partition(".")[0] in _PLAIN:
        return True
    if kind in copyreg.dispatch_table:
        return False
    if issubclass(kind, (dict, list)):
        return False  # its items are asked for
    own: Any = kind
    base: Any = object
    return (
        own.__reduce_ex__ is base.__reduce_ex__
        and own.__reduce__ is base.__reduce__
        and getattr(own, "__getstate__", None) is getattr(base, "__getstate__", None)
        and not hasattr(own, "__getnewargs__")
        and not hasattr(own, "__getnewargs_ex__")
    )


def _reduce_array(array: Any) -> Any:
    """Reduce a numpy array as the standard library's pickler does, or for the way past the pickle.

    Through protocol 5 a read-only array arrives read-only, and none owns its memory (resize()
    refuses). So only what gains by it goes that way, where protocol 4 is the default.
    """
    protocol = pickle.DEFAULT_PROTOCOL
    # Through protocol 4 what is contiguous in neither order arrives in C order, and the other byte
    # order becomes the machine's; through 5 both stay as they are.
    flags = array.flags
    if array.nbytes >= LEAST_BUFFER and flags.writeable and flags.forc and array.dtype.isnative:
        protocol = 5
    return array.__reduce_ex__(protocol)


_spare = [Dumper()]
_spare[0].pickler()


def spare_dumper() -> Dumper:
    """One that lay ready before this process was forked, where nobody has taken it."""
    return _spare.pop() if _spare else Dumper()


def dumps(obj: Any) -> bytes:
    """Pickle one object into bytes, with all that belongs to it."""
    return bytes(reduction.ForkingPickler.dumps(obj))
