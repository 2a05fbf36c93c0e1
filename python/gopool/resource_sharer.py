# SPDX-License-Identifier: MIT
"""Is multiprocessing.resource_sharer itself, one module under two names (see gopool/_mirror.py).

The names bound here are what type checkers see; at run time they go with this module.
"""

import sys
from multiprocessing import resource_sharer
from multiprocessing.resource_sharer import *  # noqa: F403

sys.modules[__name__] = resource_sharer
