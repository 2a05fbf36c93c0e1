# SPDX-License-Identifier: MIT
"""Is multiprocessing.reduction itself, one module under two names (see gopool/_mirror.py).

The names bound here are what type checkers see; at run time they go with this module.
"""

import sys
from multiprocessing import reduction
from multiprocessing.reduction import *  # noqa: F403

AbstractReducer = reduction.AbstractReducer
HAVE_SEND_HANDLE = reduction.HAVE_SEND_HANDLE

sys.modules[__name__] = reduction
