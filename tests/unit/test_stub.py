# SPDX-License-Identifier: MIT
"""The hand-written stub says what the extension has."""

from __future__ import annotations

import ast
import os
import sys

import gopool
from gopool import _core


def _stub() -> dict[str, ast.FunctionDef]:
    path = os.path.join(os.path.dirname(gopool.__file__), "_native", "_pyapi.pyi")
    with open(path) as stub:
        tree = ast.parse(stub.read())
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_names() -> None:
    """The stub's functions are the extension's: a missing one is unchecked, a left-over lies."""
    _core.load()
    extension = vars(sys.modules["gopool._native._pyapi"])
    assert {name for name in extension if name.startswith("pyapi_")} == set(_stub())
    functions = vars(_core.load()).keys() - {"desks", "closed_totals"}
    assert functions == {name.removeprefix("pyapi_") for name in _stub()}


def test_ints_only() -> None:
    """All parameters and results are ints, the rule of that border."""
    for name, function in _stub().items():
        assert [ast.unparse(a.annotation or a) for a in function.args.args] == ["int"] * len(
            function.args.args
        ), name
        assert function.returns is not None
        assert ast.unparse(function.returns) == "int", name
        assert not (function.args.kwonlyargs or function.args.vararg or function.args.kwarg)


def test_numbers_of_parameters() -> None:
    """The extension takes as many arguments as the stub says; one more or less is a TypeError."""
    native = _core.load()
    for name, function in _stub().items():
        count = len(function.args.args)
        called = getattr(native, name.removeprefix("pyapi_"))
        for wrong in (count + 1, count - 1):
            if wrong >= 0:
                try:
                    called(*[0] * wrong)
                except TypeError:
                    continue
                raise AssertionError(f"{name} takes {wrong} arguments, the stub says {count}")
