# SPDX-License-Identifier: MIT
"""What a worker makes of a task's payload and of a function's definition."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from gopool._worker import call

MODULE = "gopool_tests_changing"


@pytest.fixture
def changing() -> Iterator[Any]:
    """A module whose function is replaced while a worker knows it."""
    module: Any = ModuleType(MODULE)
    sys.modules[MODULE] = module
    _define(module, 1)
    yield module
    sys.modules.pop(MODULE, None)


def _define(module: Any, value: int) -> None:
    def function() -> int:
        return value

    function.__module__, function.__qualname__ = MODULE, "function"
    module.function = function


def test_no_arguments_are_made_anew() -> None:
    """Where they are a chunk of two items, the function may change them."""
    definition = call.Definition(pickle.dumps(len))
    _, (_, kwds) = call.unpack(call.NOTHING, definition)
    kwds["changed"] = True
    assert call.unpack(call.NOTHING, definition) == (len, ((), {}))
    assert call.NO_ARGUMENTS == ((), {})


def test_function_is_found_anew(changing: Any) -> None:
    """A patch, or a reload, is seen by the next task, however often the function was used."""
    definition = call.Definition(pickle.dumps(changing.function))
    for value in range(5):
        _define(changing, value)
        function, _ = call.unpack(call.NOTHING, definition)
        assert function() == value


def test_function_that_is_gone(changing: Any) -> None:
    """It says what unpickling says, also once the name is known."""
    definition = call.Definition(pickle.dumps(changing.function))
    for _ in range(3):
        call.unpack(call.NOTHING, definition)
    assert definition.module == MODULE
    del changing.function
    with pytest.raises(AttributeError, match="function"):
        call.unpack(call.NOTHING, definition)
    del sys.modules[MODULE]
    with pytest.raises(ModuleNotFoundError, match=MODULE):
        call.unpack(call.NOTHING, definition)


def test_definition_of_several_parts() -> None:
    """One that is not a mere name is unpickled each time."""
    bound = "abc".upper
    definition = call.Definition(pickle.dumps(bound))
    for _ in range(3):
        function, _ = call.unpack(call.NOTHING, definition)
        assert function() == "ABC"
    assert definition.module == ""
