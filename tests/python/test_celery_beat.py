"""`heartbeat.celery.BeatProbe` in the real scheduler, alone and embedded in a worker."""

import json
import signal
import sys
from pathlib import Path

import pytest

import harness
from harness import until

HERE = Path(__file__).parent
SCHEDULE = {"tick": {"task": "tick", "schedule": 1.0}}


@pytest.fixture
def celery(start, tmp_path):
    def begin(url, *arguments, **settings):
        settings = {"heartbeat_file": str(tmp_path / "%n"), "heartbeat_interval": 0.1, "heartbeat_promise": 3} | settings
        env = {"BROKER_URL": url, "SETTINGS": json.dumps(settings), "PYTHONUNBUFFERED": 1, "PYTHONDONTWRITEBYTECODE": 1}
        command = [sys.executable, "-m", "celery", "-A", "probed_app", *arguments, "--loglevel", "INFO"]
        command += ["--schedule" if arguments[0] == "beat" else "--schedule-filename", tmp_path / "schedule"]
        return start(harness.Program, command, harness.environment(**env), HERE)

    return begin


def test_a_scheduler_pulses_with_its_tick_for_as_long_as_it_sleeps(celery, broker, tmp_path):
    beat = tmp_path / "celerybeat"
    program = celery(broker.url, "beat", heartbeat_loop_budget=2, beat_max_loop_interval=30)
    until(lambda: harness.verdict(beat).name == "alive", timeout=40)
    record = harness.record(beat)
    # It takes no work, so it is not counted among those who do.
    assert (record["cluster"], record["queues"]) == ("default-beat", [])
    assert record["worker"].startswith("celerybeat@")

    def sleeps_long():
        loop = harness.record(beat).get("loop", {"due_mono_ms": 0, "pulsed_mono_ms": 0})
        return loop["due_mono_ms"] - loop["pulsed_mono_ms"] > 30_000

    until(sleeps_long)
    program.signal(signal.SIGTERM)
    program.exit_status()
    assert not beat.exists()


@pytest.mark.parametrize("fault", ["frozen", "killed"])
def test_a_scheduler_without_its_broker_is_cut_off_and_not_wedged(celery, own_broker, tmp_path, fault):
    beat = tmp_path / "celerybeat"
    celery(own_broker.url, "beat", heartbeat_loop_budget=2, beat_schedule=SCHEDULE)
    until(lambda: harness.verdict(beat).name == "alive", timeout=40)
    own_broker.signal(signal.SIGSTOP if fault == "frozen" else signal.SIGKILL)
    seen = []

    def is_cut_off():
        seen.append(harness.verdict(beat))
        assert seen[-1].name in ("alive", "cut off"), seen[-1].answer
        return seen[-1].name == "cut off"

    until(is_cut_off, timeout=20)
    # It stays so: its ticks go on.
    for _ in range(40):
        assert is_cut_off()
    if fault == "frozen":
        own_broker.signal(signal.SIGCONT)
    else:
        own_broker.exit_status()
        own_broker.restart()
    until(lambda: harness.verdict(beat).name == "alive", timeout=40)


def test_a_setting_that_cannot_be_stops_the_scheduler_s_start(celery, broker):
    program = celery(broker.url, "beat", heartbeat_interval="often")
    assert program.exit_status() == 1
    assert "heartbeat_interval is a number of seconds" in program.output


def test_an_embedded_scheduler_has_a_file_of_its_own_where_one_is_named(celery, broker, tmp_path):
    beat, worker = tmp_path / "scheduler", tmp_path / "w"
    settings = {"beat_schedule": SCHEDULE, "heartbeat_beat_file": str(beat)}
    # From another queue than the scheduler sends to: Celery's own worker hangs where a task comes in the moment of its SIGTERM.
    program = celery(broker.url, "worker", "-B", "--hostname", "w@x", "--concurrency", "1", "--queues", "other", **settings)
    until(lambda: harness.verdict(beat).name == "alive" == harness.verdict(worker).name, timeout=40)
    assert harness.record(beat)["pid"] != harness.record(worker)["pid"] == program.pid
    program.signal(signal.SIGTERM)
    assert program.exit_status() == 0, program.output
    assert not worker.exists()
