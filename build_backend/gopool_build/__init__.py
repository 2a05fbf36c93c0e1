# SPDX-License-Identifier: MIT
"""What setup.py and the PEP 517 backend need to build gopool's Go extension.

checks.py     is this machine able to build at all? One sentence if not.
toolchain.py  which Go builds, and with which environment.
bindings.py   from ./pyapi to one `_pyapi.<EXT_SUFFIX>`, in a copy of the Go sources.
backend.py    the PEP 517 hooks that pip calls.

Nothing here is installed with the package.
"""


class BuildError(Exception):
    """The build cannot go on; the text is one sentence: what, which, what to do."""
