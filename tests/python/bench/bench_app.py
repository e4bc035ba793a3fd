"""The application of the workers that are measured: tasks that do nothing, with a heartbeat or without, or with and without in turn."""

import gc
import json
import os
import time
from functools import partial
from pathlib import Path

from celery import Celery, bootsteps, signals
from redis import Redis

if core := os.environ.get("CORE"):
    # Before there is a thread, so that all are there.
    os.sched_setaffinity(0, {int(core)})

app = Celery("bench", broker=os.environ["BROKER_URL"])
app.conf.update(
    task_default_queue=os.environ["QUEUE"],
    task_ignore_result=True,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
)

if core := os.environ.get("CHILDREN_CORE"):

    @signals.worker_process_init.connect
    def beside_the_main_process(**_):
        os.sched_setaffinity(0, {int(core)})


if file := os.environ.get("BEAT_FILE"):
    import heartbeat.celery
    from heartbeat.celery import LivenessProbe

    app.conf.heartbeat_file = file
    if os.environ.get("STILL"):
        heartbeat.celery.PERIOD = 86_400
        app.conf.update(heartbeat_interval=3_600, heartbeat_promise=86_400, heartbeat_loop_budget=8 * 86_400)
    if not os.environ.get("STRETCHES"):
        app.steps["worker"].add(LivenessProbe)

if os.environ.get("STILL"):
    # Python collects its garbage after so many objects, not with each task: a large collection falls into one count or into the other.
    gc.disable()

    # Under valgrind a second is that of a processor fifty times slower, so what comes every so many seconds is left out, Celery's own
    # too. But a loop of Celery's has a timer, which it asks again and again whether it is time.
    class Timed(bootsteps.Step):
        requires = ("celery.worker.components:Timer",)

        def create(self, worker):
            worker.timer.call_repeatedly(86_400, int)

    app.steps["worker"].add(Timed)


class Alternating(bootsteps.StartStopStep):
    """Starts the bootstep for one stretch of tasks and ends it for another, and takes the time of each stretch.

    With the bootstep everything of it is there: its publisher, its watch, its timer and what it does for a task. Without it nothing
    is: it has been stopped, Celery's loop and tasks go the ways that they go in a worker that never had one. Tasks before the clock
    of a stretch runs have the time that the change takes, and end those of the stretch before.
    """

    requires = ("celery.worker.components:Timer",)

    def start(self, worker):
        self.worker, self.loop = worker, worker.consumer.loop
        worker.consumer.loop = self.consume
        self.plan = json.loads(os.environ["STRETCHES"])
        self.names = iter(self.plan["names"])
        self.probe, self.now, self.measured = None, None, []

    def consume(self, consumer, *arguments):
        self.consumer = consumer
        consumer.strategies["nothing"] = self.received
        self.change(next(self.names))
        self.left, self.begun = self.plan["first"], None
        return self.loop(consumer, *arguments)

    def received(self, *message):
        self.left -= 1
        if not self.left:
            self.between()
        self.strategy(*message)

    def between(self):
        # The main process's own, and its threads'.
        now = time.perf_counter_ns(), time.process_time_ns()
        if self.begun is None:
            self.begun, self.left = now, self.plan["tasks"]
            return
        self.measured.append((self.now, now[0] - self.begun[0], now[1] - self.begun[1]))
        self.begun, self.left = None, self.plan["between"]
        name = next(self.names, None)
        if name is None:
            Path(os.environ["MEASURED"]).write_text(json.dumps(self.measured))
            self.left = 0
        elif name != self.now:
            self.change(name)

    def change(self, name):
        worker, consumer = self.worker, self.consumer
        has_beaten = Path(app.conf.heartbeat_file).exists()
        assert has_beaten == (self.now == "with"), f"{self.now} the bootstep, and a beat file: {has_beaten}"
        if name == "with":
            step = LivenessProbe(worker)
            step.start(worker)
            self.probe = step._probe
            # What it does where Celery's loop begins, which has.
            self.probe.consume(lambda *_: None, consumer)
        elif self.probe is not None:
            if consumer.hub is not None:
                consumer.timer.cancel(self.probe.timer_entry)
            self.probe.stop(None)
            del worker.pool.apply_async
        if consumer.hub is None:
            # The loop asks once for what it does on each turn.
            plain = partial(type(consumer).perform_pending_operations, consumer)
            self.turn = consumer.perform_pending_operations if name == "with" else plain
            consumer.perform_pending_operations = lambda: self.turn()
        # It has the pool's way of taking a task from the moment it is made.
        self.strategy = app.tasks["nothing"].start_strategy(app, consumer)
        self.now = name


if os.environ.get("STRETCHES"):
    app.steps["worker"].add(Alternating)

told = Redis.from_url(os.environ["BROKER_URL"])


@app.task(name="nothing")
def nothing():
    pass


@app.task(name="last")
def last():
    told.lpush(f"done-{os.environ['QUEUE']}", 1)
