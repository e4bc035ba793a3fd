"""What the sentinel's process knows of its cluster, told to the heartbeat twice a second by a thread of its own.

It takes no lock that another process may hold, and does nothing that can block, so it goes on where the sentinel's loop does not.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from django_q.conf import Conf, logger

import heartbeat

from .._outside import frames_from, is_stopped
from . import settings
from .slot import State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .slot import Slot

# Seconds between two looks.
EVERY = 0.5
# A look that comes late counts for no more: then this process could not run, nor need the others have run.
LATE = 1.0
# Seconds for which a process is stopped, before that counts.
STOPPED = 3.0
# Seconds for which nobody takes what is in a queue, before that counts; two cycles of the guard, which replaces the dead, come on top.
STALLED = 15.0
# Seconds in which a broker answers, and in which one result is saved. Amazon's answers after 20 s where there is nothing.
ANSWERED = 30.0
# Looks at which the loop is found waiting outside for the same thing, before that counts.
BLOCKED = 3
# Seconds between two tries to start a heartbeat, where another process holds the file.
RETRY = 5.0

# Where Django-Q2's loop waits for what is not its own: the broker, the cache, the database. `None`: anywhere in the module.
OUTSIDE = {"django_q.status": "save", "django_q.scheduler": None}
OUTSIDE_PACKAGES = ("django_q.brokers.", "django.db.", "django.core.cache.")


class Watch:
    """Owns the heartbeat. `begin`, `pulse`, `guards`, `drains`, `knows` and `end` are the sentinel's to call; the thread does the rest."""

    def __init__(self, sentinel: Any) -> None:
        self._sentinel = sentinel
        self._cycle = float(Conf.GUARD_CYCLE)
        self._heartbeat: heartbeat.Heartbeat | None = None
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._ended = threading.Event()
        self._task_deadline: float | None = None
        self._guards = self._drains = False
        self._turns = 0
        self._parent = os.getppid()
        self._main = threading.get_ident()
        self._refusal: str | None = None
        self._next_try = 0.0
        # What was found at the looks before.
        self._looked = time.monotonic()
        self._workers: dict[Any, Worker] = {}
        self._stopped: dict[int, float] = {}
        self._faults: dict[str, heartbeat.Task] = {}
        self._blocked = Repeated()
        self._tasks, self._results = Stall(), Stall()
        self._pusher_fails = False
        self._lost = False

    def begin(self) -> None:
        self._try_to_start()
        self._thread.start()

    def pulse(self) -> None:
        self._turns += 1
        # The watching thread may end it at any moment.
        beating = self._heartbeat
        if beating:
            beating.pulse()

    def guards(self) -> None:
        self._guards = True
        beating = self._heartbeat
        if beating:
            beating.ready()

    def drains(self) -> None:
        self._drains = True
        beating = self._heartbeat
        if beating:
            beating.drain()

    def knows(self, process: Any) -> None:
        """A worker, from its start: it may do its work and end between two looks."""
        self._workers[process] = Worker()

    def end(self) -> None:
        self._ended.set()
        self._thread.join(2 * RETRY)
        self._stop()

    def _try_to_start(self) -> None:
        """A heartbeat that cannot start keeps no cluster from its work. The file of one that ends may be free soon."""
        self._next_try = time.monotonic() + RETRY
        try:
            self._task_deadline = settings.task_deadline()
            started = heartbeat.Heartbeat(**settings.for_heartbeat())
        except (heartbeat.Error, TypeError, ValueError) as error:
            if str(error) != self._refusal:
                self._refusal = str(error)
                logger.error("This cluster has no heartbeat: %s", error)
            return
        if self._refusal:
            self._refusal = None
            logger.info("This cluster has a heartbeat now.")
        started.pulse()
        self._heartbeat = started
        # Said before there was anybody to say it to.
        if self._drains:
            started.drain()
        elif self._guards:
            started.ready()

    def _stop(self) -> None:
        ending, self._heartbeat = self._heartbeat, None
        if ending:
            try:
                ending.stop()
            except heartbeat.Error as error:
                logger.error("%s", error)

    def _run(self) -> None:
        told = None
        while not self._ended.wait(EVERY):
            try:
                self._look()
            except Exception as error:
                # It goes on: what it can tell no more of is one thing of many. Told once.
                if repr(error) != told:
                    told = repr(error)
                    logger.exception("The heartbeat's look at the cluster failed")

    def _look(self) -> None:
        now = time.monotonic()
        passed, self._looked = min(now - self._looked, LATE), now
        if os.getppid() != self._parent:
            self._orphaned()
        elif self._heartbeat:
            workers, monitor, pusher = self._states()
            blocked = self._is_blocked()
            self._tell_tasks(self._heartbeat, workers)
            faults = {*self._find_stopped(passed)}
            if not (blocked or self._drains):
                faults.update(self._find_stalled(passed, workers, monitor, pusher))
            self._tell_faults(self._heartbeat, faults)
            self._tell_broker(self._heartbeat, blocked or self._is_lost(now, monitor, pusher))
        elif now >= self._next_try:
            self._try_to_start()

    def _orphaned(self) -> None:
        """The process that was started is no more, and with it the way to stop this cluster in order. A successor must have the file."""
        logger.critical("The cluster's main process is gone, so nobody can stop this sentinel in order: its heartbeat ends")
        self._ended.set()
        self._stop()

    def _states(self) -> tuple[dict[Any, State], State | None, State | None]:
        """What those say of themselves that say something."""
        sentinel = self._sentinel
        workers = {process: state for process in list(sentinel.pool) if (state := state_of(process))}
        return workers, state_of(sentinel.monitor), state_of(sentinel.pusher)

    # --- the tasks ------------------------------------------------------------------------------------------------

    def _tell_tasks(self, beats: heartbeat.Heartbeat, workers: dict[Any, State]) -> None:
        for process, worker in list(self._workers.items()):
            if process not in self._sentinel.pool:
                del self._workers[process]
                worker.ended(beats, state_of(process))
            elif process in workers:
                worker.tell(beats, workers[process], self._left(process), self._task_deadline)

    def _left(self, process: Any) -> float | None:
        """A tenth more than what Django-Q2 leaves the task before it kills the worker: each turn of its loop takes more than its cycle."""
        left = timer_of(process)
        return left * 1.1 + 2 * self._cycle + 1 if left > 0 else None

    # --- what each process does not say of itself --------------------------------------------------------------------

    def _find_stopped(self, passed: float) -> Iterator[str]:
        """Those that have been stopped for a while, which the sentinel cannot see: they live."""
        seen = {}
        for role, process in self._processes():
            if is_stopped(process.pid):
                seen[process.pid] = self._stopped.get(process.pid, 0.0) + passed
                if seen[process.pid] >= STOPPED:
                    state = state_of(process)
                    doing = f" in {state.name}" if state and state.inside and state.name else ""
                    yield f"{role} {process.pid} is stopped{doing}"
        self._stopped = seen

    def _processes(self) -> Iterator[tuple[str, Any]]:
        sentinel = self._sentinel
        named = [("pusher", sentinel.pusher), ("monitor", sentinel.monitor), *(("worker", p) for p in list(sentinel.pool))]
        return ((role, process) for role, process in named if process is not None and process.pid)

    def _find_stalled(self, passed: float, workers: dict[Any, State], monitor: State | None, pusher: State | None) -> Iterator[str]:
        """A process that was killed while it took from a queue has left that queue locked for its successors, for good."""
        sentinel, limit = self._sentinel, STALLED + 2 * self._cycle
        if workers and pusher and not pusher.failed:
            # A pusher that does not come back to the broker has a task in hand that it cannot hand on.
            more = has_more(sentinel.task_queue)
            idle = not any(state.inside for state in workers.values())
            progress = (None if more else pusher.begun, *((process.pid, state.begun) for process, state in workers.items()))
            if self._tasks.lasts(passed, idle and (more or not pusher.inside), progress) >= limit:
                yield "workers take no tasks"
        if monitor:
            waits = not monitor.inside and has_more(sentinel.result_queue)
            if self._results.lasts(passed, waits, (sentinel.monitor.pid, monitor.begun)) >= limit:
                yield "monitor takes no results"

    def _tell_faults(self, beats: heartbeat.Heartbeat, faults: set[str]) -> None:
        """Each is a task that was due at once, so that its name is what people read."""
        for fault in self._faults.keys() - faults:
            self._faults.pop(fault).fail()
            logger.info("Heartbeat: no more: %s", fault)
        for fault in faults - self._faults.keys():
            self._faults[fault] = beats.task(fault, 0)
            logger.critical("Heartbeat: %s", fault)

    # --- the broker -------------------------------------------------------------------------------------------------

    def _is_lost(self, now: float, monitor: State | None, pusher: State | None) -> bool:
        if pusher and pusher.failed:
            self._pusher_fails = True
        elif pusher and pusher.done:
            self._pusher_fails = False
        # A broker that is polled lets its pusher sleep.
        waits = [(pusher, self._sentinel.pusher, ANSWERED + float(Conf.POLL)), (monitor, self._sentinel.monitor, ANSWERED)]
        return self._pusher_fails or any(
            state and state.inside and now - state.since > limit and process.pid not in self._stopped for state, process, limit in waits
        )

    def _tell_broker(self, beats: heartbeat.Heartbeat, lost: bool) -> None:
        if lost != self._lost:
            self._lost = lost
            (beats.broker_lost if lost else beats.broker_back)()

    def _is_blocked(self) -> bool:
        """Whether the sentinel's loop waits for the broker, the cache or the database."""
        frame = sys._current_frames().get(self._main)
        return self._blocked.times(self._turns if is_outside(frame) else None) >= BLOCKED


class Worker:
    """What was told of a worker process."""

    def __init__(self) -> None:
        self._state = State()
        self._task: heartbeat.Task | None = None
        self._has_deadline = False

    def tell(self, beats: heartbeat.Heartbeat, state: State, left: float | None, otherwise: float | None) -> None:
        """`left` is when the task is overdue by Django-Q2's own clock, where it has one; that starts when the function is loaded."""
        self._count(beats, state)
        if not state.inside:
            return
        if left is not None and not self._has_deadline:
            self._has_deadline = True
            if self._task:
                self._task.due_within(left)
            else:
                self._task = beats.task(state.name, left)
        elif self._task is None and time.monotonic() - state.since >= EVERY:
            self._task = beats.task(state.name, otherwise)

    def ended(self, beats: heartbeat.Heartbeat, state: State | None) -> None:
        """The process is no more; what it had begun and not ended has failed."""
        if state:
            self._count(beats, state)
        if self._task:
            self._task.fail()

    def _count(self, beats: heartbeat.Heartbeat, state: State) -> None:
        """Ends what has ended since the last look, and counts what came and went between two looks."""
        before, self._state = self._state, state
        done, failed = state.done - before.done, state.failed - before.failed
        if self._task and done + failed:
            task, self._task = self._task, None
            self._has_deadline = False
            if failed:
                failed -= 1
                task.fail()
            else:
                done -= 1
                task.done()
        for _ in range(done):
            beats.task(state.name).done()
        for _ in range(failed):
            beats.task(state.name).fail()


class Repeated:
    """How often the same was found in a row; `None` is nothing found."""

    def __init__(self) -> None:
        self._last: object = None
        self._times = 0

    def times(self, found: object) -> int:
        self._times = 0 if found is None else self._times + 1 if found == self._last else 1
        self._last = found
        return self._times


class Stall:
    """For how many seconds something waits without any progress."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._progress: object = None

    def lasts(self, passed: float, waits: bool, progress: object) -> float:
        self._seconds = self._seconds + passed if waits and progress == self._progress else 0.0
        self._progress = progress
        return self._seconds


def state_of(process: Any) -> State | None:
    slot: Slot | None = getattr(process, "heartbeat", None)
    return slot.read() if slot else None


def timer_of(process: Any) -> float:
    """The seconds that Django-Q2 still gives the worker's task; below 0 where it counts none. Read past its lock, which a stopped worker may hold."""
    return float(process.timer.get_obj().value)


def has_more(queue: Any) -> bool:
    """Whether something is in the queue's pipe. Its own counter is wrong once a process was killed at the wrong moment."""
    return bool(queue._reader.poll())


def is_outside(frame: Any) -> bool:
    for one in frames_from(frame):
        module = one.f_globals.get("__name__", "")
        if module.startswith(OUTSIDE_PACKAGES):
            return True
        if module in OUTSIDE and OUTSIDE[module] in (None, one.f_code.co_name):
            return True
    return False
