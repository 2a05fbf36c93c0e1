# SPDX-License-Identifier: MIT
"""No loop of gopool's lets an exception of a signal's handler past its own with or try.

CPython 3.12 and 3.13 write a loop that ends with an `if` without `else`, and a `while` with two
conditions, with a jump back that no entry of the exception table covers
(https://github.com/python/cpython/issues/108214). Handlers run at jumps back: what one raises there
leaves the lock of a `with` taken and skips a `finally`. Such a loop is written otherwise: its
elements are filtered before, or its last statement is no `if`.
"""

from __future__ import annotations

import dis
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType

import pytest

import gopool

PACKAGE = Path(gopool.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))

pytestmark = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="before 3.11 there is no exception table"
)


def _functions(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _functions(constant)


class Table:
    """Where the exceptions of a function's instructions go."""

    def __init__(self, code: CodeType) -> None:
        self._entries = dis._parse_exception_table(code)  # type: ignore[attr-defined]
        self.instructions = list(dis.get_instructions(code))
        self._names = {each.offset: each.opname for each in self.instructions}

    def handler(self, offset: int) -> int | None:
        """Where a with or a try goes on after an exception at an offset; None: nowhere."""
        for entry in self._entries:
            if entry.start <= offset < entry.end:
                # That of a comprehension sets its own variable back, and no more.
                clean_up = self._names[entry.target] != "PUSH_EXC_INFO"
                return self.handler(entry.target) if clean_up else int(entry.target)
        return None


def uncovered(code: CodeType) -> list[int | None]:
    """The lines before the jumps back that are outside of what their loop is inside of."""
    table = Table(code)
    found = []
    for before, test, jump in zip(
        table.instructions, table.instructions[1:], table.instructions[2:], strict=False
    ):
        if jump.opname == "JUMP_BACKWARD":
            handler = table.handler(jump.argval)
            inside = handler is not None and handler == table.handler(before.offset)
            if inside and table.handler(jump.offset) != handler:
                assert test.positions is not None
                found.append(test.positions.lineno)
    return found


def test_it_finds_what_it_looks_for() -> None:
    """Where CPython has the bug."""
    source = "def f(lock, a):\n with lock:\n  for b in a:\n   if b:\n    print(b)\n print()"
    (function,) = (each for each in _functions(compile(source, "", "exec")) if each.co_name == "f")
    assert uncovered(function) == ([4] if (3, 12) <= sys.version_info < (3, 14) else [])


# Loops of threads, in which no handler ever runs.
EXEMPT = {"IMapFeeder._draw", "_Watch._run"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_every_jump_back_is_covered(path: Path) -> None:
    module = compile(path.read_text(), str(path), "exec")
    lines = {each.co_qualname: uncovered(each) for each in _functions(module)}
    assert not {name: found for name, found in lines.items() if found and name not in EXEMPT}
