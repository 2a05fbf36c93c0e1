# SPDX-License-Identifier: MIT
"""Every test of CPython's multiprocessing suite that may be skipped, and why.

A skip that no entry allows fails the run, whoever made it. STDLIB lists the skips that plain
python makes on Linux, versions 3.10 to 3.13, so that none is added unseen; GOPOOL lists the tests
that the harness itself leaves out, each about a private part that gopool replaces and names.
"""

import re
from dataclasses import dataclass

ALL_METHODS = ("fork", "spawn", "forkserver")
GOPOOL_WAYS = ("install", "import")


@dataclass(frozen=True)
class Skip:
    """One rule: which tests may be skipped, with which words, under which start methods.

    `methods` are start methods; `ways` are plain (without gopool), install (way 3) and import (way
    2). `test` is a regular expression for all of `Class.method`, `reason` one for all of the reason
    that unittest gives (in GOPOOL also the reason that is given, so plain words); `why` says it for
    the reader.
    """

    test: str
    reason: str
    why: str
    methods: tuple[str, ...] = ALL_METHODS
    ways: tuple[str, ...] = ("plain", *GOPOOL_WAYS)

    def applies(self, method: str, way: str) -> bool:
        """Return whether this rule is about runs under `method` with gopool reached by `way`."""
        return method in self.methods and way in self.ways

    def allows(self, test: str, reason: str, method: str, way: str) -> bool:
        """Return whether this rule allows `test` to be skipped for `reason` in such a run."""
        return (
            self.applies(method, way)
            and re.fullmatch(self.test, test) is not None
            and re.fullmatch(self.reason, reason) is not None
        )


STDLIB = (
    Skip(
        r"WithThreadsTestProcess\.test_(child_fd_inflation|close|current|daemon_argument"
        r"|forkserver_sigint|forkserver_sigkill|kill|many_processes|parent_process"
        r"|parent_process_attributes|process_mainthread_native_id|sentinel|set_executable"
        r"|terminate|wait_for_threads|interrupt)",
        r"test not appropriate for threads",
        "multiprocessing.dummy.Process is a thread: no pid, sentinel, exit code or signal",
    ),
    Skip(
        r"WithThreadsTestConnection\.test_(fd_transfer|large_fd_transfer|missing_fd_transfer)",
        r"only makes sense with processes",
        "threads share their descriptors, there is nothing to send",
    ),
    Skip(
        r"WithThreads(TestConnection\.test_sendbytes|TestPool\.test_map_unplicklable"
        r"|TestSemaphore\.test_timeout)",
        r"test not appropriate for threads",
        "nothing is pickled between threads, and threading.Semaphore takes other arguments",
    ),
    Skip(
        r"With(Threads|Manager)TestQueue\.test_queue_feeder_"
        r"(donot_stop_onexc|on_queue_feeder_error)",
        r"test not appropriate for (threads|manager)",
        "only multiprocessing.Queue has a feeder thread",
    ),
    Skip(
        r"WithManager(TestBarrier\.test_thousand|TestSemaphore\.test_timeout)",
        r"test not appropriate for manager",
        "too slow through proxies, whose acquire() takes other arguments besides",
    ),
    Skip(
        r"WithManagerTestPool\.test_(imap_handle_iterable_exception"
        r"|imap_unordered_handle_iterable_exception|map_handle_iterable_exception)",
        r"test not appropriate for manager",
        "the failing generator cannot be pickled to the manager's server",
    ),
    Skip(
        r"WithManagerTestPool\.test_(enter|resource_warning)",
        r"test not applicable to manager",
        "the manager's server owns the pool, the proxy has neither state nor warning",
    ),
    Skip(
        r"WithProcessesTestProcess\.test_child_fd_inflation",
        r"test not appropriate for fork",
        "a forked child inherits every descriptor by design",
        ("fork",),
    ),
    Skip(
        r"WithProcessesTestProcess\.test_forkserver_(sigint|sigkill)",
        r"test not appropriate for (fork|spawn)",
        "there is no fork server under the other start methods",
        ("fork", "spawn"),
    ),
    Skip(
        r"TestStartMethod\.test_preload_resources",
        r"test only relevant for 'forkserver' method",
        "only the fork server preloads modules",
        ("fork", "spawn"),
    ),
    Skip(
        r"TestInternalDecorators\.test_only_run_in_spawn_testsuite",
        r"only run in test_multiprocessing_spawn\.",
        "checks the suite's own decorator, once",
        ("fork", "forkserver"),
    ),
    Skip(
        r"(MiscTestCase\.test_spawn_sys_executable_none_allows_import"
        r"|TestStartMethod\.test_mixed_startmethod"
        r"|TestNamedResource\.test_global_named_resource_spawn)",
        r"start_method='(fork|forkserver)', not 'spawn'; .*",
        "about spawn alone, so run once",
        ("fork", "forkserver"),
    ),
    Skip(
        r"TestInvalidFamily\.test_invalid_family_win32",
        r"skipped on non-Windows platforms",
        "about Windows",
    ),
)

GOPOOL = (
    Skip(
        r"_TestImportStar\.test_import",
        "lists the files of the package",
        "it imports a module for each file in the folder of multiprocessing, popen_spawn_win32.py "
        "by name; gopool's folder has its own private files. tests/api/test_namespace.py compares "
        "the public names of every module instead",
        ways=("import",),
    ),
)


def is_allowed(test: str, reason: str, method: str, way: str) -> bool:
    """Return whether some rule allows `test` to be skipped for `reason` in such a run."""
    rules = STDLIB if way == "plain" else STDLIB + GOPOOL
    return any(rule.allows(test, reason, method, way) for rule in rules)
