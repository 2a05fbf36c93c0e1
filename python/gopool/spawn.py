# SPDX-License-Identifier: MIT
"""Is multiprocessing.spawn itself, one module under two names (see gopool/_mirror.py).

The names bound here are what type checkers see; at run time they go with this module.
"""

import sys
from multiprocessing import spawn
from multiprocessing.spawn import *  # noqa: F403

spawn_main = spawn.spawn_main

sys.modules[__name__] = spawn
