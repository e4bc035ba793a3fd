"""Django-Q2's sentinel, the process that guards the others, with a heartbeat.

Nothing of Django-Q2's work is done here: every method marks, and leaves the rest to the one it overrides. The marks are made where the
work goes through anyway: each turn of the guard's loop asks for `status()`, workers and the monitor take from their queues, workers put
what they have done into one, and the pusher fetches from the broker.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from django_q import cluster

from .slot import Slot
from .watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable


def install() -> None:
    """From now on a cluster of this process has a sentinel that beats."""
    cluster.Sentinel = Sentinel


class Sentinel(cluster.Sentinel):
    """In the place of the class that it is made from."""

    # Until it starts, it watches nothing.
    _watch: Watch | None = None
    # In a child that it has forked, the child's own.
    _slot: Slot | None = None

    def start(self) -> None:
        self._mark_what_children_do()
        self._watch = Watch(self)
        self._watch.begin()
        super().start()
        # Only after an orderly end: after an exception the record that stays behind tells more than none.
        self._watch.end()

    def status(self) -> Any:
        if self._watch:
            self._watch.pulse()
        return super().status()

    def guard(self) -> None:
        if self._watch:
            self._watch.guards()
        super().guard()

    def stop(self) -> None:
        if self._watch:
            self._watch.drains()
        super().stop()

    def spawn_process(self, target: Callable[..., object], *args: Any) -> Any:
        self._slot = slot = Slot()
        process = super().spawn_process(target, *args)
        # A child never comes here.
        self._slot = None
        process.heartbeat = slot
        if self._watch and process in self.pool:
            self._watch.knows(process)
        return process

    def _mark_what_children_do(self) -> None:
        """Before the fork; the sentinel itself calls none of these."""
        self.task_queue.get = self._taking(self.task_queue.get)
        self.result_queue.get = self._taking(self.result_queue.get)
        self.result_queue.put = self._putting(self.result_queue.put)
        self.broker.dequeue = self._fetching(self.broker.dequeue)

    def _taking(self, get: Callable[..., Any]) -> Callable[..., Any]:
        def take(*args: Any, **kwargs: Any) -> Any:
            if self._slot:
                self._slot.end()
                self._slot.present()
            task = get(*args, **kwargs)
            # At the end of its work it gets a word, and no task.
            if self._slot and isinstance(task, dict):
                self._slot.begin(name_of(task.get("func")))
            return task

        return take

    def _putting(self, put: Callable[..., None]) -> Callable[..., None]:
        def give(task: Any, *args: Any, **kwargs: Any) -> None:
            if self._slot and isinstance(task, dict):
                self._slot.end(failed=not task.get("success"))
            put(task, *args, **kwargs)

        return give

    def _fetching(self, dequeue: Callable[[], Any]) -> Callable[[], Any]:
        def fetch() -> Any:
            if self._slot:
                self._slot.begin()
            failed = True
            try:
                tasks = dequeue()
                failed = False
            finally:
                if self._slot:
                    self._slot.end(failed)
            return tasks

        return fetch


def name_of(function: object) -> str:
    """The path of a task's function, without arguments that were bound to it. A worker waits for this, so it cannot fail."""
    while isinstance(function, partial):
        function = function.func
    if isinstance(function, str):
        return function
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{getattr(named, '__module__', '')}.{getattr(named, '__qualname__', '')}"
