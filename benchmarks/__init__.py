# SPDX-License-Identifier: MIT
"""gopool beside the standard library's multiprocessing and other libraries: `python -m benchmarks`.

`libraries` says what is measured, `catalogue` gathers the rows (`rows`, `arrays`, `resources`,
`workloads`, `sweeps`), `child` runs one measurement in a fresh interpreter, `measure` starts those
interpreters in interleaved rounds, `report` turns the figures into tables and `plots` draws them.
How to read them is in docs/performance.md.
"""
