"""What a program may do with the library beside calling it: from a signal handler, by dlopen, through a check of another's file."""

import os
import re
import time
from pathlib import Path

import pytest

import harness
from c_library import SANITIZED, run
from c_header import enumerators
from harness import record, until, verdict

PULSES = 2_000

SIGNALS = """
#define _GNU_SOURCE
#include <heartbeat.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <unistd.h>

static heartbeat *beats;
static volatile sig_atomic_t pulses, failures;

static void handler(int number) {
    (void)number;
    failures += heartbeat_pulse_within_ms(beats, 4000000) != HEARTBEAT_RESULT_OK;
    failures += heartbeat_pulse(beats) != HEARTBEAT_RESULT_OK;
    pulses++;
}

int main(int argc, char **argv) {
    struct itimerval often = {{0, 200}, {0, 200}};
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
    heartbeat_builder *builder = heartbeat_builder_new();
    heartbeat_worker_status status;
    heartbeat_task *task;

    if (argc != 3 || heartbeat_builder_set_file(builder, argv[1]) || heartbeat_builder_start(builder, &beats)) return 1;
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &often, NULL);
    /* Interrupted at every lock of this library's and of the allocator's. */
    while (pulses < atoi(argv[2])) {
        free(malloc(100));
        if (heartbeat_task_start(beats, "task", HEARTBEAT_NONE, &task) || heartbeat_ready(beats) ||
            heartbeat_status(beats, &status) || heartbeat_task_done(task))
            return 2;
    }
    setitimer(ITIMER_REAL, &(struct itimerval){{0, 0}, {0, 0}}, NULL);
    printf("%d\\n", (int)failures);
    fflush(stdout);
    if (getchar() != EOF) return 3;
    heartbeat_free(beats);
    heartbeat_builder_free(builder);
    return 0;
}
"""


@pytest.mark.parametrize("way", ["shared", "musl"])
def test_a_signal_handler_may_pulse_wherever_it_interrupts(way, built, start, tmp_path):
    source, file = tmp_path / "signals.c", tmp_path / "beat"
    source.write_text(SIGNALS)
    program = start(harness.Program, [*built(source, way), file, PULSES])
    assert program.next_line(60) == "0"
    loop = until(lambda: record(file).get("loop"), what="the pulses are in the record")
    # The last of each handler, which takes the place of the one before it.
    assert loop["due_mono_ms"] - loop["pulsed_mono_ms"] < 4_000_000
    assert verdict(file).name == "alive"
    program.process.stdin.close()
    assert program.exit_status() == 0


SILENT = """
#define _GNU_SOURCE
#include <heartbeat.h>
#include <unistd.h>

int main(void) {
    heartbeat_builder *builder = heartbeat_builder_new();
    heartbeat *beats;

    if (heartbeat_builder_set_no_file(builder) || heartbeat_builder_start(builder, &beats)) return 1;
    if (write(1, "<", 1) != 1) return 1;
    for (int number = 0; number < 1000; number++)
        if (heartbeat_pulse(beats) || heartbeat_pulse_within_ms(beats, 5)) return 1;
    if (write(1, ">", 1) != 1) return 1;
    return 0;
}
"""


def test_a_pulse_is_no_system_call(shipped, tmp_path):
    source, trace = tmp_path / "silent.c", tmp_path / "trace"
    source.write_text(SILENT)
    program = shipped.program(source, tmp_path / "silent")
    run("strace", "-o", trace, program, env=harness.environment())
    between = re.search(r'^write\(1, "<".*\n((?:.*\n)*?)write\(1, ">"', trace.read_text(), re.M)[1]
    # Where a machine's clock cannot be read without the kernel, that one is.
    assert [line for line in between.splitlines() if not line.startswith("clock_gettime(CLOCK_MONOTONIC")] == []


UNLOADED = """
#include <dlfcn.h>
#include <stdio.h>
#include <unistd.h>
#include <heartbeat.h>

int main(int argc, char **argv) {
    void *library = dlopen(argv[1], RTLD_NOW);
    heartbeat_builder *(*new)(void);
    heartbeat_result (*set_file)(heartbeat_builder *, const char *), (*start)(heartbeat_builder *, heartbeat **);
    heartbeat *beats;
    heartbeat_builder *builder;

    if (argc != 3 || !library) return 1;
    *(void **)&new = dlsym(library, "heartbeat_builder_new");
    *(void **)&set_file = dlsym(library, "heartbeat_builder_set_file");
    *(void **)&start = dlsym(library, "heartbeat_builder_start");
    builder = new();
    if (set_file(builder, argv[2]) || start(builder, &beats) || dlclose(library)) return 1;
    puts("closed");
    fflush(stdout);
    return getchar() != EOF;
}
"""


def test_a_library_that_was_closed_beats_on_and_cleans_up(shipped, start, tmp_path):
    source, file = tmp_path / "unloaded.c", tmp_path / "beat"
    source.write_text(UNLOADED)
    program = tmp_path / "unloaded"
    # -pedantic knows no pointer to a function that came as one to data.
    run("gcc", "-o", program, source, *shipped.pkg_config("--cflags"))
    library = shipped.prefix / "lib" / "libheartbeat.so.0"
    running = start(harness.Program, [program, library, file], harness.environment(HEARTBEAT_INTERVAL="20ms"))
    assert running.next_line() == "closed"
    seq = record(file)["seq"]
    until(lambda: record(file)["seq"] > seq + 5)
    running.process.stdin.close()
    assert (running.exit_status(), file.exists()) == (0, False)


OBEDIENT = """
#include <heartbeat.h>
#include <stdio.h>

int main(int argc, char **argv) {
    heartbeat_builder *builder = heartbeat_builder_new();
    heartbeat_worker_status status;
    heartbeat_result result;
    heartbeat_task *task;
    heartbeat *beats;
    int command;

    if (argc != 2 || heartbeat_builder_set_file(builder, argv[1]) || heartbeat_builder_set_file_mode(builder, 0644) ||
        heartbeat_builder_set_interval_ms(builder, 50) || heartbeat_builder_set_promise_ms(builder, 1000) ||
        heartbeat_builder_set_loop_budget_ms(builder, 500) || heartbeat_builder_set_start_deadline_ms(builder, 1000) ||
        heartbeat_builder_set_cluster(builder, "in-c") || heartbeat_builder_set_worker(builder, "one") ||
        heartbeat_builder_set_version(builder, "7") || heartbeat_builder_set_drain_deadline_ms(builder, 1000) ||
        heartbeat_builder_start(builder, &beats))
        return 1;
    do {
        if (heartbeat_status(beats, &status)) return 2;
        printf("%u\\n", status);
        fflush(stdout);
        command = getchar();
        switch (command) {
        case 'r': result = heartbeat_ready(beats); break;
        case 'l': result = heartbeat_broker_lost(beats); break;
        case 'b': result = heartbeat_broker_back(beats); break;
        case 'p': result = heartbeat_pulse(beats); break;
        case 'P': result = heartbeat_pulse_within_ms(beats, 3600000); break;
        case 't': result = heartbeat_task_start(beats, "\\xff[2J\\033", 500, &task); break;
        case 'h': result = heartbeat_task_held_by(task, 0) == HEARTBEAT_RESULT_INVALID_PARAMETER ? 0 : 99; break;
        case 'f': result = heartbeat_task_fail(task); break;
        case 'd': result = heartbeat_drain(beats, HEARTBEAT_NONE); break;
        case 's': result = heartbeat_stop(beats); break;
        default: result = HEARTBEAT_RESULT_OK;
        }
    } while (command != EOF && result == HEARTBEAT_RESULT_OK);
    heartbeat_free(beats);
    heartbeat_builder_free(builder);
    return (int)result;
}
"""


def test_what_a_program_says_is_what_is_judged(shipped, start, tmp_path):
    source, file = tmp_path / "obedient.c", tmp_path / "beat"
    source.write_text(OBEDIENT)
    program = start(harness.Program, [shipped.program(source, tmp_path / "obedient", *SANITIZED), file])
    status = {member.removeprefix("HEARTBEAT_WORKER_STATUS_").lower(): str(number) for number, member in enumerators("heartbeat_worker_status").items()}

    def say(command, then):
        program.process.stdin.write(command)
        program.process.stdin.flush()
        assert program.next_line() == status[then], program.output

    def becomes(name):
        return until(lambda: (seen := verdict(file)).name == name and seen, timeout=60, what=name)

    assert program.next_line(60) == status["starting"]
    becomes("start overdue")
    say("r", "idle")
    assert becomes("alive").answer["worker"] == "one"
    told = record(file)
    assert (told["cluster"], told["version"], told["interval_ms"], told["promise_ms"]) == ("in-c", "7", 50, 1000)
    assert file.stat().st_mode & 0o7777 == 0o644
    say("p", "idle")
    becomes("wedged")
    say("l", "idle")
    becomes("cut off")
    say("b", "idle")
    say("P", "idle")
    becomes("alive")
    say("t", "busy")
    say("h", "busy")
    # Neither its bytes nor its control characters reach a terminal.
    assert '"�[2J?"' in becomes("overdue").answer["reason"]
    say("f", "idle")
    until(lambda: record(file)["tasks"]["failed"] == 1)
    becomes("alive")
    say("d", "draining")
    becomes("drain overdue")
    say("s", "stopped")
    assert not file.exists()
    say("s", "stopped")
    program.process.stdin.close()
    assert program.exit_status() == 0, program.output


CYCLES = """
#include <heartbeat.h>

int main(int argc, char **argv) {
    heartbeat_builder *builder = heartbeat_builder_new();
    heartbeat *beats, *refused;
    heartbeat_task *task;
    char text[512];
    size_t length;

    if (argc != 2 || heartbeat_builder_set_file(builder, argv[1]) || heartbeat_builder_add_queue(builder, "mail")) return 1;
    /* What is set to none is not set. */
    if (heartbeat_builder_set_interval_ms(builder, 1) || heartbeat_builder_set_interval_ms(builder, HEARTBEAT_NONE) ||
        heartbeat_builder_set_promise_ms(builder, HEARTBEAT_NONE) || heartbeat_builder_set_loop_budget_ms(builder, HEARTBEAT_NONE) ||
        heartbeat_builder_set_start_deadline_ms(builder, HEARTBEAT_NONE) ||
        heartbeat_builder_set_drain_deadline_ms(builder, HEARTBEAT_NONE))
        return 1;
    for (int cycle = 0; cycle < 20; cycle++) {
        if (heartbeat_builder_start(builder, &beats)) return 2;
        if (heartbeat_builder_start(builder, &refused) != HEARTBEAT_RESULT_HELD) return 3;
        for (int number = 0; number < 20; number++)
            if (heartbeat_task_start(beats, "task", 1000, &task) ||
                (number % 2 ? heartbeat_task_done(task) : heartbeat_task_fail(task)))
                return 4;
        if (heartbeat_last_error(beats, text, sizeof text, &length) || heartbeat_task_start(beats, "late", 1000, &task)) return 5;
        /* By either, and a task may outlive them. */
        if (cycle % 2 && heartbeat_stop(beats)) return 6;
        heartbeat_free(beats);
        if (heartbeat_task_done(task)) return 7;
    }
    heartbeat_builder_free(builder);
    return 0;
}
"""


@pytest.mark.parametrize("way", ["sanitized", "valgrind"])
def test_nothing_is_left_of_many_heartbeats(way, built, tmp_path):
    source = tmp_path / "cycles.c"
    source.write_text(CYCLES)
    run(*built(source, way), tmp_path / "beat", env=harness.environment())
    assert not (tmp_path / "beat").exists()


LATE = """
#define _GNU_SOURCE
#include <heartbeat.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static atomic_bool hanging = true;

/* This program's own comes before that of the C library: a file system that hangs. */
int unlink(const char *path) {
    while (hanging)
        usleep(1000);
    return (int)syscall(SYS_unlink, path);
}

static void told(heartbeat *beats, heartbeat_result result) {
    char why[256];
    size_t length;

    if (heartbeat_last_error(beats, why, sizeof why, &length))
        strcpy(why, "?");
    printf("%u %s\\n", result, why);
}

int main(int argc, char **argv) {
    heartbeat_builder *builder = heartbeat_builder_new();
    heartbeat *beats;

    if (argc != 2 || heartbeat_builder_set_file(builder, argv[1]) || heartbeat_builder_start(builder, &beats))
        return 1;
    told(beats, heartbeat_stop(beats));
    hanging = false;
    told(beats, heartbeat_stop(beats));
    heartbeat_free(beats);
    heartbeat_builder_free(builder);
    return 0;
}
"""


def test_a_stop_that_came_too_late_is_no_failure_of_the_next_one(shipped, tmp_path):
    source = tmp_path / "late.c"
    source.write_text(LATE)
    program = shipped.program(source, tmp_path / "late", static=True, standard="c11")
    told = run(program, tmp_path / "beat", env=harness.environment()).splitlines()
    assert told == ["7 the publisher did not end in time", "0 "]


CHECK = """
#include <heartbeat.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    heartbeat_verdict verdict;
    char reason[256];
    size_t length;
    uint64_t max_age_ms = argc > 2 ? strtoull(argv[2], NULL, 10) : HEARTBEAT_NONE;

    if (heartbeat_check_file(argv[1], max_age_ms, &verdict, reason, sizeof reason, &length)) return 3;
    printf("%s: %s\\n", heartbeat_verdict_text(verdict), reason);
    return !heartbeat_verdict_is_live(verdict);
}
"""


@pytest.fixture
def check(shipped, tmp_path):
    """Judges a file by `heartbeat_check_file`, and by the real checker, which must agree but for the numbers."""
    source = tmp_path / "check.c"
    source.write_text(CHECK)
    program = shipped.program(source, tmp_path / "check", *SANITIZED)

    def judge(file, max_age_ms=None):
        age = [] if max_age_ms is None else [str(max_age_ms)]
        option = [] if max_age_ms is None else ["--max-age", f"{max_age_ms}ms"]
        ours = harness.subprocess.run([program, file, *age], capture_output=True, text=True, env=harness.environment(), check=False)
        theirs = verdict(file, *option)
        name, _, reason = ours.stdout.rstrip("\n").partition(": ")
        assert (name, ours.returncode) == (theirs.name, theirs.code), ours.stderr
        assert re.sub(r"[\d.]+", "", reason) == re.sub(r"[\d.]+", "", theirs.answer["reason"])
        return name

    return judge


def test_a_file_is_judged_in_process_as_by_the_command(check, demo_worker, tmp_path):
    assert check(tmp_path / "nothing") == "missing"
    worker = demo_worker("--promise", "60s", "--loop-budget", "2s")
    until(lambda: verdict(worker.file).name == "alive")
    assert check(worker.file) == "alive"
    worker.say("wedge")
    until(lambda: verdict(worker.file).name == "wedged", timeout=60)
    # Its lateness is told in other words each time.
    worker.signal(9)
    worker.exit_status()
    assert check(worker.file) == "gone"
    (tmp_path / "link").symlink_to(worker.file)
    assert check(tmp_path / "link") == "unsafe"
    bare = tmp_path / "bare"
    bare.touch()
    assert check(bare) == "corrupt"
    assert check(bare, 60_000) == "alive"
    past = time.time() - 100
    os.utime(bare, (past, past))
    assert check(bare, 60_000) == "silent"
    assert check(Path("/dev/null")) == "unsafe"


def test_the_endpoint_and_redis_are_there_with_their_features(everything, shipped, start, own_broker, tmp_path):
    source = tmp_path / "features.c"
    source.write_text(
        """
        #include <heartbeat.h>
        #include <stdio.h>

        int main(int argc, char **argv) {
            heartbeat_builder *builder = heartbeat_builder_new();
            heartbeat_result redis = heartbeat_builder_set_redis(builder, argv[argc - 1]);
            heartbeat_result endpoint = heartbeat_builder_set_endpoint(builder, "127.0.0.1:0");
            heartbeat *beats;
            char address[64];
            size_t length;

            heartbeat_builder_set_no_file(builder);
            heartbeat_builder_set_cluster(builder, "in-c");
            if (heartbeat_builder_start(builder, &beats) ||
                heartbeat_endpoint_address(beats, address, sizeof address, &length))
                return 1;
            printf("%u %u %s %d\\n", redis, endpoint, address, (int)heartbeat_builder_set_endpoint(builder, "nowhere"));
            fflush(stdout);
            return getchar() != EOF;
        }
        """
    )
    without = start(harness.Program, [shipped.program(source, tmp_path / "without"), own_broker.url])
    assert without.next_line() == "8 8  8"
    program = start(harness.Program, [everything.program(source, tmp_path / "with"), own_broker.url])
    redis, endpoint, address, nowhere = program.next_line(60).split()
    assert (redis, endpoint, nowhere) == ("0", "0", "2")
    assert '"verdict":"alive"' in run("curl", "--silent", "--fail", f"http://{address}/readyz")
    cluster = [harness.CHECKER, "cluster", "in-c", "--redis", own_broker.url]
    # Its first beat to Redis waits for a random part of the interval.
    until(lambda: harness.subprocess.run(cluster, capture_output=True, check=False).returncode == 0, what="it beats to Redis")
