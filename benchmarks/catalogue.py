# SPDX-License-Identifier: MIT
"""All rows, in the table's order: importing a module of rows registers them."""

from __future__ import annotations

# isort: off
from benchmarks.rows import ROWS as ROWS
import benchmarks.arrays
import benchmarks.resources
import benchmarks.mixes
import benchmarks.workloads
import benchmarks.sweeps  # noqa: F401
