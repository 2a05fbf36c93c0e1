# SPDX-License-Identifier: MIT
"""One measurement of one library, in the fresh interpreter that `measure` started for it.

The twin of `measure`: arguments come as plain strings, and one line of JSON goes to stdout. The
library is imported here and nowhere else, so that none pays for another's presence.
"""

from __future__ import annotations

import sys
from time import perf_counter

from benchmarks.catalogue import ROWS
from benchmarks.libraries import GOPOOL, LIBRARIES
from benchmarks.rows import Setup

_FOLDER_FOUND = "`import gopool` found the Go sources' folder: install the package first"
_GO_MISSING = "gopool ran without its Go core (limits on memory or threads?): nothing to compare"


def main(arguments: list[str]) -> None:
    """Measure `arguments`: row, library, workers, seconds, and "quick" or nothing."""
    row, name, workers, seconds, *quick = arguments
    library = LIBRARIES[name]
    start = perf_counter()
    module = library.load()
    imported = perf_counter() - start
    if getattr(module, "__file__", None) is None:
        sys.exit(_FOLDER_FOUND)
    setup = Setup(module, imported, int(workers), float(seconds), bool(quick), library.open)
    measurement = ROWS[row].body(setup)
    _check_alone(name, setup.opened)
    reply(measurement.value, measurement.beside)


def reply(value: float, beside: dict[str, float]) -> None:
    # Late, and so are all imports that a measurement has no need of: see `rows`.
    import json

    print(json.dumps({"value": value, "beside": beside}))


def _check_alone(name: str, pooled: bool) -> None:
    """Stop if it was not the named library that was measured."""
    if name == GOPOOL:
        from gopool import _core

        # A row without a pool of gopool's needs no Go.
        if pooled and not _core.loaded():
            sys.exit(_GO_MISSING)
    elif GOPOOL in sys.modules:
        sys.exit(f"gopool was loaded while {name} was measured")
