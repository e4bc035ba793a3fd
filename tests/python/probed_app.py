"""A Celery application with our heartbeat, as a user has one; told by its environment what it is to do."""

import ctypes
import json
import os
import signal
import time
from pathlib import Path

from celery import Celery, bootsteps, signals
from celery.exceptions import Ignore, Reject
from celery.worker.consumer.connection import Connection
from redis import Redis

from heartbeat.celery import BeatProbe, LivenessProbe

app = Celery("orders", broker=os.environ["BROKER_URL"])
app.conf.update(
    task_default_queue=os.environ.get("QUEUE", "orders"),
    task_ignore_result=True,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
)
# As `app.config_from_object(…, namespace="CELERY")` has them, or as they are.
settings = json.loads(os.environ.get("SETTINGS", "{}"))
if any(name.startswith("CELERY_") for name in settings):
    app.config_from_object(type("Settings", (), settings), namespace="CELERY")
else:
    app.conf.update(settings)
app.steps["worker"].add(LivenessProbe)
BeatProbe.install(app)

if os.environ.get("HANG"):

    class Hang(bootsteps.StartStopStep):
        """As a step of the user's own that never ends, once the worker has its broker."""

        requires = (Connection,)

        def start(self, _):
            print("hanging", flush=True)
            while True:
                time.sleep(60)

    app.steps["consumer"].add(Hang)


@app.task(name="nap")
def nap(seconds, mark=None):
    if mark:
        draft = Path(f"{mark}.draft")
        draft.write_text(str(os.getpid()))
        draft.rename(mark)
    time.sleep(seconds)


@app.task(name="hold_gil")
def hold_gil(seconds):
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))


@app.task(name="fails")
def fails():
    raise ValueError("on purpose")


@app.task(name="retries", bind=True, max_retries=1, default_retry_delay=0)
def retries(self):
    raise self.retry(countdown=0)


@app.task(name="ignored")
def ignored():
    raise Ignore


@app.task(name="rejected", acks_late=True)
def rejected():
    raise Reject("on purpose", requeue=False)


@app.task(name="late", acks_late=True)
def late():
    pass


@app.task(name="dies")
def dies():
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="tick")
def tick():
    pass


@signals.task_received.connect
def wedge(request=None, **_):
    """A receiver of the user's own that never comes back, in the worker's own loop: its own, or a client's of its database."""
    if request is not None and request.task_name == "wedge":
        while True:
            time.sleep(0.1)
    if request is not None and request.task_name == "wedge_in_a_client":
        Redis(port=int(os.environ["SILENT_PORT"])).ping()


@app.task(name="wedge")
def never():
    pass


@app.task(name="wedge_in_a_client")
def never_either():
    pass
