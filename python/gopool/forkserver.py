# SPDX-License-Identifier: MIT
"""Is multiprocessing.forkserver itself, one module under two names (see gopool/_mirror.py).

The names bound here are what type checkers see; at run time they go with this module.
"""

import sys
from multiprocessing import forkserver
from multiprocessing.forkserver import *  # noqa: F403

ForkServer = forkserver.ForkServer
main = forkserver.main

sys.modules[__name__] = forkserver
