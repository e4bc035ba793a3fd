"""FOJ's own check on the file of a worker that links `heartbeat`: whoever only compares mtimes gets the right answer too."""

import signal
import time

import foj
from harness import record, until, verdict

MAX_AGE = 2
BUDGET = 1
QUICK = ("--interval", "100ms", "--promise", "3s", "--loop-budget", f"{BUDGET}s")


def beats_for(worker, seconds):
    """Goes round until the worker itself has beaten on for so long."""
    end = record(worker.file)["at_mono_ms"] + 1_000 * seconds
    while record(worker.file)["at_mono_ms"] < end:
        yield
        time.sleep(0.02)


def test_it_passes_for_as_long_as_the_worker_is_healthy(demo_worker):
    worker = demo_worker(*QUICK)
    until(lambda: foj.passes(worker.file, MAX_AGE))
    for _ in beats_for(worker, BUDGET + MAX_AGE + 0.5):
        words, passed = foj.answer(worker.file, MAX_AGE)
        assert passed and "working" in words, words
    assert verdict(worker.file).name == "alive"


def announced(document):
    """For how many seconds from its last pulse the loop may be away."""
    return (document["loop"]["due_mono_ms"] - document["loop"]["pulsed_mono_ms"]) / 1_000 if "loop" in document else 0


def test_it_fails_once_the_loop_is_wedged_although_the_beats_go_on(demo_worker):
    worker = demo_worker(*QUICK)
    until(lambda: foj.passes(worker.file, MAX_AGE))
    worker.say("wedge")
    wedged_at = time.monotonic()
    until(lambda: not foj.passes(worker.file, MAX_AGE), timeout=BUDGET + MAX_AGE + 2)
    assert time.monotonic() - wedged_at >= BUDGET, "before the loop's own budget was over it was not wedged"
    assert "stale" in foj.answer(worker.file, MAX_AGE)[0]
    beats = record(worker.file)["seq"]
    until(lambda: record(worker.file)["seq"] > beats, what="the wedged worker still beats")
    assert verdict(worker.file).name == "wedged"


def test_it_fails_once_a_task_is_past_its_deadline_and_not_before(demo_worker):
    worker = demo_worker(*QUICK)
    worker.say("task 60s 3s")
    until(lambda: record(worker.file)["tasks"]["running"] == 1)
    due = record(worker.file)["tasks"]["due_mono_ms"]
    while record(worker.file)["at_mono_ms"] < due:
        assert foj.passes(worker.file, MAX_AGE), "within its deadline a task is no fault"
        time.sleep(0.02)
    until(lambda: not foj.passes(worker.file, MAX_AGE), timeout=MAX_AGE + 2)
    assert verdict(worker.file).name == "overdue"


def test_it_passes_through_a_long_task_in_the_loop_that_was_announced(demo_worker):
    worker = demo_worker(*QUICK)
    worker.say("task-in-loop 5s 10s")
    until(lambda: announced(record(worker.file)) > 5)
    for _ in beats_for(worker, BUDGET + MAX_AGE + 0.5):
        assert foj.passes(worker.file, MAX_AGE), "the loop said how long it would be away"
    assert verdict(worker.file).name == "alive"


def test_it_fails_once_the_worker_is_silent(demo_worker):
    worker = demo_worker(*QUICK)
    until(lambda: foj.passes(worker.file, MAX_AGE))
    worker.signal(signal.SIGSTOP)
    until(lambda: not foj.passes(worker.file, MAX_AGE), timeout=MAX_AGE + 2)
    until(lambda: verdict(worker.file).name == "silent", timeout=5)


def test_it_fails_at_once_when_the_worker_has_stopped(demo_worker):
    worker = demo_worker(*QUICK)
    until(lambda: foj.passes(worker.file, MAX_AGE))
    worker.say("stop")
    assert worker.exit_status() == 0
    words, passed = foj.answer(worker.file, MAX_AGE)
    assert not passed and "missing" in words
    assert verdict(worker.file).name == "missing"
