from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import timedelta
from types import TracebackType
from typing import Literal, Union, final

from typing_extensions import Self, TypeAlias

Duration: TypeAlias = Union[float, timedelta]

__version__: str

class Error(Exception): ...

@final
class Heartbeat:
    def __new__(
        cls,
        *,
        file: str | os.PathLike[str] | Literal[False] | None = None,
        file_mode: int | None = None,
        redis: str | None = None,
        cluster: str | None = None,
        worker: str | None = None,
        queues: Iterable[str] | None = None,
        version: str | None = None,
        interval: Duration | None = None,
        promise: Duration | None = None,
        loop_budget: Duration | None = None,
        start_deadline: Duration | None = None,
        drain_deadline: Duration | None = None,
        endpoint: str | None = None,
    ) -> Self: ...
    @property
    def status(self) -> Literal["starting", "idle", "busy", "draining", "stopped"]: ...
    @property
    def endpoint_address(self) -> tuple[str, int] | None: ...
    @property
    def last_error(self) -> str | None: ...
    @property
    def file_failure(self) -> str | None: ...
    def pulse(self) -> None: ...
    def pulse_within(self, budget: Duration) -> None: ...
    def task(self, name: str, deadline: Duration | None = None) -> Task: ...
    def ready(self) -> None: ...
    def drain(self, deadline: Duration | None = None) -> None: ...
    def stop(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None, /
    ) -> None: ...

@final
class Task:
    def done(self) -> None: ...
    def fail(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None, /
    ) -> None: ...
