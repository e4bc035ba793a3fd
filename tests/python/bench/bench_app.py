"""The application of the workers that are measured: tasks that do nothing, with a heartbeat or without."""

import os

from celery import Celery
from redis import Redis

app = Celery("bench", broker=os.environ["BROKER_URL"])
app.conf.update(
    task_default_queue=os.environ["QUEUE"],
    task_ignore_result=True,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
)

if file := os.environ.get("BEAT_FILE"):
    from heartbeat.celery import LivenessProbe

    app.conf.heartbeat_file = file
    app.steps["worker"].add(LivenessProbe)

told = Redis.from_url(os.environ["BROKER_URL"])


@app.task(name="nothing")
def nothing():
    pass


@app.task(name="last")
def last():
    told.lpush(f"done-{os.environ['QUEUE']}", 1)
