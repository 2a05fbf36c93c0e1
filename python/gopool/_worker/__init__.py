# SPDX-License-Identifier: MIT
"""What runs in a pool's worker processes (station 9 of the data flow).

Nothing here imports the native extension or anything of gopool outside this package: a forked
child must never enter the parent's Go runtime.
"""
