"""`checker worker --max-age` on the bare, touched file of FOJ's real bootstep, in a real Celery worker on a real Redis."""

import os
import signal
import time

import pytest

import foj
from celery_worker import CeleryWorker
from harness import until, verdict


@pytest.mark.parametrize("pool", ["solo", "prefork"])
def test_a_running_worker_is_alive_and_a_killed_one_silent_after_the_max_age(start, broker, tmp_path, pool):
    file = tmp_path / "celery_worker_heartbeat"
    worker = start(CeleryWorker, broker, pool=pool, probe_file=file).ready()
    assert file.stat().st_size == 0
    assert verdict(file, "--max-age", "60s").name == "alive"
    until(lambda: time.time() - file.stat().st_mtime < 0.5, what="the bootstep touches its file")
    assert verdict(file, "--max-age", "3s").passes
    worker.end()
    killed = verdict(file, "--max-age", "60s")
    assert killed.passes, "an mtime is all there is to know, so until the age is reached nobody can tell"
    until(lambda: not verdict(file, "--max-age", "3s").passes, timeout=6)
    silent = verdict(file, "--max-age", "3s")
    assert (silent.name, silent.status, silent.code) == ("silent", "fail", 1)


def test_the_file_that_a_clean_stop_leaves_behind_is_silent(start, broker, tmp_path):
    file = tmp_path / "celery_worker_heartbeat"
    worker = start(CeleryWorker, broker, probe_file=file).ready()
    worker.signal(signal.SIGTERM)
    assert worker.exit_status() == 0
    assert file.exists(), "FOJ never removes it"
    until(lambda: verdict(file, "--max-age", "1s").name == "silent", timeout=4)


def test_the_verdict_of_a_bare_file_follows_its_mtime(tmp_path):
    file = tmp_path / "touched"
    file.touch(mode=0o644)
    for age, name in [(0, "alive"), (50, "alive"), (70, "silent"), (-1, "alive")]:
        os.utime(file, (time.time() - age,) * 2)
        assert verdict(file, "--max-age", "60s").name == name, f"age {age} s"


def test_an_mtime_in_the_future_is_not_fresh_to_us_and_is_to_foj(tmp_path):
    file = tmp_path / "touched"
    file.touch(mode=0o644)
    os.utime(file, (time.time() + 30,) * 2)
    assert foj.passes(file)
    ours = verdict(file, "--max-age", "60s")
    assert (ours.passes, ours.name) == (False, "silent"), ours.answer


@pytest.mark.parametrize("kind", ["directory", "fifo", "link", "anyone may write"])
def test_what_foj_takes_for_a_heartbeat_and_is_none_is_unsafe(tmp_path, kind):
    path = tmp_path / "beat"
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "link":
        (tmp_path / "other").touch()
        path.symlink_to(tmp_path / "other")
    else:
        path.touch()
        path.chmod(0o666)
    assert foj.passes(path)
    ours = verdict(path, "--max-age", "60s")
    assert (ours.passes, ours.name) == (False, "unsafe"), ours.answer
