# SPDX-License-Identifier: MIT
"""Children of an installed program are installed too, whatever the start method.

Runs in the parent, and once at the start of each spawned child. A forked child
inherits the hand-over. A child made by spawn or forkserver first unpickles the
dict of `multiprocessing.spawn.get_preparation_data`, then calls `prepare()`,
which runs the user's script. So the first value of that dict travels inside a
`_Stowaway`: unpickling it installs gopool and gives the plain value back.
Guarantee: the child receives an equal dict, and its sys.path is as it was.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from multiprocessing import spawn

TYPE_CHECKING = False  # typing is not imported at run time: it costs milliseconds
if TYPE_CHECKING:
    from typing import Any

    _Prepare = Callable[[str], dict[str, Any]]

# As Any: the type checker does not let a module's function be replaced.
_spawn: Any = spawn

# The folder that holds the package.
HOME = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# Runs in the child, where gopool may not be importable yet: prepare() has not set the parent's
# sys.path, and the child's first entry is the current folder. A namespace package there (a mere
# folder called gopool) or a module gopool.py is not what is wanted, hence the look at the spec.
# The parent's path is lent, behind the child's own, for what the installation imports.
_ARRIVE = """
import importlib.machinery, importlib.util, sys
spec = importlib.util.find_spec("gopool")
if spec is None or not spec.has_location or not spec.submodule_search_locations:
    spec = importlib.machinery.PathFinder.find_spec("gopool", [home])
    if spec is None:
        raise ModuleNotFoundError("No module named 'gopool', nor in " + home, name="gopool")
    package = sys.modules["gopool"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)
before = sys.path[:]
sys.path.extend(entry for entry in places if entry not in before)
try:
    import gopool._install
    gopool._install.install()
finally:
    sys.path[:] = before
"""

# eval() is the one builtin that pickles by reference and can run a text with names of its own.
_UNPACK = "(exec(compile(arrive, '<gopool: install in a child>', 'exec'), luggage), value)[1]"


class _Stowaway:
    """A value that installs gopool where it is unpickled, and is the value itself there.

    In the parent it compares, hashes, prints and tests like the value, for
    wrappers of get_preparation_data that look into the dict.
    """

    __slots__ = ("_places", "_value")

    def __init__(self, value: Any, places: list[str]) -> None:
        self._value = value
        self._places = places

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, dict[str, Any]]]:
        luggage = {"home": HOME, "places": self._places}
        return eval, (_UNPACK, {"arrive": _ARRIVE, "luggage": luggage, "value": self._value})

    def __eq__(self, other: object) -> bool:
        return bool(self._value == (other._value if isinstance(other, _Stowaway) else other))

    def __hash__(self) -> int:
        return hash(self._value)

    def __bool__(self) -> bool:
        return bool(self._value)

    def __repr__(self) -> str:
        return repr(self._value)


class _Wrapper:
    """One layer round `get_preparation_data`; passes through once it is switched off.

    Others (coverage.py, line_profiler) wrap the same function. A layer of
    theirs above this one cannot be taken off, so this one is switched off below it.
    """

    def __init__(self, inner: _Prepare) -> None:
        self.inner = inner
        self.active = True

        @functools.wraps(inner)
        def get_preparation_data(name: str) -> dict[str, Any]:
            data = inner(name)
            if self.active:
                _stow(data)
            return data

        self.function: _Prepare = get_preparation_data


# Layers that are switched on; more than one only if somebody wrapped or unwrapped in between.
_wrappers: list[_Wrapper] = []


def hand_over() -> None:
    """Have children by spawn and forkserver install gopool before they run anything else.

    Calling it again changes nothing. Part of `gopool.install()`.
    """
    current = spawn.get_preparation_data
    if any(wrapper.function is current for wrapper in _wrappers):
        return
    wrapper = _Wrapper(current)
    _wrappers.append(wrapper)
    _spawn.get_preparation_data = wrapper.function


def take_back() -> None:
    """Undo `hand_over()`, and leave what others have put round it. Part of `gopool.uninstall()`."""
    while _wrappers:
        wrapper = _wrappers.pop()
        wrapper.active = False
        if spawn.get_preparation_data is wrapper.function:
            _spawn.get_preparation_data = wrapper.inner


def _stow(data: dict[str, Any]) -> None:
    """Put a stowaway in the place of the first value, which is unpickled before all others."""
    first = next(iter(data), None)
    # Two layers of ours with one of somebody else's between them: one stowaway is enough.
    if first is None or isinstance(data[first], _Stowaway):
        return
    data[first] = _Stowaway(data[first], list(data.get("sys_path", ())))
