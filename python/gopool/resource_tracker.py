# SPDX-License-Identifier: MIT
"""Is multiprocessing.resource_tracker itself, one module under two names (see gopool/_mirror.py).

The names bound here are what type checkers see; at run time they go with this module.
"""

import sys
from multiprocessing import resource_tracker
from multiprocessing.resource_tracker import *  # noqa: F403

ResourceTracker = resource_tracker.ResourceTracker
getfd = resource_tracker.getfd
main = resource_tracker.main

sys.modules[__name__] = resource_tracker
