# SPDX-License-Identifier: MIT
"""Is multiprocessing.sharedctypes itself, one module under two names (see gopool/_mirror.py).

The names bound here are what type checkers see; at run time they go with this module.
"""

import sys
from multiprocessing import sharedctypes
from multiprocessing.sharedctypes import *  # noqa: F403

Synchronized = sharedctypes.Synchronized
SynchronizedArray = sharedctypes.SynchronizedArray
SynchronizedBase = sharedctypes.SynchronizedBase
SynchronizedString = sharedctypes.SynchronizedString

sys.modules[__name__] = sharedctypes
