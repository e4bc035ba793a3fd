"""The package itself: what a plain worker sees of it."""

import ctypes
import datetime
import gc
import logging
import math
import os
import pickle
import re
import signal
import subprocess
import threading
from pathlib import Path

import pytest

import harness
import heartbeat
from harness import record, until, verdict
from signing import NO_KEYS


def test_a_plain_loop_is_judged_by_the_real_checker(worker, beat):
    with worker(queues=["mail"], loop_budget=0.5) as beating:
        beating.pulse()
        assert verdict(beat).name == "alive"
        assert record(beat)["queues"] == ["mail"]
        until(lambda: verdict(beat).name == "wedged")
        beating.pulse()
        until(lambda: verdict(beat).name == "alive")
    assert verdict(beat).name == "missing"


def test_a_worker_goes_through_its_states(worker, beat):
    beating = worker(start_deadline=datetime.timedelta(minutes=1), version="1.2.3")
    assert (beating.status, record(beat)["status"], record(beat)["version"]) == ("starting", "starting", "1.2.3")
    beating.ready()
    assert beating.status == "idle"
    task = beating.task("resize", 60)
    assert beating.status == "busy"
    task.done()
    beating.drain(30)
    assert beating.status == "draining"
    until(lambda: record(beat)["status"] == "draining")
    beating.stop()
    assert (beating.status, beat.exists()) == ("stopped", False)
    # Once stopped, it stays so, and nothing that is called then fails.
    beating.pulse()
    beating.pulse_within(5)
    beating.ready()
    beating.drain()
    beating.stop()
    with beating.task("late"):
        pass
    assert beating.status == "stopped"


def test_tasks_count_as_they_end(worker, beat):
    beating = worker()

    def counts():
        tasks = record(beat)["tasks"]
        return tasks["running"], tasks["done"], tasks["failed"]

    with beating.task("one", 60):
        until(lambda: counts() == (1, 0, 0))
    with pytest.raises(RuntimeError), beating.task("two"):
        raise RuntimeError
    beating.task("three").fail()
    # Nobody says that it was done.
    beating.task("four")
    gc.collect()
    ended = beating.task("five")
    ended.done()
    ended.fail()
    ended.done()
    with beating.task("six") as ended:
        ended.fail()
    until(lambda: counts() == (0, 2, 4), what=f"the counts are {counts()}")


def test_threads_that_end_the_same_task_end_it_once(worker, beat):
    beating = worker()
    barrier = threading.Barrier(8)

    def end(task):
        barrier.wait()
        task.done()

    for _ in range(20):
        task = beating.task("shared")
        threads = [threading.Thread(target=end, args=(task,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    until(lambda: record(beat)["tasks"]["done"] == 20)
    assert record(beat)["tasks"]["running"] == record(beat)["tasks"]["failed"] == 0


def test_a_task_past_its_deadline_is_overdue_until_it_ends(worker, beat):
    with worker().task("slow", 0.2):
        until(lambda: verdict(beat).name == "overdue")
        assert record(beat)["tasks"]["name"] == "slow"
    until(lambda: verdict(beat).name == "alive")


def test_a_task_name_that_is_no_unicode_keeps_no_work_from_being_done(worker, beat):
    with worker().task("bad \ud800 name\n" + "x" * 100):
        until(lambda: record(beat)["tasks"].get("name", "").startswith("bad "))


WRONG_DURATIONS = [
    (-1, ValueError, "not negative"),
    (-math.inf, ValueError, "finite"),
    (math.inf, ValueError, "finite"),
    (math.nan, ValueError, "finite"),
    (datetime.timedelta(seconds=-1), ValueError, "not negative"),
    (10**400, ValueError, "as large as this"),
    ("30s", TypeError, "not str"),
    (True, TypeError, "not bool"),
    ([], TypeError, "not list"),
]


@pytest.mark.parametrize(("value", "error", "words"), WRONG_DURATIONS, ids=lambda value: repr(value)[:20])
def test_no_duration_of_another_kind_is_taken(worker, value, error, words):
    beating = worker(file=False)
    task = lambda duration: beating.task("x", duration)  # noqa: E731
    for call in (beating.pulse_within, task, beating.drain):
        with pytest.raises(error, match=words):
            call(value)
    for name in ("interval", "promise", "loop_budget", "start_deadline", "drain_deadline"):
        with pytest.raises(error, match=words):
            heartbeat.Heartbeat(file=False, **{name: value})


def test_durations_that_are_too_long_are_cut_where_work_runs_and_refused_at_the_start(worker, beat):
    beating = worker()
    beating.pulse_within(1e300)
    with beating.task("x", datetime.timedelta.max):
        until(lambda: "due_mono_ms" in record(beat)["tasks"])
        days = (record(beat)["tasks"]["due_mono_ms"] - record(beat)["tasks"]["since_mono_ms"]) / 86_400_000
        assert days == 365
        days = (record(beat)["loop"]["due_mono_ms"] - record(beat)["loop"]["pulsed_mono_ms"]) / 86_400_000
        assert 97 <= days < 98
    for value in (1e300, datetime.timedelta.max):
        with pytest.raises(heartbeat.Error, match="365 days"):
            heartbeat.Heartbeat(file=False, promise=value)


WRONG_SETTINGS = [
    ({"interval": 0.001}, heartbeat.Error, "10 ms at least"),
    ({"interval": 10, "promise": 10}, heartbeat.Error, "two intervals"),
    ({"loop_budget": 0}, heartbeat.Error, "1 ms at least"),
    ({"file_mode": 0o666}, heartbeat.Error, "file mode"),
    ({"file_mode": -1}, heartbeat.Error, "file mode"),
    ({"file_mode": 2**70}, heartbeat.Error, "file mode"),
    ({"file_mode": "600"}, TypeError, "file_mode"),
    ({"file": True}, TypeError, "not True"),
    ({"file": 3}, TypeError, "file"),
    ({"file": b"/tmp/x"}, TypeError, "file"),
    ({"file": ""}, heartbeat.Error, "cannot be a file"),
    ({"file": "a\0b"}, heartbeat.Error, "cannot be a file"),
    ({"file": "a\ud800"}, UnicodeEncodeError, "surrogates"),
    ({"file": "/"}, heartbeat.Error, "cannot be a file"),
    ({"file": "."}, heartbeat.Error, "is refused"),
    ({"file": False, "cluster": ""}, heartbeat.Error, "cluster"),
    ({"file": False, "cluster": "a{b}"}, heartbeat.Error, "braces"),
    ({"file": False, "cluster": 7}, TypeError, "cluster"),
    ({"file": False, "worker": "a\ud800"}, UnicodeEncodeError, "surrogates"),
    ({"file": False, "worker": "a\nb"}, heartbeat.Error, "worker"),
    ({"file": False, "queues": "mail"}, TypeError, "write \\[name\\]"),
    ({"file": False, "queues": [1]}, TypeError, "queues"),
    ({"file": False, "queues": 1}, TypeError, "queues"),
    ({"file": False, "queues": [f"queue-{n}" for n in range(1000)]}, heartbeat.Error, "4,?096|fit"),
    ({"file": False, "version": ""}, heartbeat.Error, "version"),
    ({"file": False, "redis": "http://nowhere"}, heartbeat.Error, "Redis URL"),
    ({"file": False, "endpoint": "localhost"}, ValueError, "IP address"),
    ({"file": False, "endpoint": 8090}, TypeError, "endpoint"),
    ({"file": False, "files": "x"}, TypeError, "unexpected keyword"),
]


@pytest.mark.parametrize(("settings", "error", "words"), WRONG_SETTINGS, ids=lambda value: repr(value)[:40])
def test_a_setting_that_cannot_be_is_refused_with_a_sentence(tmp_path, monkeypatch, settings, error, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error) as refused:
        heartbeat.Heartbeat(**settings)
    # From 3.11 on, a note names the argument.
    notes = getattr(refused.value, "__notes__", ["file_mode file cluster queues endpoint"])
    assert re.search(words, " ".join([str(refused.value), *notes]))
    until(lambda: threads_named_heartbeat() == [], what="no thread is left")


def test_settings_are_keywords():
    with pytest.raises(TypeError):
        heartbeat.Heartbeat("/tmp/x")


def test_queues_are_any_iterable(worker, beat):
    worker(queues=(name for name in ("a", "b")))
    assert record(beat)["queues"] == ["a", "b"]


def test_an_iterable_that_raises_is_heard(worker):
    def names():
        yield "a"
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        worker(queues=names())


def test_what_is_not_given_comes_from_the_environment(run, tmp_path):
    code = "import heartbeat, json\nwith heartbeat.Heartbeat(worker='w'): print(open('beat').read())"
    done = run(
        code,
        HEARTBEAT_FILE="beat",
        HEARTBEAT_CLUSTER="orders",
        HEARTBEAT_WORKER="not me",
        HEARTBEAT_QUEUES="a, b",
        HEARTBEAT_INTERVAL="250ms",
        HEARTBEAT_PROMISE="1m",
    )
    assert done.returncode == 0, done.stderr
    assert '"cluster":"orders","worker":"w"' in done.stdout
    assert '"queues":["a","b"]' in done.stdout
    assert '"interval_ms":250,"promise_ms":60000' in done.stdout
    done = run(code, HEARTBEAT_INTERVAL="soon")
    assert 'heartbeat.Error: heartbeat: HEARTBEAT_INTERVAL is "soon": a duration is a whole number' in done.stderr


def test_a_variable_that_the_program_itself_has_set_counts(run):
    code = "import os, heartbeat\nos.environ['HEARTBEAT_FILE'] = 'mine'\nwith heartbeat.Heartbeat(): assert os.path.exists('mine')"
    done = run(code, HEARTBEAT_FILE="not-mine")
    assert done.returncode == 0, done.stderr


def test_a_file_that_another_worker_holds_is_refused_with_its_pid(worker, beat, script):
    other = script(f"import heartbeat, time\nwith heartbeat.Heartbeat(file={str(beat)!r}): print('up', flush=True); time.sleep(60)")
    assert other.next_line() == "up"
    with pytest.raises(heartbeat.Error, match=str(other.pid)):
        worker()
    assert record(beat)["pid"] == other.pid


def test_a_file_that_cannot_be_written_stops_no_worker_and_is_told_to_logging_once(worker, tmp_path, caplog):
    caplog.set_level(logging.INFO, "heartbeat")
    folder = tmp_path / "not-yet"
    beating = worker(file=folder / "beat")
    with beating.task("work"):
        assert "cannot write" in beating.last_error
        assert beating.file_failure == beating.last_error
    until(lambda: beating.pulse() or caplog.messages)
    assert len(caplog.messages) == 1 and "cannot write" in caplog.messages[0]
    assert caplog.records[0].levelname == "WARNING"
    folder.mkdir()
    until(lambda: beating.file_failure is None)
    until(lambda: beating.pulse() or len(caplog.messages) == 2)
    assert "written again" in caplog.messages[1] and caplog.records[1].levelname == "INFO"


class Broken(logging.Handler):
    """A handler of the user's own that fails."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def emit(self, _):
        raise self.error


@pytest.fixture
def heard(monkeypatch):
    """What nobody could raise."""
    heard = []
    monkeypatch.setattr("sys.unraisablehook", lambda unraisable: heard.append(unraisable.exc_value))
    return heard


def test_what_a_handler_of_the_log_raises_ends_no_loop_that_pulses(worker, tmp_path, heard):
    error, logger = ValueError("broken"), logging.getLogger("heartbeat")
    logger.addHandler(handler := Broken(error))
    try:
        beating = worker(file=tmp_path / "not-yet" / "beat")
        until(lambda: beating.pulse() or heard)
        assert heard == [error]
        with beating.task("work"):
            pass
    finally:
        logger.removeHandler(handler)


def test_an_interrupt_in_a_handler_of_the_log_is_one(worker, tmp_path, heard):
    logger = logging.getLogger("heartbeat")
    logger.addHandler(handler := Broken(KeyboardInterrupt()))
    try:
        with pytest.raises(KeyboardInterrupt):
            beating = worker(file=tmp_path / "not-yet" / "beat")
            until(lambda: beating.pulse() or heard)
    finally:
        logger.removeHandler(handler)
    assert not heard


def test_a_file_that_cannot_be_removed_takes_the_place_of_no_end(python, tmp_path):
    code = """
import heartbeat, os, sys
sys.unraisablehook = lambda unraisable: print("unraisable:", unraisable.exc_value, flush=True)
def body(end):
    os.chmod("folder", 0o755)
    with heartbeat.Heartbeat(file="folder/beat", interval=0.1):
        os.chmod("folder", 0o555)
        if end: raise end
os.mkdir("folder")
body(None)
try:
    body(KeyError("its own"))
except KeyError as error:
    print("ended with", error)
print("went on")
"""
    # Root may remove anything, but for this.
    as_others = ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner"] if os.geteuid() == 0 else []
    command = [*as_others, python, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, env=harness.environment(), cwd=tmp_path, check=False)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in lines] == ["unraisable:", "unraisable:", "ended", "went"], lines
    assert "cannot remove" in lines[0] and "cannot remove" in lines[1]


def test_a_task_may_get_another_deadline(worker, beat):
    beating = worker()
    task = beating.task("work", deadline=600)
    task.due_within(0.1)
    until(lambda: verdict(beat).name == "overdue")
    task.due_within()
    until(lambda: verdict(beat).name == "alive")
    task.done()
    task.due_within(0)
    until(lambda: record(beat)["tasks"]["done"] == 1)
    assert verdict(beat).name == "alive"


def test_queues_may_change(worker, beat):
    beating = worker(queues=["mail"])
    beating.set_queues(["mail", "orders"])
    until(lambda: record(beat)["queues"] == ["mail", "orders"])
    with pytest.raises(heartbeat.Error, match="4096 is the limit"):
        beating.set_queues(["x" * 5_000])
    with pytest.raises(TypeError):
        beating.set_queues("mail")


def test_a_path_that_may_wait_is_taken_once_it_is_free(worker, beat):
    beat.mkdir()
    beating = worker(file_may_wait=True, promise=0.3)
    assert str(beat) in beating.file_failure
    beat.rmdir()
    until(beat.is_file)
    assert verdict(beat).name == "alive"


def test_no_call_passes_on_to_logging_what_a_parent_has_yet_to_hear(run, tmp_path):
    code = """
import logging, os, time, heartbeat
logging.basicConfig(format="%(process)d %(message)s", level=logging.INFO)
os.mkdir("folder")
beating = heartbeat.Heartbeat(file="folder/beat", interval=0.05)
os.rename("folder", "away")
while beating.file_failure is None: time.sleep(0.01)
time.sleep(0.05)
child = os.fork()
beating.pulse()
if child == 0: os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print(os.getpid())
"""
    done = run(code)
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stderr.splitlines() if "cannot write" in line]
    assert [line.split()[0] for line in told] == [done.stdout.strip()], done.stderr


def test_a_redis_that_is_away_is_told_and_stops_nothing(worker, beat, caplog):
    caplog.set_level(logging.INFO, "heartbeat")
    beating = worker(redis=f"redis://user:S3cret@127.0.0.1:{harness.free_port()}/0")
    until(lambda: beating.pulse() or caplog.messages)
    assert beating.last_error
    assert "S3cret" not in caplog.text + beating.last_error + repr(beating)
    assert verdict(beat).name == "alive"


def test_beats_reach_redis(worker, broker):
    worker(file=False, redis=broker.url, cluster="package", worker="one", queues=["mail"])
    command = [harness.CHECKER, "cluster", "package", "--redis", broker.url, "--queue", "mail"]
    until(lambda: subprocess.run(command, capture_output=True, env=harness.environment(), check=False).returncode == 0)


def test_beats_to_redis_are_signed_with_the_key_in_the_environment(script, signing):
    code = "import heartbeat, time\nb = heartbeat.Heartbeat(file=False, interval=0.1, promise=300)\ntime.sleep(600)"
    signing.play(script(code, **signing.environment))


@pytest.mark.parametrize("key", NO_KEYS, ids=["short", "three", "unprintable"])
def test_a_key_that_cannot_be_is_refused_and_not_shown(key, run):
    code = "import heartbeat\ntry: heartbeat.Heartbeat(file=False, redis='redis://127.0.0.1:1')\nexcept heartbeat.Error as error: print(error)"
    done = run(code, HEARTBEAT_KEY=key)
    assert done.returncode == 0 and NO_KEYS[key] in done.stdout, done
    assert key not in done.stdout + done.stderr


def test_the_endpoint_answers_while_the_interpreter_is_held(script):
    program = script(
        "import ctypes, heartbeat\n"
        "beating = heartbeat.Heartbeat(file=False, endpoint='127.0.0.1:0')\n"
        "print('%s:%d' % beating.endpoint_address, flush=True)\n"
        "ctypes.PyDLL(None).sleep(60)"
    )
    url = f"http://{program.next_line()}/livez"
    done = subprocess.run([harness.CHECKER, "http", url], capture_output=True, text=True, env=harness.environment(), check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_beats_go_on_while_a_c_call_holds_the_gil(worker, beat):
    beating = worker(interval=0.05, loop_budget=0.3)
    beating.pulse()
    before = record(beat)["seq"]
    # PyDLL does not release the GIL: no other thread of this interpreter runs in here.
    assert ctypes.PyDLL(None).usleep(900_000) == 0
    # Read at once: what was published meanwhile, and that the loop had not turned.
    during = record(beat)
    assert during["seq"] - before >= 5
    assert during["loop"]["due_mono_ms"] < during["at_mono_ms"]


def test_a_start_and_a_stop_let_other_threads_run(own_broker, worker):
    """The stop waits for Redis, here for one that is frozen."""
    beating = worker(file=False, redis=own_broker.url)
    until(lambda: is_counted_in(own_broker))
    own_broker.signal(signal.SIGSTOP)
    turns, stopping = [], threading.Event()

    def count():
        while not stopping.is_set():
            turns.append(1)
            stopping.wait(0.005)

    other = threading.Thread(target=count)
    other.start()
    before = len(turns)
    beating.stop()
    during = len(turns) - before
    stopping.set()
    other.join()
    own_broker.signal(signal.SIGCONT)
    assert during >= 5


def is_counted_in(server):
    command = [harness.CHECKER, "cluster", "default", "--redis", server.url]
    return subprocess.run(command, capture_output=True, env=harness.environment(), check=False).returncode == 0


def test_kill_9_is_told_at_once(script, beat):
    program = script(f"import heartbeat, time\nb = heartbeat.Heartbeat(file={str(beat)!r})\nprint('up', flush=True)\ntime.sleep(60)")
    assert program.next_line() == "up"
    assert verdict(beat).name == "alive"
    program.signal(signal.SIGKILL)
    assert program.exit_status() == 137
    assert verdict(beat).name == "gone"


ENDS = {
    "the end of the program": ("pass", 0),
    "sys.exit": ("sys.exit(3)", 3),
    "an exception": ("raise RuntimeError('on purpose')", 1),
    "sys.exit in a task": ("task = beating.task('x', 60); sys.exit(0)", 0),
    "a reference cycle": ("class A: pass\na = A(); a.a, a.b = a, beating; del beating", 0),
    "a thread that still marks": (
        "import threading\ndef turn():\n    while True: beating.pulse()\nthreading.Thread(target=turn, daemon=True).start()",
        0,
    ),
    "atexit": ("import atexit; atexit.register(beating.stop)", 0),
    "SIGINT": ("os.kill(os.getpid(), 2); import time; time.sleep(9)", 130),
}


@pytest.mark.parametrize("how", ENDS)
def test_an_interpreter_that_ends_takes_its_beat_file_along(run, beat, how):
    code, status = ENDS[how]
    done = run(f"import heartbeat, os, sys\nbeating = heartbeat.Heartbeat(file={str(beat)!r})\nassert os.path.exists({str(beat)!r})\n{code}")
    assert done.returncode in (status, -2 if status == 130 else status), done.stderr
    assert "panick" not in done.stderr and "Fatal" not in done.stderr
    assert not beat.exists()


@pytest.mark.parametrize("how", ["os._exit(7)", "os.kill(os.getpid(), 15); import time; time.sleep(9)"])
def test_a_process_that_just_ends_is_gone(run, beat, how):
    done = run(f"import heartbeat, os\nbeating = heartbeat.Heartbeat(file={str(beat)!r})\n{how}")
    assert done.returncode in (7, -15)
    assert verdict(beat).name == "gone"


def test_a_heartbeat_that_nobody_refers_to_ends(worker, tmp_path):
    beating = heartbeat.Heartbeat(file=tmp_path / "dropped")
    assert (tmp_path / "dropped").exists()
    del beating
    assert not (tmp_path / "dropped").exists()


def test_no_thread_and_no_library_at_import(run):
    code = """
import os, sys
before, modules = len(os.listdir("/proc/self/task")), set(sys.modules)
import heartbeat
assert len(os.listdir("/proc/self/task")) == before == 1
new = {name.partition(".")[0]: sys.modules[name] for name in set(sys.modules) - modules}
print(sorted(name for name in set(new) - {"heartbeat"} if "site-packages" in (getattr(new[name], "__file__", None) or "")))
"""
    done = run(code)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_neither_object_can_be_copied_into_another_process(worker):
    beating = worker(file=False)
    for thing in (beating, beating.task("x")):
        with pytest.raises(TypeError, match="cannot pickle"):
            pickle.dumps(thing)


def test_names_and_words_are_public():
    assert heartbeat.Error.__module__ == heartbeat.Heartbeat.__module__ == heartbeat.Task.__module__ == "heartbeat"
    assert set(heartbeat.__all__) == {"Error", "Heartbeat", "Task", "__version__"}
    for name in ("Error", "Heartbeat", "Task"):
        assert getattr(heartbeat, name).__doc__
    assert re.fullmatch(r"\d+\.\d+\.\d+", heartbeat.__version__)
    assert heartbeat.__version__ in subprocess.check_output([harness.CHECKER, "--version"], text=True)


def threads_named_heartbeat():
    names = [Path(f"/proc/self/task/{task}/comm") for task in os.listdir("/proc/self/task")]
    return [name.read_text() for name in names if name.exists() and name.read_text().startswith("heartbeat")]
