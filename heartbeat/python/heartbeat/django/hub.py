"""Where a site runs on gevent, all its greenlets are on one thread, which must not wait for an answer."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

Given = TypeVar("Given")

# How many questions wait at once, each on a thread; others wait for one of these.
WAITING = 10

_pools: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()


def off_the_hub(work: Callable[..., Given], *arguments: Any, **named: Any) -> Given:
    """Does it, and lets other greenlets run meanwhile; as it is, where threads are threads."""
    # It has been imported by whoever has put it in the place of threads.
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None or not monkey.is_module_patched("threading"):
        return work(*arguments, **named)
    import gevent
    from gevent.threadpool import ThreadPool

    hub = gevent.get_hub()
    pool = _pools.get(hub)
    if pool is None:
        # Of its own: names are looked up on the hub's.
        pool = _pools[hub] = ThreadPool(WAITING, hub=hub)

    def outcome() -> tuple[Given | None, Exception | None]:
        try:
            return work(*arguments, **named), None
        except Exception as error:
            # gevent would print it.
            return None, error

    given, error = pool.apply(outcome)
    if error:
        raise error
    return given  # type: ignore[no-any-return]
