"""A heartbeat for a worker on asyncio: the event loop is what pulses, and each awaited unit of work can be a task."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import timedelta
from types import TracebackType
from typing import Optional, TypeVar, Union, final

from ._heartbeat import Heartbeat

__all__ = ["pulse", "task"]

T = TypeVar("T")

# A pulse that the loop was just late for is no alarm.
PULSES_IN_A_BUDGET = 5


@final
class pulse:
    """Pulses from the running event loop while its block runs: where something blocks the loop for longer than `budget`
    (seconds or a `timedelta`), the worker is `wedged`, and it is live again with the loop's next turn.

    ```python
    async with heartbeat.aio.pulse(beating, budget=5):
        await work()
    ```

    It is a timer of the loop and no asyncio task: nothing has to be cancelled, and a loop that is closed simply pulses no
    more. After the block, the loop is the worker's own to mark: by the last pulse it has `budget` for it, or for its drain
    and its stop.
    """

    def __init__(self, heartbeat: Heartbeat, budget: Union[float, timedelta] = 10.0) -> None:
        self._heartbeat = heartbeat
        self._budget = budget.total_seconds() if isinstance(budget, timedelta) else float(budget)
        if not self._budget > 0:
            raise ValueError(f"the budget of an event loop is more than nothing, not {budget!r}")
        self._timer: Optional[asyncio.TimerHandle] = None

    async def __aenter__(self) -> pulse:
        if self._timer is not None:
            raise RuntimeError("it pulses already")
        self._turn(asyncio.get_running_loop())
        return self

    async def __aexit__(
        self,
        kind: Optional[type[BaseException]],
        value: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._heartbeat.pulse_within(self._budget)

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(self._budget / PULSES_IN_A_BUDGET, self._turn, loop)
        self._heartbeat.pulse_within(self._budget)


async def task(heartbeat: Heartbeat, name: str, work: Awaitable[T], deadline: Union[float, timedelta, None] = None) -> T:
    """Awaits `work` as one task of the heartbeat, and gives its result. An exception, a cancellation too, is a failure.

    ```python
    await heartbeat.aio.task(beating, "resize", resize(picture), deadline=60)
    ```
    """
    with heartbeat.task(name, deadline):
        return await work
