# SPDX-License-Identifier: MIT
"""Is multiprocessing.connection itself, one module under two names (see gopool/_mirror.py).

The names bound here are what type checkers see; at run time they go with this module.
"""

import sys
from multiprocessing import connection
from multiprocessing.connection import *  # noqa: F403

Connection = connection.Connection
answer_challenge = connection.answer_challenge
deliver_challenge = connection.deliver_challenge

sys.modules[__name__] = connection
