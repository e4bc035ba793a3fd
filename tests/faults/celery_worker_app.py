"""The Celery application of the table in tests/python/table, whose loop can be told to stand and to lock itself out."""

import threading
import time
from pathlib import Path

from celery.worker.control import control_command
from table_app import app  # noqa: F401


@control_command(args=[("mark", str), ("seconds", float)])
def stand(state, mark, seconds):
    Path(mark).touch()
    time.sleep(seconds)


@control_command(args=[("mark", str)])
def deadlock(state, mark):
    """Each of two threads has the lock that the other one waits for."""
    one, other, both = threading.Lock(), threading.Lock(), threading.Barrier(2)

    def take(first, second):
        with first:
            both.wait()
            second.acquire()

    threading.Thread(target=take, args=(other, one), daemon=True).start()
    Path(mark).touch()
    take(one, other)
