# SPDX-License-Identifier: MIT
"""A gate holds up tasks until the measurement opens it, whatever library runs them.

It is a named pipe: opening one to read waits until somebody opens it to write. So it needs no
object of the library's own and nothing that workers would inherit. Twin: `wait_at` in `tasks`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory


class Gate:
    """Attributes: path, which tasks are given."""

    def __init__(self, folder: str):
        self.path = os.path.join(folder, "gate")
        os.mkfifo(self.path)

    def open(self) -> None:
        """Let all tasks pass that wait now or will come."""
        # To read as well: this end then waits for nobody.
        end = os.open(self.path, os.O_RDWR)
        # Whoever comes from now on finds no gate, whoever came before reads until `end` is closed.
        os.unlink(self.path)
        os.close(end)


@contextmanager
def gate() -> Iterator[Gate]:
    """A closed gate in a folder of its own."""
    with TemporaryDirectory(prefix="benchmark-") as folder:
        yield Gate(folder)
