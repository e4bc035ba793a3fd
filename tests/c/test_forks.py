"""Forks of every sort under a program in C, with glibc and with musl: the parent beats on, and no child does so in its name, or hangs."""

import contextlib
import os
from pathlib import Path

import pytest

import harness
from c_library import run
from harness import record, until, verdict

SOURCE = Path(__file__).with_name("forks.c")
WAYS = pytest.mark.parametrize("way", ["shared", "musl"])


class Forking(harness.Program):
    def __init__(self, words, how, folder):
        self.file, self.other = folder / "beat", folder / "other"
        super().__init__([*words, how, self.file, self.other], harness.environment())

    def hears(self, *lines):
        """What parent and child tell, in whatever order."""
        assert sorted(self.next_line(60) for _ in lines) == sorted(lines), self.output

    def beats_on(self, pid=None):
        """Its next beats are its own, and it is judged alive."""
        first = record(self.file)
        assert first["pid"] == (pid or self.pid)
        until(lambda: record(self.file)["seq"] >= first["seq"] + 5, timeout=60, what="it beats on")
        last = record(self.file)
        assert (last["id"], last["status"]) == (first["id"], "idle")
        assert "name" not in last["tasks"]
        assert verdict(self.file).name == "alive"
        return last

    def ends_well(self):
        self.process.stdin.close()
        assert self.exit_status(60) == 0, self.output
        assert not self.file.exists()


@pytest.fixture
def forking(built, start, tmp_path):
    return lambda how, way: start(Forking, built(SOURCE, way), how, tmp_path)


@WAYS
@pytest.mark.parametrize("how", ["use", "exit"])
def test_a_child_does_nothing_in_its_parents_name(how, way, forking):
    program = forking(how, way)
    program.hears("parent")
    # No child has pulsed either.
    loop = program.beats_on()["loop"]
    assert loop["due_mono_ms"] - loop["pulsed_mono_ms"] >= 3_600_000
    program.ends_well()


@WAYS
@pytest.mark.parametrize("how", ["own", "before"])
def test_a_child_beats_for_itself_elsewhere(how, way, forking):
    program = forking(how, way)
    program.hears("parent", "child")
    own = record(program.other)
    assert own["pid"] != program.pid and own["id"] != program.beats_on()["id"]
    until(lambda: record(program.other)["seq"] >= own["seq"] + 5)
    assert verdict(program.other).name == "alive"
    os.kill(own["pid"], 9)
    until(lambda: verdict(program.other).name == "gone")
    program.beats_on()
    program.ends_well()


@WAYS
@pytest.mark.parametrize("how", ["exec", "spawn"])
def test_what_a_child_executes_holds_nothing_of_its_parents(how, way, forking):
    program = forking(how, way)
    # Standard input, output and error, and the folder that `ls` reads.
    program.hears("0 1 2 3", "parent")
    program.beats_on()
    program.other.touch()
    program.ends_well()


@WAYS
def test_the_parent_beats_on_while_a_vforked_child_executes(way, forking):
    program = forking("vfork", way)
    program.hears("0 1 2 3", "parent")
    program.beats_on()
    program.other.touch()
    program.ends_well()


@WAYS
def test_no_child_hangs_while_other_threads_are_at_all_the_locks(way, forking):
    program = forking("storm", way)
    program.hears("parent")
    assert record(program.file)["pid"] == program.pid
    assert verdict(program.file).name == "alive"
    program.ends_well()


# This program's own `pthread_atfork` comes before that of glibc, which only hands on to this function.
FIRST = """
#define _GNU_SOURCE
#include <heartbeat.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

extern int __register_atfork(void (*)(void), void (*)(void), void (*)(void), void *);

static atomic_int inside, forked;

int pthread_atfork(void (*before)(void), void (*parent)(void), void (*child)(void)) {
    atomic_fetch_add(&inside, 1);
    while (!forked)
        usleep(1000);
    return __register_atfork(before, parent, child, NULL);
}

static void *start(void *path) {
    heartbeat_builder *builder = heartbeat_builder_new();
    heartbeat *beats = NULL;

    if (heartbeat_builder_set_file(builder, path) || heartbeat_builder_start(builder, &beats))
        return NULL;
    heartbeat_builder_free(builder);
    return beats;
}

int main(int argc, char **argv) {
    pthread_t thread;
    void *beats;
    int status = -1;
    pid_t pid;

    if (argc != 3 || pthread_create(&thread, NULL, start, argv[1]))
        return 1;
    while (!inside)
        usleep(1000);
    pid = fork();
    forked = 1;
    if (pid == 0) {
        alarm(20);
        beats = start(argv[2]);
        if (!beats || heartbeat_stop(beats))
            _exit(2);
        _exit(0);
    }
    if (waitpid(pid, &status, 0) != pid || pthread_join(thread, &beats) || !beats || heartbeat_stop(beats))
        return 3;
    printf("%d %#x\\n", (int)inside, (unsigned)status);
    return 0;
}
"""


def test_a_child_that_was_forked_during_the_very_first_start_starts_for_itself(shipped, tmp_path):
    source = tmp_path / "first.c"
    source.write_text(FIRST)
    program = shipped.program(source, tmp_path / "first", static=True, standard="c11")
    assert run(program, tmp_path / "beat", tmp_path / "other", env=harness.environment()).split() == ["1", "0"]


@WAYS
def test_a_program_that_daemonized_beats_and_cleans_up(way, forking):
    program = forking("daemon", way)
    assert program.exit_status() == 0
    daemon = until(lambda: program.file.exists() and record(program.file))["pid"]
    try:
        assert daemon != program.pid
        program.beats_on(daemon)
        program.other.touch()
        until(lambda: not program.file.exists(), what="it has cleaned up")
    finally:
        # Not one of the program's session any more.
        with contextlib.suppress(ProcessLookupError):
            os.kill(daemon, 9)
