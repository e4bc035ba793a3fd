"""The programs of the package's page, as they stand there: alone, and in the real RQ, Dramatiq and Huey."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import harness
from blocks import blocks
from harness import record, until, verdict

PAGE = harness.REPOSITORY / "heartbeat" / "python" / "README.md"


@pytest.fixture
def recipe(tmp_path):
    """Writes a program of the page as a module into the test's folder."""
    programs = {block.comment("recipe"): block.text for block in blocks(PAGE, PAGE.read_text()) if block.comment("recipe")}

    def write(name):
        (tmp_path / f"{name}.py").write_text(programs[name])
        return name

    return write


@pytest.fixture
def program(start, beat, tmp_path):
    """Starts a command of the environment with the test's folder as its own, and the beat file at `beat`."""

    def begin(command, *arguments, **extra):
        env = harness.environment(HEARTBEAT_FILE=beat, HEARTBEAT_INTERVAL="50ms", PYTHONPATH=tmp_path, **extra)
        # A package beside the wheel has its commands in its own environment, for that one's interpreter.
        folders = [Path(entry).parents[2] / "bin" for entry in sys.path if entry.endswith("site-packages")]
        script = next(folder / command for folder in folders if (folder / command).exists())
        return start(harness.Program, [sys.executable, script, *arguments], env, tmp_path)

    return begin


@pytest.mark.parametrize("name", ["plain", "on_asyncio"])
def test_the_first_programs_of_the_page_run(start, recipe, beat, tmp_path, name):
    env = harness.environment(HEARTBEAT_FILE=beat, HEARTBEAT_INTERVAL="50ms")
    worker = start(harness.Program, [sys.executable, f"{recipe(name)}.py"], env, tmp_path)
    seen = until(lambda: beat.exists() and (now := record(beat)) and now["tasks"]["running"] and "loop" in now and now)
    assert seen["queues"] == ["resize"] and seen["tasks"]["name"] == "resize"
    assert worker.exit_status() == 0, worker.output
    assert not beat.exists()


def wait(worker, fact, timeout=30):
    try:
        return until(fact, timeout)
    except AssertionError as late:
        raise AssertionError(f"{late}\n{worker.output}") from None


def busy(beat, name):
    return beat.exists() and record(beat)["tasks"].get("name", "").endswith(name)


def check_worker(worker, beat, enqueue, end=signal.SIGTERM):
    """The same of each: it is alive, its tasks are seen and counted, and a signal drains and ends it."""
    wait(worker, lambda: verdict(beat).name == "alive")
    enqueue(0.1)
    wait(worker, lambda: record(beat)["tasks"]["done"] == 1)
    enqueue(5.0)
    wait(worker, lambda: busy(beat, "resize"))
    worker.signal(end)
    wait(worker, lambda: record(beat)["status"] == "draining")
    assert worker.exit_status(30) == 0, worker.output
    assert not beat.exists()


def test_rq(program, recipe, beat, broker, tmp_path):
    import redis
    from rq import Queue

    recipe("beating_rq")
    (tmp_path / "jobs.py").write_text("import time\ndef resize(seconds): time.sleep(seconds)\n")
    worker = program("rq", "worker", "--url", broker.url, "--worker-class", "beating_rq.BeatingWorker", "mail")
    queue = Queue("mail", connection=redis.Redis.from_url(broker.url))
    wait(worker, lambda: beat.exists() and record(beat)["queues"] == ["mail"])
    wait(worker, lambda: "loop" in record(beat))
    # The process of a job is stopped: overdue long before its timeout of 180 s.
    queue.enqueue("jobs.resize", 60.0)
    wait(worker, lambda: busy(beat, "resize"))
    assert verdict(beat).name == "alive"
    children = Path(f"/proc/{worker.pid}/task/{worker.pid}/children")
    horse = int(until(lambda: children.read_text().split())[-1])
    os.kill(horse, signal.SIGSTOP)
    wait(worker, lambda: verdict(beat).name == "overdue")
    os.kill(horse, signal.SIGKILL)
    wait(worker, lambda: record(beat)["tasks"]["done"] == 1)
    queue.enqueue("jobs.resize", 3.0)
    wait(worker, lambda: busy(beat, "resize"))
    worker.signal(signal.SIGTERM)
    wait(worker, lambda: record(beat)["status"] == "draining")
    assert worker.exit_status(30) == 0, worker.output
    assert not beat.exists()


def test_dramatiq(program, recipe, beat, broker, tmp_path):
    recipe("beating_dramatiq")
    worker = program("dramatiq", "--processes", "1", "--threads", "2", "beating_dramatiq", BROKER_URL=broker.url)
    code = "import sys, beating_dramatiq\nbeating_dramatiq.resize.send(float(sys.argv[1]))"
    env = harness.environment(PYTHONPATH=tmp_path, BROKER_URL=broker.url)
    enqueue = lambda seconds: subprocess.run([sys.executable, "-c", code, str(seconds)], env=env, check=True)  # noqa: E731
    check_worker(worker, beat, enqueue)


def test_huey(program, recipe, beat, tmp_path):
    recipe("beating_huey")
    worker = program("huey_consumer", "beating_huey.huey", "--worker-type", "thread", "--workers", "2")
    code = "import sys, beating_huey\nbeating_huey.resize(float(sys.argv[1]))"
    env = harness.environment(PYTHONPATH=tmp_path)
    enqueue = lambda seconds: subprocess.run([sys.executable, "-c", code, str(seconds)], env=env, cwd=tmp_path, check=True)  # noqa: E731
    # To Huey, SIGTERM means at once.
    check_worker(worker, beat, enqueue, signal.SIGINT)
