"""Workers of Celery and Django-Q2 with their heartbeats, and whoever else says something of them: FOJ, `inspect ping`, the stat.

Only where the Python package is installed: `tests/faults/run` installs it.
"""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import redis
from celery import Celery

import django_q_cluster as clusters
import harness
from judges import foj_passes
from rules import BUDGET, DEADLINE, INTERVAL, PROMISE

HERE = Path(__file__).parent
TABLE = HERE.parent / "python" / "table"


class CeleryWorker(harness.Program):
    """A worker of the prefork pool, with one slot, both heartbeats and a queue of its own; its broker is nobody's stat key."""

    loop = True

    def __init__(self, scene, environment, under=(), drain_deadline=60, task_deadline=None):
        self.scene, broker = scene, scene.stage.broker
        self.queue = f"q-{uuid.uuid4().hex[:12]}"
        self.name = f"{self.queue}@faults"
        self.foj_file = scene.folder / "foj"
        settings = {
            "heartbeat_file": environment["HEARTBEAT_FILE"] if scene.sink != "key" else False,
            "heartbeat_redis_url": environment.get("HEARTBEAT_REDIS_URL"),
            "heartbeat_cluster": environment["HEARTBEAT_CLUSTER"],
            "heartbeat_worker": "w",
            "heartbeat_queues": "mail",
            "heartbeat_interval": INTERVAL,
            "heartbeat_promise": scene.promise,
            "heartbeat_loop_budget": BUDGET,
            "heartbeat_drain_deadline": drain_deadline,
        }
        env = {name: value for name, value in environment.items() if not name.startswith("HEARTBEAT_")}
        env |= {
            "BROKER_URL": f"redis+socket://{scene.stage.broker_socket}" if scene.broker_nearby else broker.url,
            "QUEUE": self.queue,
            "FOJ_FILE": str(self.foj_file),
            "OUR_SETTINGS": json.dumps({name: value for name, value in settings.items() if value is not None}),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(TABLE), environment.get("PYTHONPATH")])),
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        command = [sys.executable, "-m", "celery", "-A", "celery_worker_app", "worker", "--loglevel", "INFO"]
        command += ["--pool", "prefork", "--concurrency", "1", "--hostname", self.name]
        super().__init__([*under, *command], env=env, cwd=HERE)
        self.client = Celery("tests", broker=broker.url)
        self.client.conf.task_default_queue = self.queue

    def up(self):
        return self.says(" ready.", timeout=120)

    @property
    def subject(self):
        return self.pid

    def task(self, deadline, length):
        mark = self.scene.folder / f".mark-{uuid.uuid4().hex[:8]}"
        self.client.send_task("nap", args=[str(mark), length], soft_time_limit=deadline)
        harness.until(mark.exists, 40, "the task has begun")
        return float(mark.read_text().split()[0])

    def stand(self, seconds):
        self._order("stand", seconds=seconds)

    def deadlock(self):
        self._order("deadlock")

    def _order(self, name, **arguments):
        mark = self.scene.folder / f".mark-{uuid.uuid4().hex[:8]}"
        self.client.control.broadcast(name, arguments={"mark": str(mark), **arguments}, destination=[self.name])
        harness.until(mark.exists, 40, f"{name} is obeyed")

    def drain(self, _deadline):
        self.signal(signal.SIGTERM)

    def finish(self):
        assert self.exit_status(60) == 0, self.output

    def others(self):
        """What FOJ's own heartbeat says of it, with the same limit, and whether it answers Celery's ping."""
        yield "FOJ's heartbeat", "alive" if foj_passes(self.foj_file, PROMISE) else "dead"
        answered = bool(self.client.control.ping(destination=[self.name], timeout=1.5))
        yield "`inspect ping`", "alive" if answered else "dead"


class DjangoQ(clusters.Cluster):
    """A cluster of two workers on a broker of the stage's, and a site of its own."""

    loop = True
    # What it takes for a loop budget longer than its guard's cycle of 0.5 s.
    budget = 2.0

    def __init__(self, scene, environment, under=(), drain_deadline=60, task_deadline=60):
        self.scene = scene
        folder = scene.folder / ".site"
        folder.mkdir()
        beat = {"file": environment["HEARTBEAT_FILE"] if scene.sink != "key" else False}
        if url := environment.get("HEARTBEAT_REDIS_URL"):
            beat["redis"] = url
        beat |= {
            "cluster": environment["HEARTBEAT_CLUSTER"], "worker": "w", "queues": ["mail"], "interval": INTERVAL,
            "promise": scene.promise, "loop_budget": self.budget, "drain_deadline": drain_deadline, "task_deadline": task_deadline,
        }  # fmt: skip
        self.broker, self.name = f"{scene.stage.broker.url.rpartition('/')[0]}/1", f"shop-{scene.id}"
        broker = f"unix://{scene.stage.broker_socket}?db=1" if scene.broker_nearby else self.broker
        q = {"name": self.name, "redis": broker, "timeout": None}
        site = clusters.Site(None, folder, clusters.sqlite(folder, scene.stage.tables()), clusters.own_cache(), q, **beat)
        command = [*under, sys.executable, "-m", "django", "qcluster"]
        super().__init__(site, harness.Program(command, site.environment(), clusters.HERE))

    def up(self):
        return self.running()

    @property
    def subject(self):
        return self.sentinel

    def task(self, _deadline, length):
        """Sends a task; gives the moment at which it began."""
        send = f"import django; django.setup()\nfrom django_q.tasks import async_task\nasync_task('django_q_site.work', {length})"
        command = [sys.executable, "-c", send]
        subprocess.run(command, env=self.site.environment(), cwd=clusters.HERE, check=True, capture_output=True, timeout=300)
        self.site.has_begun(timeout=60)
        return time.monotonic() - (time.time() - (self.site.folder / "begun-0").stat().st_mtime)

    def stand(self, seconds):
        """The guard's loop waits for its log, in which it would tell that the pusher is no more."""
        (self.site.folder / "stuck").touch()
        self.kill("pusher")

    def go_on(self):
        (self.site.folder / "stuck").unlink()

    def drain(self, _deadline):
        self.terminate()

    def finish(self):
        assert self.program.exit_status(60) == 0, self.output

    def others(self):
        """Whether Django-Q2's own stat of its cluster is there, as it looks for it itself."""
        with redis.Redis.from_url(self.broker, socket_timeout=5) as client:
            yield "Django-Q2's stat", "alive" if client.keys(f"django_q:{self.name}:cluster:*") else "dead"

    def end(self):
        self.program.end()
