# SPDX-License-Identifier: MIT
"""Die with the parent: SIGKILL from the kernel when the parent's end of the lifeline closes.

It works while the worker is busy in C, needs no thread, and does not depend on the thread that
forked (as PR_SET_PDEATHSIG does). Every worker opens a description of its own, since the setting
belongs to the description and an inherited one is shared with the siblings.
"""

from __future__ import annotations

from gopool._worker._lane import die_with as arm

__all__ = ["arm"]
