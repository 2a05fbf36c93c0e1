# SPDX-License-Identifier: MIT
"""Is multiprocessing.heap itself, one module under two names (see gopool/_mirror.py).

The names bound here are what type checkers see; at run time they go with this module.
"""

import sys
from multiprocessing import heap
from multiprocessing.heap import *  # noqa: F403

Arena = heap.Arena
Heap = heap.Heap

sys.modules[__name__] = heap
