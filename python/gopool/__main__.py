# SPDX-License-Identifier: MIT
"""`python -m gopool`: hands over to the runner, which takes this module's place as `__main__`."""

import sys

from gopool._runner import main

# No sys.exit(None): under -i the interpreter would report it before its prompt.
if code := main():
    sys.exit(code)
