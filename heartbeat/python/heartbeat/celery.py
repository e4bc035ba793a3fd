"""A heartbeat for Celery's workers and its scheduler.

A worker: ``app.steps["worker"].add(LivenessProbe)``. The scheduler: ``BeatProbe.install(app)``. Both read the app's
configuration (``heartbeat_file``, …), then the environment (``HEARTBEAT_FILE``, …).

Nothing here waits for an answer of the broker, or writes a file: that is the publisher's, whose thread needs no interpreter.
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
from ._outside import frames_from, is_stopped

__all__ = ["BeatProbe", "LivenessProbe"]

logger = get_logger(__name__)

#: How much longer than its limit a task may take before it is overdue: Celery ends it by itself, and needs a moment for that. Also
#: longer than it takes to see that a loop waits for its broker, so that no end of a task is missed for that. In seconds, as all
#: that follows.
LIMIT_GRACE = 1.2

#: What a pool without a hub adds to that, which looks at its limits once a second.
HUBLESS_GRACE = 1.0

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

#: The same before its loop has turned once: whoever waits to connect is never about anything else for so long.
ELSEWHERE_AT_START = 2.0

#: How often a broker is asked that tells nothing by itself, and for how long the loop may turn without an answer.
ASK_EVERY, ANSWER_WITHIN = 5.0, 5.0

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
        deadline = settings.seconds("heartbeat_start_deadline")
        queues = settings.names("heartbeat_queues")
        follow_queues = queues is None and not os.environ.get("HEARTBEAT_QUEUES")
        if follow_queues:
            queues = list(worker.app.amqp.queues.consume_from)
        heartbeat = _begin(
            settings,
            "heartbeat_file",
            cluster=settings.text("heartbeat_cluster"),
            worker=settings.text("heartbeat_worker") or os.environ.get("HEARTBEAT_WORKER") or worker.hostname,
            queues=queues,
            start_deadline=START_DEADLINE if deadline is None else deadline,
            drain_deadline=settings.seconds("heartbeat_drain_deadline"),
            endpoint=settings.text("heartbeat_endpoint") or os.environ.get("HEARTBEAT_ENDPOINT") or None,
        )
        self._probe = probe = _Probe(heartbeat, settings, worker)
        worker.consumer.loop = partial(probe.consume, worker.consumer.loop)
        worker.pool.apply_async = partial(probe.apply, worker.pool.apply_async)
        if follow_queues:
            for change in ("add_task_queue", "cancel_task_queue"):
                setattr(worker.consumer, change, partial(probe.change_queues, getattr(worker.consumer, change)))
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
        self.watch = _Watch(heartbeat, settings.loop_budget(), self._loop_is_blocked_by_a_task, _waits_for_a_broker, is_green)
        self.in_children = _is_prefork(worker.pool)
        self.grace = LIMIT_GRACE + (HUBLESS_GRACE if self.in_children and not worker.hub else 0.0)
        #: The deadline of tasks that have no limit; and of those that bring none of their own.
        self.task_deadline = settings.seconds("heartbeat_task_deadline")
        self.usual_deadline = self._deadline(None, None)
        self.drain_deadline = settings.seconds("heartbeat_drain_deadline")
        #: Whether tasks end only while the loop turns: it sees the ends of those in children, and greenlets share its thread, which
        #: sleeps between two tries to connect.
        self.ends_need_the_loop = self.in_children and bool(worker.hub) or is_green
        self.running: dict[str, _Running] = {}
        #: A pool whose slots are all taken keeps its loop until a task ends, but where that is a hub.
        self.may_keep_the_loop = not worker.hub if self.in_children else is_green
        self.question: _Question | None = None
        self.suspended = False
        #: By its id: a task that was given to a child which has not accepted it, and its guard where that child is stopped.
        self.waiting: dict[str, Task | None] = {}
        self.next_look = self.next_sweep = 0.0
        self.draining: str | None = None
        self.timer_entry: Any = None
        self.watch.on_lost = self._suspend
        if self.in_children:
            self.watch.on_late = self._suspend
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
        self.question = _Question.of(consumer.connection)
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
        answers = self._broker_answers()
        self.watch.turn(AS_LONG_AS_IT_TAKES if self.running and not self.in_children else None, answers)
        now = self.watch.turned
        if self.suspended:
            self._resume()
        if self.running and self.in_children and now >= self.next_sweep:
            self.next_sweep = now + PERIOD / 2
            self._forget_the_ended()
        if self.ends_need_the_loop and self.in_children and now >= self.next_look:
            self.next_look = now + 1.0
            self._look_at_what_waits()

    def _broker_answers(self) -> bool:
        try:
            return self.question is None or self.question.turn()
        except Exception:
            # Without it the broker is watched as any other, and the loop pulses.
            self.question = None
            _missed()
            return True

    def change_queues(self, change: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """One of Celery's own ways to consume from a queue more, or less."""
        try:
            return change(*arguments, **options)
        finally:
            _harmlessly(self._show_queues)

    def _show_queues(self) -> None:
        try:
            self.heartbeat.set_queues(list(self.worker.app.amqp.queues.consume_from))
        except Error as error:
            logger.warning("%s; the record keeps the queues that it had", error)

    # The tasks.

    def apply(
        self,
        apply_async: Callable[..., Any],
        target: Any,
        args: Any = None,
        kwargs: Any = None,
        *,
        accept_callback: Any = None,
        callback: Any = None,
        error_callback: Any = None,
        timeout_callback: Any = None,
        soft_timeout: Any = None,
        timeout: Any = None,
        correlation_id: Any = None,
        **options: Any,
    ) -> Any:
        """Hands a task to the pool, and sees when it starts and how it ends."""
        keeps_the_loop = False
        if accept_callback is not None and correlation_id is not None:
            deadline = self.usual_deadline if timeout is None and soft_timeout is None else self._deadline(timeout, soft_timeout)
            one = _Running(self, correlation_id, args[0] if args else "task", deadline)
            accept_callback, one.on_accepted = one.accepted, accept_callback
            if callback is not None:
                callback, one.on_ended = one.ended, callback
            if error_callback is not None:
                error_callback, one.on_error = one.erred, error_callback
            if timeout_callback is not None:
                timeout_callback, one.on_timeout = one.timed_out, timeout_callback
            if not self.in_children:
                target, one.target = one.run, target
            keeps_the_loop = self.may_keep_the_loop and self.watch.get_ident() == self.watch.thread
            if keeps_the_loop:
                self.watch.may_take(AS_LONG_AS_IT_TAKES)
        try:
            return apply_async(
                target,
                args,
                kwargs,
                accept_callback=accept_callback,
                callback=callback,
                error_callback=error_callback,
                timeout_callback=timeout_callback,
                soft_timeout=soft_timeout,
                timeout=timeout,
                correlation_id=correlation_id,
                **options,
            )
        finally:
            if keeps_the_loop and self.in_children:
                self.watch.may_take(None)

    def _deadline(self, hard: Any, soft: Any) -> float | None:
        """From a task's start. Who sends a message may put anything into its limits."""
        for limit in (hard, self.worker.time_limit, soft, self.worker.soft_time_limit):
            if isinstance(limit, (int, float)) and 0 < limit < float("inf"):
                return limit + self.grace
        return self.task_deadline

    def _forget_the_ended(self) -> None:
        """A task that Celery has forgotten without a word to the pool's callbacks."""
        requests = self.worker.state.requests
        for task_id, one in list(self.running.items()):
            if task_id in requests:
                one.missing = 0
            else:
                # Seen twice, because one may be between two of Celery's own lists.
                one.missing += 1
                if one.missing > 1:
                    one.end(True)

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
            if task_id in self.waiting and self.waiting[task_id] is None and is_stopped(pid):
                task = self.waiting[task_id] = self.heartbeat.task(name)
                task.held_by(pid)
            self.waiting.setdefault(task_id, None)
        for task_id in self.waiting.keys() - given.keys():
            task_or_none = self.waiting.pop(task_id)
            if task_or_none is not None:
                task_or_none.done()

    def _suspend(self) -> None:
        """While the loop does not turn nobody knows which tasks would have ended, so their deadlines wait too: those that were
        not over when it last turned. It may wait for its broker; or Celery ends children at their limit, one after the other."""
        if self.ends_need_the_loop and not self.suspended:
            self.suspended = True
            for one in list(self.running.values()):
                one.wait(self.watch.turned)
            if not self.suspended:
                # It turned again meanwhile, and some may have been put off after that.
                self._resume()

    def _resume(self) -> None:
        self.suspended = False
        for one in list(self.running.values()):
            one.go_on()

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
        if self.draining == "cold" or self.draining and not cold:
            return
        before, self.draining = self.draining, "cold" if cold else "warm"
        soft = self.worker.app.conf.get("worker_soft_shutdown_timeout") or 0
        if cold and soft and self.drain_deadline is None:
            # Past its soft shutdown, what is left is to end the tasks and to close connections.
            self.heartbeat.drain(soft + ELSEWHERE)
        elif before is None:
            self.heartbeat.drain()

    def stop(self, stopped: Callable[[], Any] | None) -> None:
        try:
            if stopped is not None:
                stopped()
        finally:
            self.watch.end()
            signals.worker_shutting_down.disconnect(self.shutting_down)
            _stop(self.heartbeat)


class _Running:
    """One task that the pool has: what it calls back, and what is told of that.

    Everything here is done once a task, and nothing that goes wrong in it may reach the task.
    """

    #: What the pool runs and calls back, in the place of which it has been given this one's own.
    target: Callable[..., Any]
    on_accepted: Callable[..., Any]
    on_ended: Callable[..., Any]
    on_error: Callable[..., Any]
    on_timeout: Callable[..., Any]

    task: Task | None = None
    child: int | None = None
    due = float("inf")
    #: Not seen by Celery so many times.
    missing = 0
    #: While the loop waits for its broker.
    is_let_go = False
    put_off_at: float | None = None
    latest: float | None = None

    def __init__(self, probe: _Probe, task_id: str, name: Any, deadline: float | None) -> None:
        self.probe, self.task_id, self.name, self.deadline = probe, task_id, name, deadline

    # By the pool, with the arguments of Celery's own request.

    def accepted(self, pid: int, time_accepted: Any) -> Any:
        try:
            probe = self.probe
            self.task = task = probe.heartbeat.task(str(self.name), self.deadline)
            probe.running[self.task_id] = self
            if not probe.in_children:
                # It may hold the interpreter from here on, and then no thread could say so.
                probe.watch.may_take(AS_LONG_AS_IT_TAKES)
            else:
                self.child = pid
                task.held_by(pid)
            if probe.ends_need_the_loop:
                if self.deadline is not None:
                    self.due = _now() + self.deadline
                if probe.suspended:
                    self.wait(0.0)
        except Exception:
            _missed()
        return self.on_accepted(pid, time_accepted)

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """A task in this process. What it raises Celery itself did not foresee, and no pool tells of it."""
        try:
            return self.target(*args, **kwargs)
        except BaseException:
            _harmlessly(self.end, True)
            raise

    def ended(self, result: Any, **more: Any) -> Any:
        try:
            # What a pool tells of a task: whether it raised, with what, and how long it took.
            self.end(not (type(result) is tuple and not result[0]) and _has_failed(result))
        except Exception:
            _missed()
        return self.on_ended(result, **more) if more else self.on_ended(result)

    def erred(self, result: Any, *rest: Any, **more: Any) -> Any:
        _harmlessly(lambda: self.end(_has_failed(result)))
        return self.on_error(result, *rest, **more)

    def timed_out(self, soft: bool, *rest: Any, **more: Any) -> Any:
        if not soft:
            _harmlessly(self.end, True)
        return self.on_timeout(soft, *rest, **more)

    # What is told.

    def end(self, failed: bool) -> None:
        probe, task, self.task = self.probe, self.task, None
        if probe.running.get(self.task_id) is self:
            del probe.running[self.task_id]
        if task is not None:
            if failed:
                task.fail()
            else:
                task.done()
        if not probe.in_children and not probe.running:
            probe.watch.may_take(None)

    def wait(self, since: float) -> None:
        """Neither its deadline counts, where it was not over by then, nor that its child is gone: both may be for its end."""
        task = self.task
        if task is None:
            return
        if self.child is not None and not is_stopped(self.child):
            self.is_let_go = True
            task.held_by(os.getpid())
        if self.deadline is not None and self.due > since:
            if self.latest is None:
                self.latest = self.due + RESUMED
            self.put_off_at = _now()
            task.due_within(None)

    def go_on(self) -> None:
        task, since, self.put_off_at = self.task, self.put_off_at, None
        if self.is_let_go and task is not None and self.child is not None:
            task.held_by(self.child)
        self.is_let_go = False
        if since is not None and task is not None and self.latest is not None:
            # It has that time back, and once the moment that its end may take: a loop that is late again and again hides nothing.
            now = _now()
            self.latest += now - since
            self.due = max(self.due, min(now + RESUMED, self.latest))
            task.due_within(max(self.due - now, 0.0))


class _Question:
    """Asks a broker for a sign of life, and waits for none: the loop itself reads what comes.

    Over AMQP a broker that is frozen is silent, and so is one that has nothing to do, for minutes until a heartbeat is missed. So
    it is asked what changes nothing: no limit to what it sends on a channel of its own, on which nothing is consumed.
    """

    def __init__(self, connection: Any, method: Any) -> None:
        self.errors = connection.connection_errors
        self.channel, self.method = connection.channel(), method
        self.received = -1
        self.next = self.turned = _now()
        #: For how long the loop has turned since it asked.
        self.waited: float | None = None

    @classmethod
    def of(cls, connection: Any) -> _Question | None:
        """Nothing to ask with where the client is not py-amqp. May wait for the broker, as Celery itself does here."""
        if getattr(connection.transport, "driver_name", None) != "py-amqp":
            return None
        try:
            from amqp import spec

            return cls(connection, spec.Basic.Qos)
        except (*connection.connection_errors, *connection.channel_errors):
            # Celery's own loop finds out what is wrong; and a broker may have no channel to spare.
            return None
        except Exception:
            _missed()
            return None

    def turn(self) -> bool:
        """Whether it has answered, or still may."""
        now = _now()
        # A loop that was about a task has not read meanwhile.
        turned, self.turned = min(now - self.turned, 1.0), now
        connection = self.channel.connection
        if connection is None:
            return True
        # Whatever came since was sent by a broker that lives.
        if connection.bytes_recv != self.received:
            self.received, self.waited = connection.bytes_recv, None
        if self.waited is not None:
            self.waited += turned
            return self.waited <= ANSWER_WITHIN
        if now >= self.next:
            self.next = now + ASK_EVERY
            try:
                self.channel.send_method(self.method, "lBb", (0, 0, False))
            except self.errors:
                # The loop reads from the same connection, and meets the same.
                return True
            self.waited = 0.0
        return True


class _Watch:
    """Says why a loop is late: because of its broker, of a task that it runs, or of neither, and then it is wedged.

    A thread of its own, because a loop that is blocked inside a socket can say nothing. It marks the loop alive for nobody:
    once the loop's own pulse is late, it looks at what the loop's thread is about. Inside the code that talks to a broker, the
    broker is lost; inside a task, the task's deadline counts; anywhere else, the loop's budget runs out.
    """

    def __init__(
        self,
        heartbeat: Heartbeat,
        budget: float,
        is_task: Callable[[list[Any]], bool],
        waits_for_a_broker: Callable[[list[Any]], bool],
        is_green: bool = False,
    ) -> None:
        self.heartbeat = heartbeat
        self.budget = budget
        self.is_task = is_task
        self.waits_for_a_broker = waits_for_a_broker
        self.on_lost: Callable[[], None] = lambda: None
        self.on_late: Callable[[], None] = lambda: None
        self.period = min(PERIOD, budget / 8)
        # Until the loop is known: a worker that starts may wait for its broker.
        self.late = min(LATE, budget / 2)
        self.turned = _now()
        self.is_starting = True
        self.is_lost = False
        #: Whether the loop's mark allows for more than its budget.
        self.is_stretched = False
        self.is_stuck = False
        self.in_loop = False
        self.elsewhere_since: float | None = None
        self.ended = False
        self.is_green = is_green
        self.greenlet: Any = None
        self.get_ident = _native("_thread").get_ident
        self.thread = self.get_ident()

    def begin(self) -> None:
        _native("_thread").start_new_thread(self._run, ())

    def end(self) -> None:
        self.ended = True

    def follow_this_thread(self) -> None:
        self.thread = self.get_ident()
        if self.is_green:
            self.greenlet = sys.modules["greenlet"].getcurrent()

    # By the loop.

    def turn(self, budget: float | None, broker_answers: bool = True) -> None:
        self.turned = _now()
        self.is_starting = False
        self.in_loop = True
        self.is_stuck = False
        self.may_take(budget)
        if not broker_answers:
            # The loop itself turns, and sees what ends.
            self._lose(lambda: None)
        elif self.is_lost:
            self.is_lost = False
            self.heartbeat.broker_back()

    def lost(self) -> None:
        """The loop has ended for want of its broker."""
        self.in_loop = False
        self._lose(self.on_lost)

    # By whoever runs a task.

    def may_take(self, budget: float | None) -> None:
        if self.in_loop and not self.is_stuck:
            self.is_stretched = budget is not None
            if budget is None:
                self.heartbeat.pulse()
            else:
                self.heartbeat.pulse_within(budget)

    def _lose(self, and_then: Callable[[], None]) -> None:
        self.elsewhere_since = None
        if not self.is_lost:
            # In this order: a turn between the two finds nothing to take back, and the next one does.
            self.heartbeat.broker_lost()
            self.is_lost = True
        and_then()

    # By the watch's own thread.

    def _run(self) -> None:
        sleep = _native("time").sleep
        while not self.ended:
            # A loop that has turned by now is late no sooner than this.
            sleep(max(self.period, min(self.turned + self.late - _now(), self.late)))
            try:
                self.look()
            except Exception:  # Of a stack that changed meanwhile: the next look sees it anew.
                continue

    def look(self) -> None:
        turned = self.turned
        late = _now() - turned
        if late < self.late or self.ended:
            return
        self.on_late()
        frames = self._frames()
        if not frames:
            return
        if self.is_task(frames):
            self.elsewhere_since = None
            if self.is_lost and self.in_loop and not self.is_green:
                # It had its broker, or it would have no task.
                self.is_lost = False
                self.heartbeat.broker_back()
        elif self.waits_for_a_broker(frames):
            if turned == self.turned:
                self._lose(self.on_lost)
        elif self.is_lost:
            self._see_elsewhere()
        elif self.in_loop and self.is_stretched and late > self.budget and turned == self.turned:
            # What its mark allows for is a task, and that is not what it is about.
            self.is_stuck, self.is_stretched = True, False
            self.heartbeat.pulse_within(0.001)

    def _see_elsewhere(self) -> None:
        """A worker that has long been about something else than its broker does not wait for it, and its loop or its start is judged."""
        now = _now()
        if self.elsewhere_since is None:
            self.elsewhere_since = now
        elif now - self.elsewhere_since > (ELSEWHERE_AT_START if self.is_starting else max(ELSEWHERE, self.budget)):
            self.elsewhere_since = None
            self.is_lost = False
            self.heartbeat.broker_back()

    def _frames(self) -> list[Any]:
        """The frames of the loop's thread, the innermost first; of its greenlet, where that waits."""
        running = frames_from(sys._current_frames().get(self.thread))
        if self.greenlet is None or self.is_task(running):
            return running
        return frames_from(getattr(self.greenlet, "gr_frame", None)) or running


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
    watch = _Watch(heartbeat, budget, lambda frames: False, _waits_for_a_client)
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

    def seconds(self, name: str) -> float | None:
        """A number of seconds; where it is not set, what the variable of that name says."""
        value = self.number(name)
        text = os.environ.get(name.upper(), "") if value is None else ""
        if not text:
            return value
        value = _seconds(text)
        if value is None:
            raise ImproperlyConfigured(f"{name.upper()} is a duration as 500ms, 30s or 1m30s, not {text!r}")
        return value

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
        budget = self.seconds("heartbeat_loop_budget")
        return LOOP_BUDGET if budget is None else max(budget, 0.001)


def _begin(settings: _Settings, file: str, **particulars: Any) -> Heartbeat:
    """Starts a heartbeat with the file that this setting names. Nothing that is wrong with that file keeps a worker from its work:
    it is told, and tried again."""
    path = settings.path(file) if file else False
    for name in ("heartbeat_redis_url", "heartbeat_interval", "heartbeat_promise", "heartbeat_loop_budget"):
        read = settings.text if name == "heartbeat_redis_url" else settings.number
        particulars["redis" if name == "heartbeat_redis_url" else name[len("heartbeat_") :]] = read(name)
    try:
        return Heartbeat(file=path, file_may_wait=True, **particulars)
    except (Error, TypeError, ValueError, OverflowError) as refused:
        raise ImproperlyConfigured(str(refused)) from None


def _harmlessly(note: Callable[..., None], *arguments: Any) -> None:
    """Whatever goes wrong with the heartbeat, the task and the loop go on."""
    try:
        note(*arguments)
    except Exception:
        _missed()


def _missed() -> None:
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
    # One's own pool may be made from it.
    modules = [kind.__module__ for kind in type(pool).__mro__]
    return "celery.concurrency.prefork" in modules or hasattr(getattr(pool, "_pool", None), "_poolctrl")


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


#: What stands between a client of a broker and the kernel.
_PLUMBING = frozenset(
    "asyncio concurrent contextlib eventlet gevent greenlet http OpenSSL queue select selectors socket ssl threading tenacity".split()
)

#: Kombu's own clients, in its hub.
_OF_THE_HUB = ("kombu.asynchronous.http", "kombu.asynchronous.aws")

#: Clients of brokers, and what they talk through.
_CLIENTS = frozenset(
    "amqp azure boto3 botocore confluent_kafka google kazoo librabbitmq psycopg psycopg2 pycurl pymongo redis sqlalchemy urllib3 valkey".split()
)

#: Where Celery waits for another greenlet or thread of its own, and that for the broker: the one that listens for remote control, and whichever
#: sends an event, which holds the lock of all events until the broker has it, through an outage too.
_FOR_ANOTHER = frozenset(("celery.worker.pidbox", "celery.events.dispatcher"))


def _waits_for_a_broker(frames: list[Any]) -> bool:
    """Whether whoever is innermost, but for the standard library, is about a broker, and on Kombu's or Celery's behalf.

    Not whoever is on the stack at all: Kombu's hub calls everything, the user's own receivers of signals too, which have
    databases of their own.
    """
    is_client = has_others = False
    for frame in frames:
        module = str(frame.f_globals.get("__name__"))
        package = module.partition(".")[0]
        if package == "kombu":
            if has_others:
                # What traces a client stands between it and the transport. Whoever else uses one is called by others.
                return module.startswith("kombu.transport")
            # The hub's own waiting is not late, and what it calls is somebody else's.
            return is_client or not module.startswith("kombu.asynchronous") or module.startswith(_OF_THE_HUB)
        if package == "celery":
            return is_client and not has_others or not is_client and module in _FOR_ANOTHER
        if package in _CLIENTS:
            is_client = True
        elif package not in _PLUMBING:
            if not is_client:
                return False
            has_others = True
    return False


def _waits_for_a_client(frames: list[Any]) -> bool:
    """The same, of a scheduler, which may keep what it knows where its broker is: whoever asked."""
    for frame in frames:
        package = str(frame.f_globals.get("__name__")).partition(".")[0]
        if package not in _PLUMBING:
            return package == "kombu" or package in _CLIENTS
    return False


def _seconds(text: str) -> float | None:
    """A duration as the library's variables have it: `500ms`, `30s`, `1m30s`."""
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
    parts = re.findall(r"(\d+)(ms|s|m|h|d)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text.strip():
        return None
    return sum(int(number) * units[unit] for number, unit in parts)
