# SPDX-License-Identifier: MIT
"""Is multiprocessing.shared_memory itself, one module under two names (see gopool/_mirror.py).

The names bound here are what type checkers see; at run time they go with this module.
"""

import sys
from multiprocessing import shared_memory
from multiprocessing.shared_memory import *  # noqa: F403

sys.modules[__name__] = shared_memory
