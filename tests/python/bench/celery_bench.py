"""What the heartbeat costs a Celery worker: tasks a second and processor time with and without it, and the time of its import.

A worker has its tasks before it starts, so that sending is no part of it, and does them in stretches: with the bootstep for one, without it
for the next. Between two it is started anew or stopped, all of it, and only the worker takes the time, from a task of a stretch to its last.
Two stretches beside each other give one ratio, so that what else goes on on the machine meets both alike, and both are done by one
process: two of one program differ by some percent by where their memory happens to lie. Which of a pair comes first changes with each
pair. The main process has one processor for itself, whatever else there is has the others. The figure is the mean over the workers of the
means of their ratios, without the tenth at each end; the interval is that of drawing workers anew, and the pairs of each. What a worker
does beside tasks, its beats among it, is measured of two that have no task, one with the bootstep and one without.

And what a task takes of a worker's main process is counted, instruction by instruction, by valgrind: that is the same on any machine, whatever
else it does. It counts a task's share alone: neither what comes every so many seconds, nor Python's collections of garbage.

No test: it wants a machine with nothing else to do, and says what else it had.
"""

import argparse
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from functools import partial
from pathlib import Path
from types import SimpleNamespace

from celery import Celery
from redis import Redis

import harness

HERE = Path(__file__).parent


class Worker(harness.Program):
    def __init__(self, pool, url, file, under=(), arguments=(), queue=None, **more):
        self.queue = queue or f"q-{uuid.uuid4().hex[:8]}"
        env = {"BROKER_URL": url, "QUEUE": self.queue, "PYTHONDONTWRITEBYTECODE": 1, "PYTHONUNBUFFERED": 1} | more
        if file:
            env["BEAT_FILE"] = file
        command = [sys.executable, "-m", "celery", "-A", "bench_app", "worker", "--loglevel", "WARNING", "--pool", pool]
        command += ["--concurrency", "1", "--hostname", f"{self.queue}@bench", *arguments]
        super().__init__([*under, *command], env=harness.environment(**env), cwd=HERE)


class Line:
    """The way of tasks to a worker and of word that the last is done, written by hand: what is measured is the worker."""

    def __init__(self, url):
        self.redis, self.app = Redis.from_url(url, socket_timeout=900), Celery("bench", broker=url)
        self._templates = {}

    def template(self, queue):
        """A message as Celery itself sends it, to a queue that no worker takes it from."""
        self.app.send_task("nothing", queue=f"template-{queue}")
        return self.redis.rpop(f"template-{queue}").replace(f"template-{queue}".encode(), queue.encode())

    def send(self, queue, template, tasks):
        messages = []
        for number in range(tasks):
            message = json.loads(template)
            message["headers"]["id"] = message["properties"]["correlation_id"] = str(uuid.uuid4())
            message["properties"]["delivery_tag"] = str(uuid.uuid4())
            if number == tasks - 1:
                message["headers"]["task"] = "last"
            messages.append(json.dumps(message))
        for at in range(0, tasks, 1000):
            self.redis.lpush(queue, *messages[at : at + 1000])

    def wait(self, queue):
        assert self.redis.blpop(f"done-{queue}", timeout=600), "the last task was done"

    def burst(self, queue, template, tasks):
        self.send(queue, template, tasks)
        self.wait(queue)


def cpu(worker):
    """Seconds of processor time of a worker, its threads and its children until now, as the scheduler counts it."""
    nanoseconds = 0
    for pid in harness.session_members(worker.pid):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            nanoseconds += int((thread / "schedstat").read_text().split()[0])
    return nanoseconds / 1e9


def throughput(pool, workers, pairs, tasks):
    """How much longer a worker takes for its tasks with the bootstep than without, by the clock and by the processor's time."""
    cores = sorted(os.sched_getaffinity(0))
    try:
        # The worker's main process has a processor for itself.
        os.sched_setaffinity(0, cores[:-1] or cores)
        measured = [alternating(pool, pairs, tasks, number, cores) for number in range(workers)]
    finally:
        os.sched_setaffinity(0, cores)
    wall, processor = ([[pair[which] for pair in of_one] for of_one in measured] for which in (0, 1))
    rate = {name: tasks / statistics.median(pair[2][name] for of_one in measured for pair in of_one) * 1e9 for name in ("without", "with")}
    print(
        f"{pool:8} {rate['without']:5.0f} tasks/s without, {rate['with']:5.0f} with: {interval(wall)} of time,"
        f" {interval(processor)} of the main process's processor time"
        f" ({workers} workers, {pairs} pairs of stretches each, {tasks} tasks a stretch; a pair differs by {spread(wall):.1%})",
        flush=True,
    )


def alternating(pool, pairs, tasks, number, cores):
    """Of each pair of stretches of one worker: the ratios of time and of processor time, and what the two took."""
    # The second of a pair comes first in the next one, so that what drifts meets both alike; and every other worker begins otherwise.
    order = ["with", "without"] if number % 2 else ["without", "with"]
    names = [name for turn in range(pairs) for name in (order if turn % 2 else reversed(order))]
    between, first = max(tasks // 4, 20), 500
    more = {"CORE": cores[-1], "CHILDREN_CORE": cores[0]} if len(cores) > 1 else {}
    if pool != "prefork":
        more.pop("CHILDREN_CORE", None)
    with tempfile.TemporaryDirectory(prefix="heartbeat-bench-") as folder:
        redis = harness.start_redis(folder)
        line, file, measured = Line(redis.url), Path(folder) / "beat", Path(folder) / "measured"
        stretches = json.dumps({"names": names, "tasks": tasks, "between": between, "first": first})
        queue = f"q-{uuid.uuid4().hex[:8]}"
        # All of them are there before the worker is.
        line.send(queue, line.template(queue), first + len(names) * (tasks + between))
        worker = Worker(pool, redis.url, file, queue=queue, STRETCHES=stretches, MEASURED=measured, **more)
        try:
            line.wait(queue)
            took = json.loads(measured.read_text())
        finally:
            worker.end()
            redis.end()
        assert "Traceback" not in worker.output, worker.output
    assert [name for name, _, _ in took] == names, worker.output
    both = [{name: figures for name, *figures in took[at : at + 2]} for at in range(0, len(took), 2)]
    return [
        (*(pair["with"][which] / pair["without"][which] for which in (0, 1)), {name: pair[name][0] for name in pair}) for pair in both
    ]


def trimmed(ratios):
    """The mean without the tenth at each end."""
    ratios, cut = sorted(ratios), len(ratios) // 10
    return statistics.mean(ratios[cut : len(ratios) - cut])


def interval(by_worker, draws=2000):
    """The mean of the workers' trimmed means, and where 19 of 20 draws have it: percent more than 1, in words."""
    chance = random.Random(1)
    means = []
    for _ in range(draws):
        drawn = chance.choices(by_worker, k=len(by_worker))
        means.append(statistics.mean(trimmed(chance.choices(ratios, k=len(ratios))) for ratios in drawn))
    means.sort()
    low, high = means[draws // 40], means[-draws // 40]
    return f"{statistics.mean(map(trimmed, by_worker)) - 1:+.2%} ({low - 1:+.2%} to {high - 1:+.2%})"


def spread(by_worker):
    return statistics.stdev(ratio for ratios in by_worker for ratio in ratios)


def beside(pool, seconds=20):
    """Processor time of a worker that has nothing to do, with the bootstep and without."""
    with tempfile.TemporaryDirectory(prefix="heartbeat-bench-") as folder:
        redis = harness.start_redis(folder)
        line, file = Line(redis.url), Path(folder) / "beat"
        workers = {"without": Worker(pool, redis.url, None), "with": Worker(pool, redis.url, file)}
        try:
            for worker in workers.values():
                line.burst(worker.queue, line.template(worker.queue), 50)
            begin = {name: cpu(worker) for name, worker in workers.items()}
            time.sleep(seconds)
            spent = {name: (cpu(worker) - begin[name]) / seconds * 1e3 for name, worker in workers.items()}
        finally:
            for worker in workers.values():
                worker.end()
            redis.end()
    print(f"{pool:8} with nothing to do: {spent['without']:.2f} ms of a second without, {spent['with']:.2f} with", flush=True)


def counted(pool, tasks):
    """Instructions that a task takes in the worker's main process, with the bootstep and without."""
    count = {name: instructions(pool, name == "with", tasks) for name in ("without", "with")}
    more = count["with"] - count["without"]
    print(f"{pool:8} {count['without']:,.0f} instructions a task without, {more:,.0f} more with: {more / count['without']:+.2%}", flush=True)


def instructions(pool, probed, tasks):
    with tempfile.TemporaryDirectory(prefix="heartbeat-bench-") as folder:
        redis = harness.start_redis(folder)
        under = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={folder}/counted"]
        quiet = ["--without-heartbeat", "--without-gossip", "--without-mingle"]
        worker = Worker(pool, redis.url, Path(folder) / "beat" if probed else None, under, quiet, PYTHONHASHSEED=0, STILL=1)
        try:
            line = Line(redis.url)
            template = line.template(worker.queue)
            line.burst(worker.queue, template, 50)
            for order in ("--instr=on", "--zero"):
                subprocess.run(["callgrind_control", order, str(worker.pid)], check=True, capture_output=True)
            line.burst(worker.queue, template, tasks)
            subprocess.run(["callgrind_control", "--dump", str(worker.pid)], check=True, capture_output=True)
            (totals,) = re.findall(r"^totals: (\d+)", Path(folder, "counted.1").read_text(), re.MULTILINE)
            return int(totals) / tasks
        finally:
            worker.end()
            redis.end()


def by_itself(calls=300, rounds=200):
    """What the bootstep does for one task, called again and again with all of it in the processor's cache: the least of it."""
    import heartbeat
    from celery.concurrency.base import apply_target
    from heartbeat.celery import _Probe, _Settings

    def nothing(*_):
        return False, None, 0.0

    def pool(target, args=None, kwargs=None, **options):
        return apply_target(target, args, kwargs, **options)

    def least(apply):
        callbacks = {f"{name}callback": nothing for name in ("accept_", "timeout_", "", "error_")}
        times = []
        for _ in range(rounds):
            begin = time.thread_time()
            for _ in range(calls):
                apply(nothing, args=("nothing",), soft_timeout=None, timeout=None, correlation_id="id", **callbacks)
            times.append((time.thread_time() - begin) / calls)
        return min(times) * 1e6

    worker = SimpleNamespace(hub=True, concurrency=1, time_limit=None, soft_time_limit=None, pool=None)
    with heartbeat.Heartbeat(file=False) as beating:
        probe = _Probe(beating, _Settings(Celery(), "bench"), worker)
        for probe.in_children in (False, True):
            words = "prefork" if probe.in_children else "solo"
            print(f"the bootstep by itself, {words}: {least(partial(probe.apply, pool)) - least(pool):.1f} us a task", flush=True)
        probe.watch.end()


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
    parser.add_argument("--workers", type=int, default=6, help="one after another")
    parser.add_argument("--pairs", type=int, default=44, help="of stretches, for each worker")
    parser.add_argument("--tasks", type=int, default=200, help="in a stretch")
    parser.add_argument("--counted", action="store_true", help="count the instructions, and nothing else")
    options = parser.parse_args()
    before = os.getloadavg()[0]
    pools = options.pool or ["prefork", "solo", "threads", "gevent"]
    for pool in pools:
        counted(pool, 200)
    if options.counted:
        return
    imports()
    by_itself()
    for pool in pools:
        beside(pool)
        throughput(pool, options.workers, options.pairs, options.tasks)
    print(f"load average {before:.1f} before, {os.getloadavg()[0]:.1f} at the end, on {os.cpu_count()} processors")


main()
