# SPDX-License-Identifier: MIT
"""multiprocessing.managers, with a SyncManager whose server and pools gopool supervises.

Every other name, BaseManager and the proxies included, is the stdlib's own object.
"""

from __future__ import annotations

import functools
from multiprocessing import managers as _twin

from gopool._mirror import mirror
from gopool.context import BaseContext, _default_context
from gopool.pool import Pool

TYPE_CHECKING = False  # see gopool/context.py
if TYPE_CHECKING:
    from multiprocessing.managers import BaseManager as BaseManager
    from multiprocessing.managers import BaseProxy as BaseProxy
    from multiprocessing.managers import DictProxy as DictProxy
    from multiprocessing.managers import ListProxy as ListProxy
    from multiprocessing.managers import Namespace as Namespace
    from multiprocessing.managers import RemoteError as RemoteError
    from multiprocessing.managers import Server as Server
    from multiprocessing.managers import SharedMemoryManager as SharedMemoryManager
    from multiprocessing.managers import SharedMemoryServer as SharedMemoryServer
    from multiprocessing.managers import Token as Token
    from multiprocessing.managers import ValueProxy as ValueProxy
    from typing import Any

    __all__ = ["BaseManager", "BaseProxy", "SharedMemoryManager", "SyncManager", "Token"]

# Gives the names above at run time, and __all__: which of them exist depends on the platform.
mirror(__name__, _twin)

_PoolProxy: Any = _twin.PoolProxy  # type: ignore[attr-defined]  # left out of the stubs


class SyncManager(_twin.SyncManager):
    """multiprocessing.managers.SyncManager on gopool's contexts.

    Without `ctx` the server process is started by gopool's default context, and Pool() makes a
    gopool.pool.Pool in the server.
    """

    def __init__(
        self,
        address: Any = None,
        authkey: bytes | None = None,
        serializer: str = "pickle",
        ctx: BaseContext | None = None,
        **options: Any,
    ) -> None:
        """Take the stdlib's arguments; without `ctx` gopool's default context is used."""
        context = ctx or _default_context.get_context()
        super().__init__(address, authkey, serializer, context, **options)


# For inspect.signature: the keyword-only parameters differ between interpreters.
functools.update_wrapper(SyncManager.__init__, _twin.SyncManager.__init__, assigned=())

# Spawned servers receive the registry and look Pool up by its name, so it is the class itself.
SyncManager.register("Pool", Pool, _PoolProxy)
