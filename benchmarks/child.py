# SPDX-License-Identifier: MIT
"""One measurement of one library, in the fresh interpreter that `measure` started for it.

The twin of `measure`: arguments come as plain strings, and one line of JSON goes to stdout. The
library is imported here and nowhere else, so that neither pays for the other's presence.
"""

from __future__ import annotations

import sys
from time import perf_counter

from benchmarks.rows import ROWS, Setup

_FOLDER_FOUND = "`import gopool` found the Go sources' folder: install the package first"
_GO_MISSING = "gopool ran without its Go core (limits on memory or threads?): nothing to compare"


def main(arguments: list[str]) -> None:
    """Measure `arguments`: row, library, workers, seconds."""
    row, name, workers, seconds = arguments
    start = perf_counter()
    library = __import__(name)
    setup = Setup(library, perf_counter() - start, int(workers), float(seconds))
    if getattr(library, "__file__", None) is None:
        sys.exit(_FOLDER_FOUND)
    measurement = ROWS[row].body(setup)
    _check_alone(name)
    reply(measurement.value, measurement.beside)


def reply(value: float, beside: dict[str, float]) -> None:
    # Late, and so are all imports that a measurement has no need of: see `rows`.
    import json

    print(json.dumps({"value": value, "beside": beside}))


def _check_alone(name: str) -> None:
    """Stop if it was not the named library that was measured."""
    if name == "gopool":
        from gopool import _core

        # A row without a pool needs no Go.
        if "gopool.pool" in sys.modules and not _core.loaded():
            sys.exit(_GO_MISSING)
    elif "gopool" in sys.modules:
        sys.exit("gopool was loaded while the stdlib was measured")
