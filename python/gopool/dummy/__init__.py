# SPDX-License-Identifier: MIT
"""Is multiprocessing.dummy itself, one module under two names (see gopool/_mirror.py).

The names bound here are what type checkers see; at run time they go with this module.
"""

import sys
from multiprocessing import dummy
from multiprocessing.dummy import *  # noqa: F403

# Loaded while this package still has its own search path: afterwards the import system would
# look in the stdlib's folder and load a second copy of dummy/connection.py under gopool's name.
from gopool.dummy import connection as connection

sys.modules[__name__] = dummy
