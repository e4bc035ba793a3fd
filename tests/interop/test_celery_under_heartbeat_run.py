"""A real Celery worker, unchanged, started by `heartbeat run`: its stop, its exit status, its death, its broker's death."""

import os
import signal

import pytest

import foj
from celery_worker import CeleryWorker
from harness import HEARTBEAT, Program, record, until, verdict


@pytest.fixture
def run(start, broker, tmp_path):
    """Starts Celery under `heartbeat run` and waits until both say that it is up."""

    def begin(*arguments, broker=broker, **keywords):
        file = tmp_path / "beat"
        under = [HEARTBEAT, "run", "--file", file, "--interval", "100ms", *arguments, "--"]
        worker = start(CeleryWorker, broker, under=under, **keywords)
        worker.file = file
        worker.ready()
        until(lambda: verdict(file).name == "alive")
        return worker

    return begin


@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_a_stop_in_the_middle_of_a_task_lets_it_finish_and_shows_the_drain(run, pool):
    worker = run("--stop-timeout", "30s", pool=pool)
    task = worker.send_work(4)
    until(lambda: task.state == "STARTED", what="the task runs")

    worker.signal(signal.SIGTERM)

    draining = until(lambda: (v := verdict(worker.file)).name == "draining" and v, timeout=2)
    assert draining.passes, "a draining worker is live"
    assert not verdict(worker.file, "--for", "ready").passes, "and takes no new work"
    assert task.state == "STARTED", "all this while the task was still running"
    assert worker.exit_status() == 0
    assert task.get(timeout=5) == "done"
    assert not worker.file.exists()
    assert verdict(worker.file).name == "missing"


@pytest.mark.parametrize("command, status", [("true", 0), ("exit 7", 7), ("kill -TERM $$", 143)])
def test_the_exit_status_is_the_commands_own(start, tmp_path, command, status):
    program = start(Program, [HEARTBEAT, "run", "--file", tmp_path / "beat", "--", "sh", "-c", command])
    assert program.exit_status() == status
    assert not (tmp_path / "beat").exists()


def test_celerys_own_exit_status_is_passed_on_when_it_cannot_start(start, broker, tmp_path):
    alone = start(CeleryWorker, broker, application="no_such_application").exit_status()
    assert alone != 0
    under = [HEARTBEAT, "run", "--file", tmp_path / "beat", "--"]
    assert start(CeleryWorker, broker, application="no_such_application", under=under).exit_status() == alone


def test_celerys_own_exit_status_is_passed_on_after_a_cold_shutdown(start, run, broker):
    alone = start(CeleryWorker, broker).ready()
    alone.signal(signal.SIGQUIT)
    under = run()
    under.signal(signal.SIGQUIT)
    assert under.exit_status() == alone.exit_status()


def test_a_celery_killed_outright_is_told_by_the_exit_status_and_the_file(run):
    worker = run(pool="prefork")
    celery = record(worker.file)["pid"]
    assert celery != worker.pid, "the record is about Celery, not about `heartbeat run`"
    os.kill(celery, signal.SIGKILL)
    assert worker.exit_status() == 128 + signal.SIGKILL
    assert not worker.file.exists()


def test_a_dead_broker_stops_fojs_beat_and_not_ours(run, own_broker, tmp_path):
    """With the broker away the worker retries, alive. Killing it would help nobody."""
    probe_file = tmp_path / "foj"
    worker = run(broker=own_broker, probe_file=probe_file)
    assert foj.passes(probe_file, max_age=2)
    own_broker.end()
    until(lambda: not foj.passes(probe_file, max_age=2), timeout=10)
    assert verdict(worker.file).name == "alive"
    assert worker.process.poll() is None
