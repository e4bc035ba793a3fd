"""A heartbeat belongs to the process that started it: forks, `multiprocessing` in each of its ways, and interpreters within one."""

import sys

import pytest

from harness import record, until, verdict

# From 3.12 on, `os.fork()` warns wherever there is a second thread: that of the publisher is one.
SILENT = "ignore::DeprecationWarning"

FORK = """
import os, sys, time, heartbeat
file, own = sys.argv[1:]
beating = heartbeat.Heartbeat(file=file, interval=0.05)
task = beating.task("parent's", 60)
child = os.fork()
if child == 0:
    assert len(os.listdir("/proc/self/task")) == 1
    # The inherited one does nothing, whatever is called.
    assert beating.status == "stopped" and beating.last_error is None and beating.file_failure is None
    beating.pulse(); beating.pulse_within(1); beating.ready(); beating.drain(); beating.stop()
    task.fail()
    with beating.task("child's"): pass
    del beating, task
    with heartbeat.Heartbeat(file=own, interval=0.05, worker="child") as mine:
        mine.pulse()
        print("own", flush=True)
        sys.stdin.readline()
    print("done", flush=True)
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
assert beating.status == "busy"
print("parent", flush=True)
sys.stdin.readline()
"""


def test_a_forked_child_does_not_beat_in_its_parents_name_and_has_a_heartbeat_of_its_own(script, beat, tmp_path):
    own = tmp_path / "own"
    program = script(FORK, str(beat), str(own), PYTHONWARNINGS=SILENT)
    assert program.next_line() == "own"
    parents, childs = record(beat), record(own)
    assert parents["pid"] == program.pid != childs["pid"]
    assert (parents["worker"] == "child", childs["worker"]) == (False, "child")
    # Both beat on, each of them its own record.
    until(lambda: record(beat)["seq"] > parents["seq"] + 3 and record(own)["seq"] > childs["seq"] + 3)
    assert record(beat)["id"] == parents["id"]
    assert "loop" not in record(beat)
    assert (record(beat)["status"], record(beat)["tasks"]["running"], record(beat)["tasks"]["failed"]) == ("busy", 1, 0)
    program.process.stdin.write("\n")
    program.process.stdin.flush()
    assert [program.next_line(), program.next_line()] == ["done", "parent"]
    # The child's end has not touched its parent's file.
    seq = record(beat)["seq"]
    until(lambda: record(beat)["seq"] > seq)
    assert not own.exists()
    program.process.stdin.close()
    assert program.exit_status() == 0, program.output
    assert not beat.exists()


MULTIPROCESSING = """
import multiprocessing, os, sys, heartbeat

def work(file):
    with heartbeat.Heartbeat(file=file, interval=0.05, worker="child") as mine, mine.task("x", 60):
        mine.pulse()
        return os.getpid(), open(file).read()

if __name__ == "__main__":
    file, own, way = sys.argv[1:]
    with heartbeat.Heartbeat(file=file, interval=0.05, worker="parent") as beating:
        with multiprocessing.get_context(way).Pool(2) as pool:
            pid, text = pool.apply(work, (own,))
        assert pid != os.getpid() and '"worker":"child"' in text and f'"pid":{pid},' in text, text
        text = open(file).read()
        assert '"worker":"parent"' in text and f'"pid":{os.getpid()},' in text, text
        assert not os.path.exists(own)
    assert not os.path.exists(file)
"""


@pytest.mark.parametrize("way", ["fork", "spawn", "forkserver"])
def test_children_of_multiprocessing_have_their_own(start, python, beat, tmp_path, way):
    from harness import Program, environment

    (tmp_path / "pool.py").write_text(MULTIPROCESSING)
    program = start(Program, [python, "pool.py", beat, tmp_path / "own", way], environment(), tmp_path)
    assert program.exit_status(60) == 0, program.output


def test_a_child_that_is_killed_leaves_its_parents_beat_alone(script, beat):
    code = """
import os, sys, time, heartbeat
beating = heartbeat.Heartbeat(file=sys.argv[1], interval=0.05)
child = os.fork()
if child == 0:
    time.sleep(60)
os.kill(child, 9); os.waitpid(child, 0)
print("up", flush=True); time.sleep(60)
"""
    program = script(code, str(beat), PYTHONWARNINGS=SILENT)
    assert program.next_line() == "up"
    seq = record(beat)["seq"]
    until(lambda: record(beat)["seq"] > seq)
    assert verdict(beat).name == "alive"


def test_forks_while_threads_mark_and_messages_wait_hang_nothing(run, tmp_path):
    """Each child may inherit any lock as some thread held it."""
    code = """
import os, sys, threading, heartbeat
beating = heartbeat.Heartbeat(file="nowhere/beat", interval=0.01)
ending = threading.Event()
def turn():
    while not ending.is_set():
        with beating.task("x", 1): beating.pulse()
threads = [threading.Thread(target=turn) for _ in range(3)]
for thread in threads: thread.start()
for _ in range(40):
    child = os.fork()
    if child == 0:
        with beating.task("y"): beating.pulse()
        mine = heartbeat.Heartbeat(file="child-%d" % os.getpid(), interval=0.01)
        mine.pulse(); mine.stop()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
ending.set()
for thread in threads: thread.join()
"""
    done = run(code, timeout=60)
    assert done.returncode == 0, done.stderr


# What begins a program that runs code in other interpreters, one after the other.
IN_OTHERS = """
import sys
if sys.version_info >= (3, 13):
    import _interpreters as interpreters
    create = interpreters.create
else:
    import _xxsubinterpreters as interpreters
    create = lambda kind: interpreters.create(isolated=kind == "isolated")
def run_in_others(kind, code):
    for _ in range(3):
        one = create(kind)
        failed = interpreters.run_string(one, code)
        assert not failed, failed
        interpreters.destroy(one)
"""

INTERPRETERS = IN_OTHERS + """
file, kind, first = sys.argv[1:]
if first == "main":
    import heartbeat
    beating = heartbeat.Heartbeat(file=file, interval=0.05)
    with beating.task("x"): pass
code = f'''
try:
    import heartbeat
except ImportError as error:
    print("ImportError:", error, flush=True)
else:
    beating = heartbeat.Heartbeat(file={file + "-inner"!r})
    with beating.task("x", 3): beating.pulse()
    try: beating.pulse_within(-1)
    except ValueError: pass
    try: heartbeat.Heartbeat(file="/")
    except heartbeat.Error: print("works", flush=True)
'''
run_in_others(kind, code)
if first != "main":
    import heartbeat
    beating = heartbeat.Heartbeat(file=file, interval=0.05)
assert beating.status == "idle"
with beating.task("x"): beating.pulse()
try: heartbeat.Heartbeat(file="/")
except heartbeat.Error: pass
beating.stop()
"""


@pytest.mark.parametrize("first", ["main", "inner"])
@pytest.mark.parametrize("kind", ["isolated", "legacy"])
def test_another_interpreter_in_the_process_can_use_it_or_is_told_that_it_cannot(run, beat, tmp_path, kind, first):
    """One with a GIL of its own is told so by the import; one that shares the GIL, as mod_wsgi's, has it."""
    done = run(INTERPRETERS, beat, kind, first)
    assert done.returncode == 0, done.stdout + done.stderr
    if kind == "isolated" and sys.version_info >= (3, 12):
        assert done.stdout.count("ImportError: module heartbeat._heartbeat does not support loading in subinterpreters") == 3
    else:
        assert done.stdout == "works\n" * 3
    assert list(tmp_path.iterdir()) == []


CHECKS = """[subsets]
readiness = ["it"]
[checks.it]
type = "command"
command = ["true"]
"""

ASKING = """
import multiprocessing, os, sys
from heartbeat import _checker

checker = _checker.Checker(text=open("checker.toml").read())

def ask(_):
    return os.getpid(), checker.answer("GET", "/readyz")[0], checker.run("readiness")[0]

if __name__ == "__main__":
    # The parent's threads are of no use to a child.
    assert ask(0) == (os.getpid(), 200, 0)
    with multiprocessing.get_context(sys.argv[1]).Pool(3) as pool:
        answers = pool.map_async(ask, range(30), 1).get(40)
    assert {answer[1:] for answer in answers} == {(200, 0)} and os.getpid() not in {pid for pid, *_ in answers}, answers
    assert ask(0) == (os.getpid(), 200, 0)
"""


@pytest.mark.parametrize("way", ["fork", "spawn", "forkserver"])
def test_children_of_multiprocessing_ask_a_checker_of_their_own(start, python, tmp_path, way):
    from harness import Program, environment

    (tmp_path / "asking.py").write_text(ASKING)
    (tmp_path / "checker.toml").write_text(CHECKS)
    program = start(Program, [python, "asking.py", way], environment(PYTHONWARNINGS=SILENT), tmp_path)
    assert program.exit_status(60) == 0, program.output


CHECKER_INSIDE = IN_OTHERS + """
from importlib import machinery, util
kind, first = sys.argv[1:]
path = util.find_spec("heartbeat._checker").origin
# Without the package around it, whose other module says no before.
code = f'''
from importlib import machinery, util
loader = machinery.ExtensionFileLoader("heartbeat._checker", {path!r})
try:
    module = util.module_from_spec(util.spec_from_loader("heartbeat._checker", loader))
    loader.exec_module(module)
except ImportError as error:
    print("ImportError:", error, flush=True)
else:
    checker = module.Checker(text=open("checker.toml").read())
    print(checker.answer("GET", "/readyz")[0], checker.run("readiness")[0], flush=True)
'''
if first == "main":
    exec(code)
run_in_others(kind, code)
if first != "main":
    exec(code)
"""


@pytest.mark.parametrize("first", ["main", "inner"])
@pytest.mark.parametrize("kind", ["isolated", "legacy"])
def test_another_interpreter_can_ask_the_checker_or_is_told_that_it_cannot(run, tmp_path, kind, first):
    (tmp_path / "checker.toml").write_text(CHECKS)
    done = run(CHECKER_INSIDE, kind, first)
    assert done.returncode == 0, done.stdout + done.stderr
    inside = ["200 0"] * 3
    if kind == "isolated" and sys.version_info >= (3, 12):
        inside = ["ImportError: module heartbeat._checker does not support loading in subinterpreters"] * 3
    assert done.stdout.splitlines() == (["200 0", *inside] if first == "main" else [*inside, "200 0"])
