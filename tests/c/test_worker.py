"""The example, a real worker, in every way of linking and under every watch, judged by the real checker."""

import os
import re
import signal
import subprocess

import pytest

import harness
from c_library import BUILDS, CRATE
from harness import until, verdict
from signing import NO_KEYS

SOURCE = CRATE / "examples" / "worker.c"
PIPE = 65_536


class Worker(harness.Program):
    """The example, whose commands are overdue after two seconds."""

    def __init__(self, words, file, deadline_ms=2_000, **settings):
        self.file = file
        environment = harness.environment(HEARTBEAT_FILE=file, HEARTBEAT_INTERVAL="100ms", HEARTBEAT_PROMISE="60s", **settings)
        super().__init__([*words, deadline_ms], environment)
        until(file.exists, timeout=60, what="the first beat")

    def say(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def becomes(self, name):
        return until(lambda: (seen := verdict(self.file)).name == name and seen, timeout=60, what=f"it is {name}; {self.output}")

    def reports(self, line):
        until(lambda: f"{line}\n" in self.lines, timeout=60, what=f"{line}; {self.output}")

    def ends_well(self):
        status = self.exit_status(60)
        assert (status, self.file.exists()) == (0, False), self.output
        assert verdict(self.file).name == "missing"


@pytest.mark.parametrize("way", BUILDS)
def test_the_example_is_judged_rightly_all_its_life(way, built, start, tmp_path):
    worker = start(Worker, built(SOURCE, way), tmp_path / "beat")
    idle = worker.becomes("alive")
    assert idle.answer["reason"].startswith("idle")
    assert harness.record(worker.file)["queues"] == ["commands"]
    end = tmp_path / "end"
    worker.say(f"until test -e {end}; do sleep 0.05; done")
    until(lambda: verdict(worker.file).answer["reason"].startswith("busy"), what="it is busy")
    late = worker.becomes("overdue")
    assert re.search(r'task "command" was due .* ago \(budget 2 s\)', late.answer["reason"]), late.answer
    end.touch()
    worker.becomes("alive")
    worker.say("false")
    worker.reports("failed: false")
    until(lambda: harness.record(worker.file)["tasks"]["failed"] == 1)
    assert harness.record(worker.file)["tasks"]["done"] == 1
    worker.say("sleep 1.5")
    until(lambda: harness.record(worker.file)["status"] == "busy")
    worker.signal(signal.SIGTERM)
    assert worker.becomes("draining").passes
    worker.reports("done: sleep 1.5")
    worker.ends_well()


def test_the_example_finishes_what_it_was_given(shipped, start, tmp_path):
    worker = start(Worker, [shipped.program(SOURCE, tmp_path / "worker")], tmp_path / "beat")
    commands = [f"sleep 0.0{number}" for number in range(1, 10)]
    worker.process.stdin.write("\n".join(commands))
    worker.process.stdin.close()
    for command in commands:
        worker.reports(f"done: {command}")
    worker.ends_well()


def test_a_line_that_is_too_long_is_left_out_and_told_and_the_next_ones_are_run(shipped, start, tmp_path):
    worker = start(Worker, [shipped.program(SOURCE, tmp_path / "worker")], tmp_path / "beat")
    # The longest that fits, one byte more, and one that takes many reads.
    worker.say("true ".ljust(4095, "#"))
    worker.say("echo no ".ljust(4096, "#"))
    worker.say("echo no " + "#" * 100_000)
    worker.say("echo yes")
    worker.process.stdin.close()
    worker.reports("done: echo yes")
    worker.ends_well()
    assert worker.lines.count("yes\n") == 1 and "no\n" not in worker.lines
    assert worker.output.count("too long") == 2 and worker.output.count("done: ") == 2


def test_a_command_that_is_stopped_is_overdue_long_before_its_deadline(shipped, start, tmp_path):
    worker = start(Worker, [shipped.program(SOURCE, tmp_path / "worker")], tmp_path / "beat", deadline_ms=3_600_000)
    worker.say("kill -STOP $$")
    worker.becomes("overdue")
    stopped = [pid for pid in harness.session_members(worker.pid) if harness.process_state(pid) == "T"]
    os.kill(*stopped, signal.SIGCONT)
    worker.reports("done: kill -STOP $$")
    worker.becomes("alive")


def test_a_loop_that_nobody_lets_turn_is_wedged_until_it_turns_again(shipped, tmp_path):
    """It tells its results on a pipe that is full. That it turns once a second leaves it four seconds at least."""
    file = tmp_path / "beat"
    environment = harness.environment(HEARTBEAT_FILE=file, HEARTBEAT_INTERVAL="100ms", HEARTBEAT_LOOP_BUDGET="5s")
    program = shipped.program(SOURCE, tmp_path / "worker")
    worker = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    try:
        worker.stdin.write(f"head -c {PIPE} /dev/zero\n".encode())
        worker.stdin.flush()
        wedged = until(lambda: (seen := verdict(file)).name == "wedged" and seen, timeout=60, what="it is wedged")
        assert not wedged.passes
        assert worker.stdout.read(PIPE) == bytes(PIPE)
        until(lambda: verdict(file).passes, what="it turns again")
        worker.stdin.close()
        assert worker.wait(60) == 0
        assert not file.exists()
    finally:
        worker.kill()
        worker.wait()
        worker.stdout.close()


def test_a_killed_worker_is_gone(shipped, start, tmp_path):
    worker = start(Worker, [shipped.program(SOURCE, tmp_path / "worker")], tmp_path / "beat")
    worker.becomes("alive")
    worker.signal(signal.SIGKILL)
    worker.exit_status()
    assert verdict(worker.file).name == "gone"


def test_a_second_worker_is_told_who_holds_the_file(shipped, start, tmp_path):
    program = shipped.program(SOURCE, tmp_path / "worker")
    first = start(Worker, [program], tmp_path / "beat")
    first.becomes("alive")
    second = start(harness.Program, [program], harness.environment(HEARTBEAT_FILE=first.file))
    assert second.exit_status() == 1
    assert f"held by another living worker, pid {first.pid}" in second.output


def test_beats_to_redis_are_signed_with_the_key_in_the_environment(everything, start, signing, tmp_path):
    worker = start(Worker, [everything.program(SOURCE, tmp_path / "worker")], tmp_path / "beat", **signing.environment)
    assert "mac" not in harness.record(worker.file), "a file is not signed"
    signing.play(worker)


@pytest.mark.parametrize("key", NO_KEYS, ids=["short", "three", "unprintable"])
def test_a_key_that_cannot_be_is_refused_and_not_shown(key, everything, start, signing, tmp_path):
    environment = harness.environment(HEARTBEAT_FILE=tmp_path / "beat", **signing.environment | {"HEARTBEAT_KEY": key})
    worker = start(harness.Program, [everything.program(SOURCE, tmp_path / "worker")], environment)
    assert worker.exit_status(60) == 1
    assert f"no heartbeat: heartbeat: {NO_KEYS[key]}" in worker.output and key not in worker.output
    assert not (tmp_path / "beat").exists()
