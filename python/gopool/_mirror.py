# SPDX-License-Identifier: MIT
"""Lets a module of gopool show everything that its stdlib twin has.

Most modules of gopool have nothing of their own: they put the stdlib's module object in their
place in sys.modules, so that there is one module, with one state, under two names. The few that
define something (context, managers, pool) keep their own module object and ask the twin for every
name that they lack. They ask at each access: a name that the twin rebinds later (for example
`context.reduction`, through the `reducer` property) is never stale.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # see gopool/context.py
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any


def mirror(name: str, twin: ModuleType) -> None:
    """Give the module `name` every name of `twin` that it does not define itself.

    To be called at the module's top. Sets its `__getattr__`, whose AttributeError names the
    module and not the twin, and its `__dir__`; unknown to type checkers, so that misspelt names
    are still found by them.

    Args:
        name: `__name__` of the calling module.
        twin: the stdlib's module of the same name.
    """
    own = vars(sys.modules[name])

    def module_getattr(attribute: str) -> Any:
        try:
            return getattr(twin, attribute)
        except AttributeError:
            text = f"module {name!r} has no attribute {attribute!r}"
            raise AttributeError(text, name=attribute) from None

    def module_dir() -> list[str]:
        return sorted({*own, *dir(twin)})

    own["__getattr__"] = module_getattr
    own["__dir__"] = module_dir
