"""What the heartbeat costs a Celery worker: tasks a second with and without it, and the time of its import.

Two workers of a pool stand side by side, one with the bootstep and one without, and take turns: each has a burst of tasks to do while the other
waits, first one first, then the other. A pair of bursts gives one ratio, and the median of the ratios is told, so that what else goes
on on the machine meets both alike. No test: it wants a machine with nothing else to do, and says so.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

from celery import Celery
from redis import Redis

import harness

HERE = Path(__file__).parent


class Worker(harness.Program):
    def __init__(self, pool, url, file):
        self.queue = f"q-{uuid.uuid4().hex[:8]}"
        env = {"BROKER_URL": url, "QUEUE": self.queue, "PYTHONDONTWRITEBYTECODE": 1, "PYTHONUNBUFFERED": 1}
        if file:
            env["BEAT_FILE"] = file
        command = [sys.executable, "-m", "celery", "-A", "bench_app", "worker", "--loglevel", "WARNING", "--pool", pool]
        command += ["--concurrency", "1", "--hostname", f"{self.queue}@bench"]
        super().__init__(command, env=harness.environment(**env), cwd=HERE)


class Line:
    """The way of tasks to a worker and of word that the last is done, written by hand: what is measured is the worker."""

    def __init__(self, url):
        self.redis, self.app = Redis.from_url(url, socket_timeout=180), Celery("bench", broker=url)
        self._templates = {}

    def template(self, queue):
        """A message as Celery itself sends it, taken from the broker before a worker is there to do so."""
        self.app.send_task("nothing", queue=queue)
        return self.redis.rpop(queue)

    def burst(self, queue, template, tasks):
        """Seconds from the first message to the end of the last task."""
        messages = []
        for number in range(tasks):
            message = json.loads(template)
            message["headers"]["id"] = message["properties"]["correlation_id"] = str(uuid.uuid4())
            message["properties"]["delivery_tag"] = str(uuid.uuid4())
            if number == tasks - 1:
                message["headers"]["task"] = "last"
            messages.append(json.dumps(message))
        begin = time.perf_counter()
        self.redis.lpush(queue, *messages)
        assert self.redis.blpop(f"done-{queue}", timeout=120), "the last task was done"
        return time.perf_counter() - begin


def cpu(worker):
    """Seconds of processor time of a worker, its threads and its children until now, as the scheduler counts it."""
    nanoseconds = 0
    for pid in harness.session_members(worker.pid):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            nanoseconds += int((thread / "schedstat").read_text().split()[0])
    return nanoseconds / 1e9


def middle(ratios):
    """The median of the ratios, and the standard error of that, in words."""
    error = 1.25 * statistics.stdev(ratios) / len(ratios) ** 0.5
    # The middle half tells what is usual: a burst that something else disturbed is in neither the median nor this.
    quarters = statistics.quantiles(ratios, n=4)
    robust = min(error, 1.25 * (quarters[2] - quarters[0]) / 1.35 / len(ratios) ** 0.5)
    return f"{statistics.median(ratios) - 1:+.2%} ± {robust:.2%}"


def throughput(pool, rounds, tasks):
    with tempfile.TemporaryDirectory(prefix="heartbeat-bench-") as folder:
        redis = harness.start_redis(folder)
        line = Line(redis.url)
        workers = {"without": Worker(pool, redis.url, None), "with": Worker(pool, redis.url, Path(folder) / "beat")}
        try:
            templates = {}
            for name, worker in workers.items():
                # Its own words are not there at this level of the log: the first task says that it is ready.
                templates[name] = line.template(f"template-{worker.queue}")
                templates[name] = templates[name].replace(f"template-{worker.queue}".encode(), worker.queue.encode())
                line.burst(worker.queue, templates[name], tasks)
            assert harness.verdict(Path(folder) / "beat").name == "alive"
            wall, processor, seconds = [], [], {"with": [], "without": []}
            for turn in range(rounds):
                took, spent = {}, {}
                for name in ("with", "without") if turn % 2 else ("without", "with"):
                    worker = workers[name]
                    begin = cpu(worker)
                    took[name] = line.burst(worker.queue, templates[name], tasks)
                    spent[name] = cpu(worker) - begin
                    seconds[name].append(took[name])
                wall.append(took["with"] / took["without"])
                processor.append(spent["with"] / spent["without"])
        finally:
            for worker in workers.values():
                worker.end()
            redis.end()
    rate = {name: tasks / statistics.median(each) for name, each in seconds.items()}
    print(
        f"{pool:8} {rate['without']:6.0f} tasks/s without, {rate['with']:6.0f} with; a burst takes {middle(wall)}, and {middle(processor)}"
        f" of processor time (medians of {rounds} pairs of {tasks} tasks, and their standard errors)",
        flush=True,
    )


def imports(rounds=15):
    """The time of an import in a fresh interpreter, and of ours in one that has what a worker has anyway."""
    for before, module in (("time", "celery"), ("time", "celery.bin.worker"), ("time", "heartbeat"), ("celery.bin.worker", "heartbeat.celery")):
        code = f"import time, {before}; begin = time.perf_counter(); import {module}; print(time.perf_counter() - begin)"
        times = []
        for _ in range(rounds):
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
            times.append(float(done.stdout) * 1e3)
        after = "" if before == "time" else f" after {before}"
        print(f"import {module}{after}: {min(times):.1f} ms at least, {statistics.median(times):.1f} ms in the middle of {rounds}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pool", action="append", choices=["prefork", "solo", "threads", "gevent"])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--tasks", type=int, default=100)
    options = parser.parse_args()
    imports()
    for pool in options.pool or ["prefork", "solo", "threads"]:
        throughput(pool, options.rounds, options.tasks)
    print(f"load average at the end: {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")


main()
