"""Starts `celery worker` processes for tests, alone or under `heartbeat run`, and sends them tasks."""

import sys
import uuid
from pathlib import Path

from celery import Celery

import harness


class CeleryWorker(harness.Program):
    """A worker with a queue of its own, so that tests sharing one broker do not take each other's tasks."""

    def __init__(
        self, broker, *, pool="solo", under=(), probe_file=None, application="celery_app", queue=None, host="test", umask=-1, **more
    ):
        self.queue = queue or f"q-{uuid.uuid4().hex}"
        self.name = f"{self.queue}@{host}"
        settings = {"BROKER_URL": broker.url, "QUEUE": self.queue, "PYTHONDONTWRITEBYTECODE": 1, "PYTHONUNBUFFERED": 1}
        if probe_file:
            settings["FOJ_FILE"] = probe_file
        settings |= more
        celery = [sys.executable, "-m", "celery", "-A", application, "worker", "--loglevel", "INFO"]
        celery += ["--pool", pool, "--concurrency", "1", "--hostname", self.name]
        super().__init__([*under, *celery], env=harness.environment(**settings), cwd=Path(__file__).parent, umask=umask)
        backend = broker.url if broker.url.startswith("redis") else None
        self._client = Celery("tests", broker=broker.url, backend=backend)
        self._client.conf.task_default_queue = self.queue

    def ready(self):
        return self.says(" ready.")

    def send_work(self, seconds, mark=None):
        return self._client.send_task("work", args=[seconds, mark and str(mark)])
