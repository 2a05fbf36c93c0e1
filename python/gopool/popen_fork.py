# SPDX-License-Identifier: MIT
"""Is multiprocessing.popen_fork itself, one module under two names (see gopool/_mirror.py).

The names bound here are what type checkers see; at run time they go with this module.
"""

import sys
from multiprocessing import popen_fork
from multiprocessing.popen_fork import *  # noqa: F403

sys.modules[__name__] = popen_fork
