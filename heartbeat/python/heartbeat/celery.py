"""A heartbeat for Celery's workers and its scheduler.

A worker: ``app.steps["worker"].add(LivenessProbe)``. The scheduler: ``BeatProbe.install(app)``. Both read the app's
configuration (``heartbeat_file``, …), then the environment (``HEARTBEAT_FILE``, …).

Nothing here talks to the broker or writes a file: that is the publisher's, whose thread needs no interpreter.
"""

from __future__ import annotations

import os
import re
import socket
import sys
import threading
import time
from datetime import timedelta
from functools import partial
from typing import Any, Callable, Iterable, Literal

from billiard.process import current_process
from celery import bootsteps, signals
from celery.exceptions import Ignore, ImproperlyConfigured, Retry
from celery.utils.log import get_logger
from celery.utils.nodenames import node_format
from kombu.exceptions import OperationalError

from . import Error, Heartbeat, Task

__all__ = ["BeatProbe", "LivenessProbe"]

logger = get_logger(__name__)

#: How much longer than its limit a task may take before it is overdue: Celery ends it by itself, and needs a moment for that. Also
#: longer than it takes to see that a loop waits for its broker, so that no end of a task is missed for that. In seconds, as all
#: that follows.
LIMIT_GRACE = 1.2

#: How often a loop pulses, and how often the watch looks; shorter with a short budget.
PERIOD = 0.25

#: When the watch begins to ask what a loop is about. One without a hub may wait for messages for 2 s.
LATE, LATE_WITHOUT_HUB = 0.75, 3.0

#: How long a task has at least, once the loop is back that can tell of its end.
RESUMED = 5.0

#: How long a worker may take until it consumes, where nothing else is set.
START_DEADLINE = 120.0

#: A loop that runs a task itself is as late as that task, so it is not judged until the task has ended.
AS_LONG_AS_IT_TAKES = 90 * 86_400.0

#: The library's own default.
LOOP_BUDGET = 30.0

#: How long a worker that has lost its broker may be about something else than connecting.
ELSEWHERE = 10.0

_now = time.monotonic


class LivenessProbe(bootsteps.StartStopStep):
    """The worker's bootstep. One worker has one; pool children have none."""

    requires = ("celery.worker.components:Timer",)

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        self._probe: _Probe | None = None

    def start(self, worker: Any) -> None:
        """Begins to beat. A setting that cannot be stops the worker; a file that cannot be had does not."""
        settings = _Settings(worker.app, worker.hostname)
        deadline = settings.number("heartbeat_start_deadline")
        queues = settings.names("heartbeat_queues")
        if queues is None and not os.environ.get("HEARTBEAT_QUEUES"):
            queues = list(worker.app.amqp.queues.consume_from)
        heartbeat = _begin(
            settings,
            "heartbeat_file",
            cluster=settings.text("heartbeat_cluster"),
            worker=settings.text("heartbeat_worker") or os.environ.get("HEARTBEAT_WORKER") or worker.hostname,
            queues=queues,
            start_deadline=START_DEADLINE if deadline is None else deadline,
            drain_deadline=settings.number("heartbeat_drain_deadline"),
            endpoint=settings.text("heartbeat_endpoint"),
        )
        self._probe = probe = _Probe(heartbeat, settings, worker)
        worker.consumer.loop = partial(probe.consume, worker.consumer.loop)
        worker.pool.apply_async = partial(probe.apply, worker.pool.apply_async)
        # After all other steps have stopped, and the pool's tasks with them.
        worker.blueprint.on_stopped = partial(probe.stop, worker.blueprint.on_stopped)
        signals.worker_shutting_down.connect(probe.shutting_down)
        # Since Celery 5.5 the signal comes after that wait.
        if hasattr(worker, "wait_for_soft_shutdown"):
            worker.wait_for_soft_shutdown = partial(probe.soft_shutdown, worker.wait_for_soft_shutdown)

    def close(self, worker: Any) -> None:
        """The worker takes no more work, for whatever reason."""
        if self._probe is not None:
            self._probe.drain()

    def stop(self, worker: Any) -> None:
        """Nothing yet: tasks may still run."""


class _Probe:
    """What ties one worker to its heartbeat.

    Everything but `_watch` runs in the worker's own threads.
    """

    def __init__(self, heartbeat: Heartbeat, settings: _Settings, worker: Any) -> None:
        self.heartbeat = heartbeat
        self.worker = worker
        self.pool = worker.pool
        is_green = bool(getattr(worker.pool, "is_green", False))
        self.watch = _Watch(heartbeat, settings.loop_budget(), self._loop_is_blocked_by_a_task, is_green)
        #: The deadline of tasks that have no limit.
        self.task_deadline = settings.number("heartbeat_task_deadline")
        self.in_children = _is_prefork(worker.pool)
        #: Whether tasks end only while the loop turns: it sees the ends of those in children, and greenlets share its thread, which
        #: sleeps between two tries to connect.
        self.ends_need_the_loop = self.in_children and bool(worker.hub) or is_green
        #: By the task's id: its guard, its deadline from its start, when it started, its name and its child.
        self.running: dict[str, _Running] = {}
        self.suspended = False
        #: By its id: a task that was given to a child which has not accepted it, and its guard where that child is stopped.
        self.waiting: dict[str, _Running | None] = {}
        self.next_look = 0.0
        self.draining = False
        self.timer_entry: Any = None
        self.watch.on_lost = self._suspend
        self.watch.begin()

    # The loop.

    def consume(self, loop: Callable[..., Any], consumer: Any, *arguments: Any) -> Any:
        """Celery's own loop, from a connection that has been made until it is lost or the worker ends."""
        self.watch.follow_this_thread()
        self.watch.late = min(LATE if consumer.hub is not None else LATE_WITHOUT_HUB, self.watch.budget / 2)
        if consumer.hub is not None:
            if self.timer_entry is not None:
                consumer.timer.cancel(self.timer_entry)
            self.timer_entry = consumer.timer.call_repeatedly(self.watch.period, self.turn)
        else:
            # Celery asks for these on each turn of a loop without a hub, whose timer is another thread.
            perform = type(consumer).perform_pending_operations

            def perform_pending_operations() -> None:
                self.turn()
                perform(consumer)

            consumer.perform_pending_operations = perform_pending_operations
        self.turn()
        self.heartbeat.ready()
        try:
            return loop(consumer, *arguments)
        except Exception:
            if consumer.blueprint.state == bootsteps.RUN:
                self.watch.lost()
            raise

    def turn(self) -> None:
        """The loop turns: where it runs tasks, or shares the interpreter with them, they may keep it."""
        _harmlessly(self._turn)

    def _turn(self) -> None:
        self.watch.turn(AS_LONG_AS_IT_TAKES if self.running and not self.in_children else None)
        if self.suspended:
            self._resume()
        if self.running and self.in_children:
            self._forget_the_ended()
        if self.ends_need_the_loop and self.in_children and _now() >= self.next_look:
            self.next_look = _now() + 1.0
            self._look_at_what_waits()

    # The tasks.

    def apply(self, apply_async: Callable[..., Any], target: Any, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Hands a task to the pool, and sees when it starts and how it ends."""
        accepted, task_id = options.get("accept_callback"), options.get("correlation_id")
        if accepted is None or task_id is None:
            return apply_async(target, args, kwargs, **options)
        limits = options.get("timeout"), self.worker.time_limit, options.get("soft_timeout"), self.worker.soft_time_limit
        # Who sends a message may put anything there.
        limit = next((limit for limit in limits if isinstance(limit, (int, float)) and 0 < limit < float("inf")), None)
        deadline = self.task_deadline if limit is None else limit + LIMIT_GRACE
        guard = _Running(str(args[0]) if args else "task", deadline)

        def accept_callback(pid: int, time_accepted: float, *rest: Any, **more: Any) -> Any:
            _harmlessly(self._started, task_id, guard, pid)
            return accepted(pid, time_accepted, *rest, **more)

        def ended(callback: Any, result: Any, *rest: Any, **more: Any) -> Any:
            _harmlessly(self._ended, task_id, guard, _has_failed(result))
            return callback(result, *rest, **more)

        def timed_out(callback: Any, soft: bool, *rest: Any, **more: Any) -> Any:
            if not soft:
                _harmlessly(self._ended, task_id, guard, True)
            return callback(soft, *rest, **more)

        options["accept_callback"] = accept_callback
        for which, wrapped in (("callback", ended), ("error_callback", ended), ("timeout_callback", timed_out)):
            if options.get(which) is not None:
                options[which] = partial(wrapped, options[which])
        if not self.in_children:
            target = partial(self._run, task_id, guard, target)
        # A pool whose slots are all taken keeps its loop until a task ends, but where that is a hub.
        may_keep = not self.worker.hub if self.in_children else self.watch.is_green
        if not may_keep or _native("_thread").get_ident() != self.watch.thread:
            return apply_async(target, args, kwargs, **options)
        self.watch.may_take(AS_LONG_AS_IT_TAKES)
        try:
            return apply_async(target, args, kwargs, **options)
        finally:
            if self.in_children:
                self.watch.may_take(None)

    def _run(self, task_id: str, guard: _Running, target: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """A task in this process. What it raises Celery itself did not foresee, and no pool tells of it."""
        try:
            return target(*args, **kwargs)
        except BaseException:
            _harmlessly(self._ended, task_id, guard, True)
            raise

    def _started(self, task_id: str, guard: _Running, pid: int) -> None:
        guard.since = _now()
        guard.pid = pid if self.in_children else None
        self.running[task_id] = guard
        if not self.suspended:
            guard.begin(self.heartbeat)
        if not self.in_children:
            # It may hold the interpreter from here on, and then no thread could say so.
            self.watch.may_take(AS_LONG_AS_IT_TAKES)

    def _ended(self, task_id: str, guard: _Running, failed: bool) -> None:
        if self.running.get(task_id) is guard:
            del self.running[task_id]
        guard.end(failed)
        if not self.in_children and not self.running:
            self.watch.may_take(None)

    def _forget_the_ended(self) -> None:
        """A task that Celery has forgotten without a word to the pool's callbacks."""
        requests = self.worker.state.requests
        for task_id, guard in list(self.running.items()):
            if task_id in requests:
                guard.missing = 0
            else:
                # Seen twice, because one may be between two of Celery's own lists.
                guard.missing += 1
                if guard.missing > 1:
                    self._ended(task_id, guard, True)

    def _look_at_what_waits(self) -> None:
        """A child that is stopped accepts nothing, so what it has been given since never begins."""
        given = {}
        for request in tuple(self.worker.state.reserved_requests):
            result = None if request.id in self.running or request._apply_result is None else request._apply_result()
            child = getattr(result, "_write_to", None) or getattr(result, "_scheduled_for", None)
            if child is not None:
                given[request.id] = (request.name, child.pid)
        for task_id, (name, pid) in given.items():
            # Not at first sight: a child needs a moment to accept it.
            if task_id in self.waiting and self.waiting[task_id] is None and _is_stopped(pid):
                guard = self.waiting[task_id] = _Running(name, None)
                guard.pid = pid
                guard.begin(self.heartbeat)
            self.waiting.setdefault(task_id, None)
        for task_id in self.waiting.keys() - given.keys():
            guard_or_none = self.waiting.pop(task_id)
            if guard_or_none is not None:
                guard_or_none.put_off()

    def _suspend(self) -> None:
        """While the loop waits for its broker nobody knows which tasks would have ended, so their deadlines wait too.

        They count as done then, and once more when they end: nothing else keeps the publisher from judging them.
        """
        if self.ends_need_the_loop:
            self.suspended = True
            for guard in list(self.running.values()):
                guard.put_off()

    def _resume(self) -> None:
        self.suspended = False
        for guard in list(self.running.values()):
            guard.begin(self.heartbeat)

    def _loop_is_blocked_by_a_task(self, frames: list[Any]) -> bool:
        modules = [str(frame.f_globals.get("__name__")) for frame in frames]
        if "celery.app.trace" in modules:
            return True
        # In a pool that has no slot left.
        innermost = next((module for module in modules if module.partition(".")[0] not in _PLUMBING), "")
        return innermost.startswith(("celery.concurrency.", "billiard.")) and any(frame.f_code is _Probe.apply.__code__ for frame in frames)

    # The end.

    def shutting_down(self, sender: Any = None, how: str = "Warm", **_: Any) -> None:
        if sender == self.worker.hostname:
            self.drain(cold=how == "Cold")

    def soft_shutdown(self, wait: Callable[[], Any]) -> Any:
        self.drain(cold=True)
        return wait()

    def drain(self, cold: bool = False) -> None:
        if self.draining:
            return
        self.draining = True
        soft = self.worker.app.conf.get("worker_soft_shutdown_timeout") or 0
        # Past its soft shutdown, what is left is to end the tasks and to close connections.
        self.heartbeat.drain(soft + ELSEWHERE if cold and soft and self.drain_deadline is None else None)

    @property
    def drain_deadline(self) -> Any:
        return self.worker.app.conf.get("heartbeat_drain_deadline")

    def stop(self, stopped: Callable[[], Any] | None) -> None:
        try:
            if stopped is not None:
                stopped()
        finally:
            self.watch.end()
            signals.worker_shutting_down.disconnect(self.shutting_down)
            _stop(self.heartbeat)


class _Running:
    """One task that the pool has."""

    __slots__ = ("deadline", "missing", "name", "pid", "since", "task", "was_put_off")

    def __init__(self, name: str, deadline: Any) -> None:
        self.name = name
        self.deadline = deadline
        self.since = 0.0
        self.pid: int | None = None
        self.task: Task | None = None
        self.missing = 0
        self.was_put_off = False

    def begin(self, heartbeat: Heartbeat) -> None:
        if self.task is None:
            left = self.deadline
            if left is not None and self.was_put_off:
                left = max(left - (_now() - self.since), RESUMED)
            self.task = task = heartbeat.task(self.name, left)
            if self.pid is not None:
                task.held_by(self.pid)

    def put_off(self) -> None:
        task, self.task, self.was_put_off = self.task, None, True
        if task is not None:
            task.done()

    def end(self, failed: bool) -> None:
        task, self.task = self.task, None
        if task is not None:
            if failed:
                task.fail()
            else:
                task.done()


class _Watch:
    """Says why a loop is late: because of its broker, of a task that it runs, or of neither, and then it is wedged.

    A thread of its own, because a loop that is blocked inside a socket can say nothing. It marks the loop alive for nobody:
    once the loop's own pulse is late, it looks at what the loop's thread is about. Inside the code that talks to a broker, the
    broker is lost; inside a task, the task's deadline counts; anywhere else, the loop's budget runs out.
    """

    def __init__(
        self, heartbeat: Heartbeat, budget: float, is_task: Callable[[list[Any]], bool], is_green: bool = False
    ) -> None:
        self.heartbeat = heartbeat
        self.budget = budget
        self.is_task = is_task
        self.on_lost: Callable[[], None] = lambda: None
        self.period = min(PERIOD, budget / 8)
        # Until the loop is known: a worker that starts may wait for its broker.
        self.late = min(LATE, budget / 2)
        self.turned = _now()
        self.is_lost = False
        #: Whether the loop's mark allows for more than its budget.
        self.is_stretched = False
        self.is_stuck = False
        self.in_loop = False
        self.elsewhere_since: float | None = None
        self.ended = False
        self.is_green = is_green
        self.greenlet: Any = None
        self.thread = _native("_thread").get_ident()

    def begin(self) -> None:
        _native("_thread").start_new_thread(self._run, ())

    def end(self) -> None:
        self.ended = True

    def follow_this_thread(self) -> None:
        self.thread = _native("_thread").get_ident()
        if self.is_green:
            self.greenlet = sys.modules["greenlet"].getcurrent()

    # By the loop.

    def turn(self, budget: float | None) -> None:
        self.turned = _now()
        self.in_loop = True
        self.is_stuck = False
        self._mark(budget)
        if self.is_lost:
            self.is_lost = False
            self.heartbeat.broker_back()

    def lost(self) -> None:
        """The loop has ended for want of its broker."""
        self.in_loop = False
        self._lose()

    # By whoever runs a task.

    def may_take(self, budget: float | None) -> None:
        if self.in_loop and not self.is_stuck:
            self._mark(budget)

    def _mark(self, budget: float | None) -> None:
        self.is_stretched = budget is not None
        if budget is None:
            self.heartbeat.pulse()
        else:
            self.heartbeat.pulse_within(budget)

    def _lose(self) -> None:
        self.elsewhere_since = None
        if not self.is_lost:
            self.is_lost = True
            self.heartbeat.broker_lost()
            self.on_lost()

    # By the watch's own thread.

    def _run(self) -> None:
        sleep = _native("time").sleep
        while not self.ended:
            sleep(self.period)
            try:
                self.look()
            except Exception:  # Of a stack that changed meanwhile: the next look sees it anew.
                continue

    def look(self) -> None:
        turned = self.turned
        late = _now() - turned
        if late < self.late or self.ended:
            return
        frames = self._frames()
        if not frames:
            return
        if self.is_task(frames):
            self.elsewhere_since = None
            if self.is_lost and self.in_loop and not self.is_green:
                # It had its broker, or it would have no task.
                self.is_lost = False
                self.heartbeat.broker_back()
        elif _waits_for_a_broker(frames):
            if turned == self.turned:
                self._lose()
        elif self.is_lost:
            self._see_elsewhere()
        elif self.in_loop and self.is_stretched and late > self.budget and turned == self.turned:
            # What its mark allows for is a task, and that is not what it is about.
            self.is_stuck, self.is_stretched = True, False
            self.heartbeat.pulse_within(0.001)

    def _see_elsewhere(self) -> None:
        """A worker that has long been about something else than its broker does not wait for it."""
        now = _now()
        if self.elsewhere_since is None:
            self.elsewhere_since = now
        elif now - self.elsewhere_since > max(ELSEWHERE, self.budget):
            self.elsewhere_since = None
            self.is_lost = False
            self.heartbeat.broker_back()

    def _frames(self) -> list[Any]:
        """The frames of the loop's thread, the innermost first; of its greenlet, where that waits."""
        running = _stack(sys._current_frames().get(self.thread))
        if self.greenlet is None or self.is_task(running):
            return running
        return _stack(getattr(self.greenlet, "gr_frame", None)) or running


class BeatProbe:
    """The scheduler's heartbeat: a pulse with each tick, for as long as that says it will sleep."""

    @staticmethod
    def install(app: Any) -> None:
        """Every scheduler that this process, or an embedded one's own, starts for `app` beats."""
        app = getattr(app, "_get_current_object", lambda: app)()
        signals.beat_init.connect(partial(_beat_begins, app), weak=False, dispatch_uid=("heartbeat", id(app)))


def _beat_begins(app: Any, sender: Any = None, **_: Any) -> None:
    if sender.app is app:
        try:
            _beat(app, sender)
        except ImproperlyConfigured as wrong:
            # A signal's receivers may raise what they like, and nobody hears of it.
            raise SystemExit(f"heartbeat: {wrong}") from None


def _beat(app: Any, service: Any) -> None:
    name = f"celerybeat@{socket.gethostname()}"
    settings = _Settings(app, name)
    file = "heartbeat_beat_file"
    if settings.value(file) is None:
        # A worker with `-B` has that file itself.
        file = "" if "Beat" in (current_process().name, threading.current_thread().name) else "heartbeat_file"
    cluster = settings.text("heartbeat_beat_cluster")
    if cluster is None:
        # A cluster counts those who take work, which a scheduler does not.
        cluster = (settings.text("heartbeat_cluster") or os.environ.get("HEARTBEAT_CLUSTER") or "default") + "-beat"
    heartbeat = _begin(settings, file, cluster=cluster, worker=name, queues=[])
    budget = settings.loop_budget()
    watch = _Watch(heartbeat, budget, lambda frames: False)
    scheduler = service.scheduler
    tick, apply_async, sync = scheduler.tick, scheduler.apply_async, service.sync
    unsent = False

    def sent(*arguments: Any, **options: Any) -> Any:
        nonlocal unsent
        try:
            result = apply_async(*arguments, **options)
        except Exception as error:
            # The scheduler logs it and goes on.
            unsent = _is_of_the_broker(error)
            raise
        unsent = False
        return result

    def ticked(*arguments: Any, **options: Any) -> Any:
        if not unsent:
            watch.turn(None)
        interval = tick(*arguments, **options)
        sleeps = max(float(interval or 0), 0.0)
        if unsent:
            watch.lost()
            watch.turned = _now()
        else:
            watch.turn(sleeps + budget)
        watch.turned += sleeps
        return interval

    def synced(*arguments: Any, **options: Any) -> Any:
        try:
            return sync(*arguments, **options)
        finally:
            watch.end()
            _stop(heartbeat)

    scheduler.tick, scheduler.apply_async, service.sync = ticked, sent, synced
    watch.turn(None)
    watch.begin()


class _Settings:
    """The app's settings that are this module's, each checked as it is read."""

    def __init__(self, app: Any, nodename: str) -> None:
        self.conf = app.conf
        self.nodename = nodename

    def value(self, name: str) -> Any:
        value = self.conf.get(name)
        return None if value == "" else value

    def text(self, name: str) -> str | None:
        value = self.value(name)
        if value is None or isinstance(value, str):
            return value
        raise ImproperlyConfigured(f"{name} is a text, not {type(value).__name__}")

    def names(self, name: str) -> list[str] | None:
        value = self.value(name)
        if value is None:
            return None
        names = value.split(",") if isinstance(value, str) else value
        if isinstance(names, Iterable) and all(isinstance(one, str) for one in names):
            return [one.strip() for one in names if one.strip()]
        raise ImproperlyConfigured(f"{name} is a list of names")

    def number(self, name: str) -> float | None:
        """Seconds."""
        value = self.value(name)
        if value is None:
            return None
        if isinstance(value, timedelta):
            value = value.total_seconds()
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
            raise ImproperlyConfigured(f"{name} is a number of seconds or a timedelta, not {value!r}")
        return float(value)

    def path(self, name: str) -> str | Literal[False] | None:
        """A path with the worker's names in it; False: no file."""
        value = self.value(name)
        if value is None:
            return None
        if value is False:
            return False
        try:
            return str(node_format(os.fspath(value), self.nodename))
        except (TypeError, KeyError, ValueError):
            raise ImproperlyConfigured(f"{name} is a path, in which %n, %h, %d and %i mean what they mean to Celery") from None

    def loop_budget(self) -> float:
        budget = self.number("heartbeat_loop_budget")
        if budget is None:
            budget = _seconds(os.environ.get("HEARTBEAT_LOOP_BUDGET", ""))
        return LOOP_BUDGET if budget is None else max(budget, 0.001)


def _begin(settings: _Settings, file: str, **particulars: Any) -> Heartbeat:
    """Starts a heartbeat with the file that this setting names; without one, where it names none or that cannot be had."""
    path = settings.path(file) if file else False
    for name in ("heartbeat_redis_url", "heartbeat_interval", "heartbeat_promise", "heartbeat_loop_budget"):
        read = settings.text if name == "heartbeat_redis_url" else settings.number
        particulars["redis" if name == "heartbeat_redis_url" else name[len("heartbeat_") :]] = read(name)
    try:
        return Heartbeat(file=path, **particulars)
    except (Error, TypeError, ValueError, OverflowError) as refused:
        try:
            if path is False:
                raise refused
            heartbeat = Heartbeat(file=False, **particulars)
        except (Error, TypeError, ValueError, OverflowError):
            raise ImproperlyConfigured(str(refused)) from None
        # Without its file it can be: nothing that is wrong with a file keeps a worker from its work.
        logger.warning("%s; this worker runs without a beat file", refused)
        return heartbeat


def _harmlessly(note: Callable[..., None], *arguments: Any) -> None:
    """Whatever goes wrong with the heartbeat, the task and the loop go on."""
    try:
        note(*arguments)
    except Exception:
        logger.exception("The heartbeat missed something")


def _has_failed(result: Any) -> bool:
    """What a pool tells of a task: whether it raised, with what, and how long it took; or of an exception alone."""
    if isinstance(result, tuple):
        failed, result = result[0], result[1]
        if not failed:
            return False
    exception = getattr(result, "exception", None)
    return not isinstance(getattr(exception, "exc", exception), (Retry, Ignore)) and not isinstance(exception, (Retry, Ignore))


def _is_of_the_broker(error: BaseException | None) -> bool:
    """Whether it, or what it came from, is that a connection cannot be had."""
    while error is not None:
        if isinstance(error, (OperationalError, OSError)):
            return True
        error = error.__cause__ or error.__context__
    return False


def _stop(heartbeat: Heartbeat) -> None:
    try:
        heartbeat.stop()
    except Error as error:
        logger.warning("%s", error)


def _is_prefork(pool: Any) -> bool:
    return type(pool).__module__ == "celery.concurrency.prefork" or hasattr(getattr(pool, "_pool", None), "_poolctrl")


def _is_stopped(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
            return stat.read().rpartition(")")[2].split()[0] in ("T", "t")
    except (OSError, IndexError):
        return False


def _native(module: str) -> Any:
    """A module as it was before gevent or eventlet put theirs in its place: the watch is a thread, whatever the worker runs on."""
    if "gevent.monkey" in sys.modules:
        return _Originals(module)
    if "eventlet.patcher" in sys.modules:
        return sys.modules["eventlet.patcher"].original(module)
    return __import__(module)


class _Originals:
    def __init__(self, module: str) -> None:
        self.module = module

    def __getattr__(self, name: str) -> Any:
        return sys.modules["gevent.monkey"].get_original(self.module, name)


def _stack(frame: Any) -> list[Any]:
    frames = []
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    return frames


#: What stands between a client of a broker and the kernel.
_PLUMBING = frozenset(
    "asyncio concurrent contextlib eventlet gevent greenlet http OpenSSL queue select selectors socket ssl threading tenacity".split()
)

#: Clients of brokers, and what they talk through.
_CLIENTS = frozenset(
    "amqp azure boto3 botocore confluent_kafka google kazoo librabbitmq psycopg psycopg2 pycurl pymongo redis sqlalchemy urllib3 valkey".split()
)


def _waits_for_a_broker(frames: list[Any]) -> bool:
    """Whether whoever is innermost, but for the standard library, is about a broker.

    Not whoever is on the stack at all: Kombu's hub calls everything, the user's own receivers of signals too.
    """
    for frame in frames:
        module = str(frame.f_globals.get("__name__"))
        package = module.partition(".")[0]
        if package in _PLUMBING:
            continue
        if module == "celery.worker.pidbox":
            # On greenlets Celery waits for the one that listens for remote control, and that waits for the broker.
            return True
        if package == "kombu":
            # The hub's own waiting is not late, and what it calls is somebody else's.
            return not module.startswith("kombu.asynchronous") or module.startswith(("kombu.asynchronous.http", "kombu.asynchronous.aws"))
        return package in _CLIENTS
    return False


def _seconds(text: str) -> float | None:
    """A duration as the library's variables have it: `500ms`, `30s`, `1m30s`."""
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
    parts = re.findall(r"(\d+)(ms|s|m|h|d)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text.strip():
        return None
    return sum(int(number) * units[unit] for number, unit in parts)
