# SPDX-License-Identifier: MIT
"""Many tasks of one job in one call into Go.

Each is still pickled by itself and is a task of its own from then on; only the way over the border
is shared. What is pickled lies here for some microseconds, so nothing may take long meanwhile: the
items are drawn without code of the user's, and before such code runs within a pickle (it may wait
for a task before it) what is there is handed over. The first batches are small, so that the workers
begin at once.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from itertools import islice
from multiprocessing import reduction

from gopool import _core
from gopool._submit import STDLIB_PICKLER, Submitter, return_desk, take_desk
from gopool._worker.channel import MAX_INLINE
from gopool._worker.pickling import Dumper

TYPE_CHECKING = False  # typing is not imported at run time: it costs milliseconds
if TYPE_CHECKING:
    from typing import Any

    from gopool._feeder import Task
    from gopool._submit import Desk

_MOST_TASKS = 64  # in one call; more gain nothing (docs/performance.md)
_ENOUGH = 16_384  # bytes of payload after which no more tasks are added


class Run:
    """The tasks of one job, from their arguments into Go. One thread at a time uses it.

    Args:
        items: the arguments of each task, in the form that the mode wants.
        quick: drawing an item runs no code of the user's; False: one task in each call.
        refuse: called with job, index and error of each task that Go does not take.
    """

    def __init__(
        self,
        submitter: Submitter,
        job: int,
        mode: int,
        function: Any,
        items: Iterator[Any],
        options: int,
        quick: bool,
        refuse: Callable[[int, int, BaseException], None],
    ) -> None:
        self._items = items
        self.index = 0  # of the next task: so many were drawn
        self.error: BaseException | None = None  # why the task before that is not on its way
        self._arguments: Any = None  # and its arguments
        self._submitter = submitter
        self._job = job
        self._mode = mode
        self._function = function
        self._options = options
        # A pickler of the user's own is code of the user's.
        ours = reduction.ForkingPickler is STDLIB_PICKLER
        self._most = _MOST_TASKS if quick and ours else 1
        self._refuse = refuse
        self._size = 1  # tasks of the next batch
        self._number = 0  # of the function
        self._desk: Desk
        self._pickled = 0  # tasks whose pickles lie in the desk's Dumper
        self._load = 0
        self._handing_over = False  # or was interrupted while it did

    def submit(self, most: int = _MOST_TASKS) -> tuple[int, bool]:
        """Pickle the next tasks, up to so many, and hand them over in order.

        Where one of them can't be handed over it is the last, and `error` and failure() tell of it:
        whatever pickling raised, or NoDescriptor and OSError as Submitter.submit says.

        Returns:
            bytes of payload that are unsettled now, and whether there may be more items.

        Raises:
            what interrupts it: nobody can go on with this job then.
        """
        native = self._submitter.native
        self._desk = desk = take_desk(native)
        wanted = min(self._size, most)
        try:
            more = self._pickle(desk.dumper, wanted)
            desk.dumper.before_user_code = None
            desk.dumper.clear()
        except BaseException:
            desk.dumper = Dumper()  # the other one may hold half a pickle
            return_desk(native, desk)  # not where this was interrupted: it holds that still
            raise
        return_desk(native, desk)
        return self._load, more

    def failure(self) -> tuple[BaseException, Task]:
        """Why the last task is not on its way, and the task; both are forgotten here."""
        error, arguments = self.error, self._arguments
        self.error = self._arguments = None
        assert error is not None
        return error, self._task(self.index - 1, arguments)

    def rest(self, most: int | None = None) -> Iterator[Task]:
        """The tasks that were not drawn, or so many of them, for whoever submits one by one."""
        for arguments in islice(self._items, most):
            self.index += 1
            yield self._task(self.index - 1, arguments)

    def _task(self, index: int, arguments: Any) -> Task:
        return self._job, index, self._mode, self._function, arguments, self._options

    def _pickle(self, dumper: Dumper, wanted: int) -> bool:
        """Draw, pickle and hand over up to so many tasks; whether there may be more."""
        function = self._function
        try:
            self._number = number = self._submitter.number_of(function)
        except Exception as error:  # the pool was terminated meanwhile
            return self._fail_next(error)
        dump, forget = dumper.pickler()
        chunks, buffers = dumper.chunks, dumper.buffers
        dumper.plain, dumper.before_user_code = True, self._hand_over
        drawn = size = self._pickled = 0
        self._size = min(2 * self._size, self._most)
        for arguments in islice(self._items, wanted):
            drawn += 1
            try:
                dump(arguments if number else (function, arguments))
            except BaseException as error:
                if self._handing_over:
                    raise
                self._hand_over()
                self._fail(arguments, error)
                self._desk.dumper = Dumper()
                return True
            forget()
            pickled = self._pickled = self._pickled + 1
            if len(chunks) != pickled or buffers or not dumper.plain:
                self._hand_over_apart(dumper, arguments)
                return True
            size += len(chunks[-1])
            if size >= _ENOUGH:
                if size > MAX_INLINE:
                    self._hand_over_apart(dumper, arguments)
                    return True
                break
        self._hand_over()
        return drawn == wanted or size >= _ENOUGH

    def _hand_over(self) -> None:
        """Hand over what is pickled; within a pickle too, before code of the user's runs."""
        count = self._pickled
        if not count:
            return
        self._handing_over = True
        desk = self._desk
        chunks = desk.dumper.chunks
        pickles = chunks[:count]
        data = b"".join((array("I", map(len, pickles)).tobytes(), *pickles))
        desk.memory[: len(data)] = data
        load = self._submitter.native.SubmitMany(
            self._submitter.pool,
            desk.handle,
            count,
            self._job,
            self.index,
            self._mode,
            self._number,
            self._options,
        )
        del chunks[:count]
        self._pickled = 0
        self._took(count, load)
        self._handing_over = False

    def _hand_over_apart(self, dumper: Dumper, arguments: Any) -> None:
        """Hand over what is pickled, the last task by itself: it is large, or its pickle has run
        code of the user's, so that the next ones are looked at anew.
        """
        if not dumper.plain:
            self._size = 1
            self._submitter.stop_sharing(self._job)  # what was sent may have been changed since
        self._pickled -= 1
        self._hand_over()
        chunks = dumper.all_chunks()
        if len(chunks) == 1 and len(chunks[0]) <= MAX_INLINE:
            self._pickled = 1
            self._hand_over()
            return
        where = self._job, self.index, self._mode, self._number, self._options
        try:
            self._took(1, self._submitter.submit_region(chunks, dumper.plain, *where))
        except BaseException as error:
            self._fail(arguments, error)

    def _fail_next(self, error: BaseException) -> bool:
        for arguments in islice(self._items, 1):
            self._fail(arguments, error)
            return True
        return False

    def _took(self, count: int, load: int) -> None:
        """Note what Go said of so many tasks."""
        first = self.index
        self.index += count
        self._load = max(load, 0)
        if load < 0:
            for index in range(first, self.index):
                self._refuse(self._job, index, _core.exception_for(load))

    def _fail(self, arguments: Any, error: BaseException) -> None:
        self.index += 1
        self._arguments, self.error = arguments, error
