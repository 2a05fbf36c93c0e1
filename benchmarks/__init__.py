# SPDX-License-Identifier: MIT
"""gopool beside the standard library's multiprocessing: `python -m benchmarks`.

`rows` says what is measured, `child` runs one measurement in a fresh interpreter, `measure`
starts those interpreters in interleaved rounds, and `report` turns the figures into a table.
How to read that table is in docs/benchmarks.md.
"""
