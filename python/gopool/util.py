# SPDX-License-Identifier: MIT
"""Is multiprocessing.util itself, one module under two names (see gopool/_mirror.py).

The names bound here are what type checkers see; at run time they go with this module.
"""

import sys
from multiprocessing import util
from multiprocessing.util import *  # noqa: F403

abstract_sockets_supported = util.abstract_sockets_supported

sys.modules[__name__] = util
