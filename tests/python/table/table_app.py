"""The Celery application of the table's workers, told by its environment which heartbeats it has and where they go."""

import ctypes
import json
import os
import time
from pathlib import Path

from celery import Celery, bootsteps
from celery.exceptions import SoftTimeLimitExceeded

app = Celery("orders", broker=os.environ["BROKER_URL"])
app.conf.update(
    task_default_queue=os.environ["QUEUE"],
    task_ignore_result=True,
    worker_hijack_root_logger=False,
    # By default RabbitMQ has 120 s, twice over, until its silence is taken for an end.
    broker_heartbeat=10,
    broker_connection_retry_on_startup=True,
)

if theirs := os.environ.get("FOJ_FILE"):
    from django.conf import settings

    settings.configure(HEALTH_CHECK={"CELERY_HEARTBEAT_FILE": theirs})

    from health_check.contrib.celery_heartbeat.bootsteps import LivenessProbe as TheirLivenessProbe

    app.steps["worker"].add(TheirLivenessProbe)

if ours := os.environ.get("OUR_SETTINGS"):
    from heartbeat.celery import LivenessProbe

    app.conf.update(json.loads(ours))
    app.steps["worker"].add(LivenessProbe)

if os.environ.get("HANG"):

    class Hang(bootsteps.StartStopStep):
        """As a worker that waits for ever for what it needs before its first tick: all but its loop has started."""

        def start(self, _):
            print("hanging", flush=True)
            while True:
                time.sleep(60)

    app.steps["consumer"].add(Hang)


def say(mark):
    """Tells the test when the task began, and in which process: whole, or not at all."""
    mark = Path(mark)
    draft = mark.with_suffix(".draft")
    draft.write_text(f"{time.monotonic()} {os.getpid()}")
    draft.rename(mark)


def stubbornly(work, mark, seconds):
    """Works on to the end, whatever Celery tells it of its limit."""
    say(mark)
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        try:
            work(left)
        except SoftTimeLimitExceeded:
            pass


def spinning(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def holding_the_gil(seconds):
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))


@app.task(name="spin")
def spin(mark, seconds):
    stubbornly(spinning, mark, seconds)


@app.task(name="hold_gil")
def hold_gil(mark, seconds):
    stubbornly(holding_the_gil, mark, seconds)


@app.task(name="nap")
def nap(mark, seconds):
    stubbornly(time.sleep, mark, seconds)
