"""The programs of heartbeat/cli/RECIPES.md, as they stand there: alive, hanging, stopped, ended, killed; each in both ways."""

import json
import os
import re
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

import harness
from celery_worker import CeleryWorker
from harness import CHECKER, HEARTBEAT, REPOSITORY, TARGET, Program, record, until, verdict

PAGE = REPOSITORY / "heartbeat" / "cli" / "RECIPES.md"
BLOCK = re.compile(r"<!-- (?P<word>file|start): (?P<file>\S+) -->\n```(?P<language>\w+)\n(?P<text>.*?)```\n", re.S)
FOUND = [match.groupdict() for match in BLOCK.finditer(PAGE.read_text())]
FILES = {block["file"]: block["text"] for block in FOUND if block["word"] == "file"}
NODE_MODULES = Path(os.environ.get("TESTS_NODE", TARGET / "tests-node")).absolute() / "node_modules"
# A touched file is old, and a worker under `heartbeat run` lost, after so long; the page has 30 s for both.
AGE = 2
LIMIT = 1


def start_of(file, way):
    """The page's own command that starts this file, in one of the two ways."""
    (command,) = (b["text"] for b in FOUND if (b["word"], b["file"]) == ("start", file) and ("heartbeat run" in b["text"]) == (way == "run"))
    return command


class Worker(Program):
    """A program of the page, started as the page has it, but for the folder of its files."""

    def __init__(self, file, way, folder, redis_url):
        self.way = way
        self.beat = folder / ("heartbeat" if way == "run" else "alive")
        (folder / file).write_text(FILES[file])
        for program in (CHECKER, HEARTBEAT):
            link = folder / "bin" / program.name
            link.parent.mkdir(exist_ok=True)
            link.exists() or link.symlink_to(program)
        environment = harness.environment(
            PATH=f"{folder}/bin:{os.environ['PATH']}",
            REDIS_URL=redis_url,
            HEARTBEAT_INTERVAL="100ms",
            HEARTBEAT_PROMISE=f"{AGE}s",
            JOB_LIMIT=LIMIT,
            JOB_LIMIT_MS=LIMIT * 1000,
        )
        command = start_of(file, way).replace("/run/worker", str(folder))
        # As many distributions have it for their users: what is touched carelessly is writable for a group.
        super().__init__(["bash", "-c", command], environment, folder, umask=0o002)

    def verdict(self, *more):
        age = ["--max-age", f"{AGE}s"] if self.way == "touch" else []
        return verdict(self.beat, *age, *more).name

    def becomes(self, expected):
        until(lambda: self.verdict() == expected, timeout=30, what=f"{expected}; {self.verdict()}: {self.output}")

    @property
    def worker_pid(self):
        """The process that does the work: bash has made way for it, and `heartbeat run` is its parent."""
        return record(self.beat)["pid"] if self.way == "run" else self.pid


@dataclass
class Shell:
    """Jobs are files; the work takes as long as the stub in the place of `sha256sum` says."""

    folder: Path
    broker: object
    file = "worker.sh"

    def prepare(self):
        stub = self.folder / "bin" / "sha256sum"
        stub.parent.mkdir()
        stub.write_text('#!/bin/sh\nsleep "${1##*-}"\nexec /usr/bin/sha256sum "$1"\n')
        stub.chmod(0o755)
        (self.folder / "inbox").mkdir()

    def push(self, seconds):
        (self.folder / f"{seconds}").write_text("job")
        (self.folder / f"{seconds}").rename(self.folder / "inbox" / f"job-{seconds}")

    def taken(self, worker):
        return len(list((self.folder / "done").glob("*.sum"))) > self.done(worker)

    def done(self, worker):
        return len([job for job in (self.folder / "done").glob("job-*") if job.suffix != ".sum"])


@dataclass
class Node:
    folder: Path
    broker: object
    file = "worker.mjs"

    def prepare(self):
        (self.folder / "node_modules").symlink_to(NODE_MODULES)
        (self.folder / "push.mjs").write_text(
            'import { Queue } from "bullmq";\n'
            "const queue = new Queue('letters', { connection: { url: process.argv[2] } });\n"
            "await queue.add('letter', JSON.parse(process.argv[3]));\n"
            "await queue.close();\n"
        )
        self.redis = redis.Redis.from_url(self.broker.url)

    def push(self, seconds, **more):
        data = json.dumps({"milliseconds": seconds * 1000} | more)
        subprocess.run(["node", "push.mjs", self.broker.url, data], cwd=self.folder, check=True, timeout=60)

    def taken(self, worker):
        return self.redis.llen("bull:letters:active")

    def done(self, worker):
        return self.redis.zcard("bull:letters:completed")


@dataclass
class Sidekiq:
    folder: Path
    broker: object
    file = "worker.rb"

    def prepare(self):
        self.redis = redis.Redis.from_url(self.broker.url)
        self.jobs = 0

    def push(self, seconds):
        self.jobs += 1
        job = {"class": "Letter", "args": [seconds], "queue": "default", "jid": f"{self.jobs:024x}", "retry": 3, "created_at": 0, "enqueued_at": 0}
        self.redis.sadd("queues", "default")
        self.redis.lpush("queue:default", json.dumps(job))

    def taken(self, worker):
        return worker.output.count("INFO: start") > self.done(worker)

    def done(self, worker):
        return worker.output.count("INFO: done")


@pytest.fixture(params=[Shell, Node, Sidekiq], ids=lambda kind: kind.file)
def recipe(request, tmp_path, own_broker):
    folder = tmp_path / "worker"
    folder.mkdir()
    made = request.param(folder, own_broker)
    made.prepare()
    return made


@pytest.fixture(params=["run", "touch"])
def worker(request, start, recipe):
    """A worker of the page that is alive and has done a job."""
    program = start(Worker, recipe.file, request.param, recipe.folder, recipe.broker.url)
    program.becomes("alive")
    recipe.push(0)
    until(lambda: recipe.done(program) == 1, timeout=30, what=f"the job is done: {program.output}")
    return program


def test_every_program_of_the_page_is_run_here():
    fences = re.findall(r"(?m)^```(\w+)$", PAGE.read_text())
    assert len(FOUND) == len(fences), "each block says which file it is, or starts"
    assert set(FILES) == {kind.file for kind in (Shell, Node, Sidekiq)} | {"alive.py"}


def test_stopped_then_hanging_then_killed(worker, recipe):
    """One after another, because it takes long to start them."""
    os.kill(worker.worker_pid, signal.SIGSTOP)
    worker.becomes("silent")
    os.kill(worker.worker_pid, signal.SIGCONT)
    worker.becomes("alive")

    recipe.push(60)
    until(lambda: recipe.taken(worker), timeout=30, what="the job has begun")
    if worker.way == "touch":
        worker.becomes("silent")
    else:
        # Only its process is judged, as the page says.
        end = time.monotonic() + AGE + LIMIT
        while time.monotonic() < end:
            assert worker.verdict() == "alive"
            time.sleep(0.1)

    os.kill(worker.worker_pid, signal.SIGKILL)
    assert worker.exit_status() == 128 + signal.SIGKILL
    worker.becomes("missing" if worker.way == "run" else "silent")


def test_a_stop_lets_the_job_end_and_leaves_no_file(worker, recipe):
    recipe.push(3)
    until(lambda: recipe.taken(worker), timeout=30, what="the job has begun")
    worker.signal(signal.SIGTERM)
    if worker.way == "run":
        worker.becomes("draining")
    assert worker.exit_status(60) == 0, worker.output
    assert recipe.done(worker) == 2
    assert worker.verdict() == "missing"
    assert not worker.beat.exists()


@pytest.mark.parametrize("recipe", [Node, Sidekiq], indirect=True, ids=lambda kind: kind.file)
@pytest.mark.parametrize("worker", ["touch"], indirect=True)
def test_one_whose_broker_is_away_goes_on_touching(worker, recipe):
    recipe.broker.end()
    end = time.time() + AGE
    until(lambda: worker.beat.stat().st_mtime > end, timeout=30, what=f"touches: {worker.output}")
    assert worker.verdict() == "alive"


@pytest.mark.parametrize("recipe", [Node], indirect=True, ids=lambda kind: kind.file)
@pytest.mark.parametrize("worker", ["touch"], indirect=True)
def test_one_whose_event_loop_is_blocked_touches_nothing(worker, recipe):
    recipe.push(2 * AGE, blocking=True)
    worker.becomes("silent")
    worker.becomes("alive")


# --- Celery, with a bootstep of its own ---------------------------------------------------------------------------


@pytest.fixture
def celery(start, tmp_path, own_broker):
    def begin(pool):
        (tmp_path / "alive.py").write_text(FILES["alive.py"])
        (tmp_path / "touching.py").write_text('import alive\nfrom celery_app import app\n\napp.steps["worker"].add(alive.Alive)\n')
        more = {"ALIVE_FILE": tmp_path / "alive", "PYTHONPATH": tmp_path}
        worker = start(CeleryWorker, own_broker, pool=pool, application="touching", umask=0o002, **more).ready()
        worker.judged = lambda: verdict(tmp_path / "alive", "--max-age", f"{AGE}s").name
        worker.becomes = lambda expected: until(lambda: worker.judged() == expected, timeout=30, what=expected)
        worker.becomes("alive")
        return worker

    return begin


def test_celerys_timer_turns_beside_a_task_in_a_child_and_not_without_its_broker(celery, own_broker):
    worker = celery("prefork")
    task = worker.send_work(2 * AGE)
    until(lambda: task.state == "STARTED", what="the task runs")
    touched = worker.judged()
    assert touched == "alive"
    own_broker.end()
    worker.becomes("silent")
    assert worker.process.poll() is None


def test_celerys_timer_waits_for_a_task_in_the_solo_pool_and_a_stop_removes_the_file(celery):
    worker = celery("solo")
    worker.send_work(2 * AGE)
    worker.becomes("silent")
    worker.becomes("alive")
    worker.signal(signal.SIGTERM)
    assert worker.exit_status(30) == 0, worker.output
    assert worker.judged() == "missing"
