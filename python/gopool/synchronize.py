# SPDX-License-Identifier: MIT
"""Is multiprocessing.synchronize itself, one module under two names (see gopool/_mirror.py).

The names bound here are what type checkers see; at run time they go with this module.
"""

import sys
from multiprocessing import synchronize
from multiprocessing.synchronize import *  # noqa: F403

Barrier = synchronize.Barrier
SemLock = synchronize.SemLock

sys.modules[__name__] = synchronize
