# SPDX-License-Identifier: MIT
"""Is multiprocessing.dummy.connection itself (see gopool/_mirror.py)."""

import sys
from multiprocessing.dummy import connection
from multiprocessing.dummy.connection import *  # noqa: F403

sys.modules[__name__] = connection
