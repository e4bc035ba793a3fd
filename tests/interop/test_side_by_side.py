"""Where FOJ's answer is wrong and ours must be right, both asserted on the same worker at the same moment."""

import os
import signal
import time

import foj
from celery_worker import CeleryWorker
from harness import HEARTBEAT, DemoWorker, Program, record, until, verdict


def test_after_a_kill_foj_vouches_for_a_minute_and_we_tell_at_the_next_probe(start, broker, demo_worker, tmp_path):
    probe_file = tmp_path / "celery_worker_heartbeat"
    celery = start(CeleryWorker, broker, probe_file=probe_file).ready()
    ours = demo_worker()

    celery.end()
    ours.signal(signal.SIGKILL)
    ours.exit_status()

    gone = verdict(ours.file)
    assert (gone.passes, gone.name) == (False, "gone"), gone.answer
    assert foj.passes(probe_file)
    os.utime(probe_file, (time.time() - 59,) * 2)
    assert foj.passes(probe_file), "a dead worker is healthy for a whole minute"
    os.utime(probe_file, (time.time() - 61,) * 2)
    assert not foj.passes(probe_file)


def test_a_celery_killed_under_heartbeat_run_is_gone_even_if_heartbeat_run_dies_with_it(start, broker, tmp_path):
    """Nobody is left who could clean up, as when a machine kills a whole container: the record itself must tell."""
    probe_file, file = tmp_path / "foj", tmp_path / "beat"
    worker = start(CeleryWorker, broker, under=[HEARTBEAT, "run", "--file", file, "--"], probe_file=probe_file).ready()
    until(lambda: verdict(file).name == "alive")
    worker.end()
    assert verdict(file).name == "gone"
    assert foj.passes(probe_file)


def test_two_workers_on_one_path_vouch_for_each_other_with_foj(start, broker, tmp_path):
    probe_file = tmp_path / "celery_worker_heartbeat"
    first = start(CeleryWorker, broker, probe_file=probe_file).ready()
    start(CeleryWorker, broker, probe_file=probe_file).ready()
    first.end()
    killed_at = time.time()
    until(lambda: probe_file.stat().st_mtime > killed_at + 1, what="the second worker touches the first one's file")
    assert foj.passes(probe_file, max_age=2), "the first is dead, and its file is fresh"


def test_a_second_worker_on_one_path_is_refused_by_ours_and_told_the_holders_pid(start, demo_worker):
    first = demo_worker()
    second = start(DemoWorker, first.file)
    assert second.exit_status() != 0
    assert str(first.pid) in second.output, second.output
    assert record(first.file)["pid"] == first.pid
    assert verdict(first.file).name == "alive"


def test_heartbeat_run_too_refuses_a_path_that_a_living_worker_holds(start, demo_worker, tmp_path):
    first = demo_worker()
    second = start(Program, [HEARTBEAT, "run", "--file", first.file, "--", "touch", tmp_path / "started"])
    assert second.exit_status() != 0
    assert str(first.pid) in second.output, second.output
    assert not (tmp_path / "started").exists(), "what cannot be watched is not started"
    assert verdict(first.file).name == "alive"
