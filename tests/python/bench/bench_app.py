"""The application of the workers that are measured: tasks that do nothing, with a heartbeat or without."""

import os
import signal
from functools import partial
from pathlib import Path

from celery import Celery, bootsteps
from redis import Redis

app = Celery("bench", broker=os.environ["BROKER_URL"])
app.conf.update(
    task_default_queue=os.environ["QUEUE"],
    task_ignore_result=True,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
)

if file := os.environ.get("BEAT_FILE"):
    import heartbeat.celery

    app.conf.heartbeat_file = file

    class Probe(heartbeat.celery.LivenessProbe):
        """Lays down what it does for tasks and in the loop, and takes it up again, at each SIGUSR2, and says so in a file."""

        def start(self, worker):
            self.worker, self.consumer, self.on = worker, None, True
            worker.consumer.loop = partial(self.consume, worker.consumer.loop)
            super().start(worker)
            self.apply, self.look = worker.pool.apply_async, self._probe.watch.look
            signal.signal(signal.SIGUSR2, self.alternate)

        def consume(self, loop, consumer, *arguments):
            self.consumer = consumer
            if consumer.hub is None:
                # The loop asks for these once.
                probed, plain = consumer.perform_pending_operations, type(consumer).perform_pending_operations
                consumer.perform_pending_operations = lambda: probed() if self.on else plain(consumer)
            return loop(consumer, *arguments)

        def alternate(self, *_):
            self.on, probe, timer = not self.on, self._probe, self.consumer.hub and self.consumer.timer
            if self.on:
                self.worker.pool.apply_async, probe.watch.look = self.apply, self.look
                if timer:
                    probe.timer_entry = timer.call_repeatedly(probe.watch.period, probe.turn)
            else:
                del self.worker.pool.apply_async
                probe.watch.look = int
                if timer:
                    timer.cancel(probe.timer_entry)
            Path(os.environ["NOW"]).write_text("with" if self.on else "without")

    app.steps["worker"].add(Probe)
    if os.environ.get("STILL"):
        heartbeat.celery.PERIOD = 86_400
        app.conf.update(heartbeat_interval=3_600, heartbeat_promise=86_400, heartbeat_loop_budget=8 * 86_400)

if os.environ.get("STILL"):
    # Under valgrind a second is that of a processor fifty times slower, so what comes every so many seconds is left out, Celery's own
    # too. But a loop of Celery's has a timer, which it asks again and again whether it is time.
    class Timed(bootsteps.Step):
        requires = ("celery.worker.components:Timer",)

        def create(self, worker):
            worker.timer.call_repeatedly(86_400, int)

    app.steps["worker"].add(Timed)

told = Redis.from_url(os.environ["BROKER_URL"])


@app.task(name="nothing")
def nothing():
    pass


@app.task(name="last")
def last():
    told.lpush(f"done-{os.environ['QUEUE']}", 1)
