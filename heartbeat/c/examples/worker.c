/*
 * A whole worker: it takes commands from standard input, one a line, runs several at once, each with a deadline, and on SIGTERM
 * or at the end of its input finishes what it has.
 *
 *     cc -o worker worker.c $(pkg-config --cflags --libs heartbeat)
 *     printf 'sleep 1\nfalse\n' | ./worker
 *
 * Its heartbeat is set by the environment (HEARTBEAT_FILE, HEARTBEAT_LOOP_BUDGET, ...). The argument is the deadline of a command in
 * milliseconds, and 30 s without one.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <heartbeat.h>

enum { CONCURRENCY = 4, LINE = 4096, TURN_MS = 1000, DRAIN_MS = 60000 };

extern char **environ;

struct job {
    pid_t pid; /* 0: free */
    heartbeat_task *task;
    char command[LINE];
};

static struct job jobs[CONCURRENCY];
static uint64_t deadline_ms = 30000;

static void fail(const char *what, const char *why) {
    fprintf(stderr, "worker: %s: %s\n", what, why);
    exit(EXIT_FAILURE);
}

static void must(heartbeat_result result, const char *what) {
    if (result != HEARTBEAT_RESULT_OK)
        fail(what, heartbeat_result_text(result));
}

static heartbeat *start(void) {
    heartbeat_builder *builder = heartbeat_builder_new();
    heartbeat *beats = NULL;
    char why[512] = "";
    size_t length;

    must(heartbeat_builder_add_queue(builder, "commands"), "queue");
    must(heartbeat_builder_set_drain_deadline_ms(builder, DRAIN_MS), "drain deadline");
    if (heartbeat_builder_start(builder, &beats) != HEARTBEAT_RESULT_OK) {
        must(heartbeat_builder_error(builder, why, sizeof why, &length), "error");
        fail("no heartbeat", why);
    }
    heartbeat_builder_free(builder);
    return beats;
}

/* Runs a command in a process of its own, which holds the task from then on. */
static void begin(const heartbeat *beats, struct job *job, const char *command) {
    char *const words[] = {"sh", "-c", job->command, NULL};
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    sigset_t none;
    int failed;

    snprintf(job->command, sizeof job->command, "%s", command);
    must(heartbeat_task_start(beats, "command", deadline_ms, &job->task), "task");
    sigemptyset(&none);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    failed = posix_spawnp(&job->pid, "sh", &files, &attributes, words, environ);
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attributes);
    if (failed) {
        job->pid = 0;
        must(heartbeat_task_fail(job->task), "task");
        fprintf(stderr, "worker: %s: %s\n", command, strerror(failed));
    } else {
        must(heartbeat_task_held_by(job->task, job->pid), "task");
    }
}

static struct job *job_of(pid_t pid) {
    for (struct job *job = jobs; job < jobs + CONCURRENCY; job++)
        if (job->pid == pid)
            return job;
    return NULL;
}

/* Ends the tasks of all commands that have ended. */
static void reap(void) {
    pid_t pid;
    int status;

    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        struct job *job = job_of(pid);
        if (!job)
            continue;
        job->pid = 0;
        must(status == 0 ? heartbeat_task_done(job->task) : heartbeat_task_fail(job->task), "task");
        printf("%s: %s\n", status == 0 ? "done" : "failed", job->command);
        fflush(stdout);
    }
}

static int running(void) {
    int count = 0;

    for (int number = 0; number < CONCURRENCY; number++)
        count += jobs[number].pid != 0;
    return count;
}

/* Lines that have been read and not begun. */
static char input[LINE];
static size_t filled;
/* What comes before the next end of a line belongs to one that was too long. */
static bool skipping;

/* The next whole line, or NULL. */
static char *next_line(char *line) {
    char *end = memchr(input, '\n', filled);
    size_t length;

    if (!end)
        return NULL;
    length = (size_t)(end - input);
    memcpy(line, input, length);
    line[length] = '\0';
    filled -= length + 1;
    memmove(input, end + 1, filled);
    return line;
}

/* Forgets the rest of a line that was too long, as far as it has been read. */
static void skip(void) {
    char *end = memchr(input, '\n', filled);

    skipping = !end;
    filled = end ? filled - (size_t)(end + 1 - input) : 0;
    if (end)
        memmove(input, end + 1, filled);
}

/* Reads more; whether there may be more after it. */
static bool take(void) {
    ssize_t got = read(STDIN_FILENO, input + filled, sizeof input - filled);

    if (got < 0 && (errno == EINTR || errno == EAGAIN))
        return true;
    if (got <= 0) {
        if (filled > 0 && filled < sizeof input)
            input[filled++] = '\n';
        return false;
    }
    filled += (size_t)got;
    if (skipping)
        skip();
    if (filled == sizeof input && !memchr(input, '\n', filled)) {
        fprintf(stderr, "worker: a line is too long, and left out\n");
        skipping = true;
        filled = 0;
    }
    return true;
}

static int signals(void) {
    sigset_t set;
    int descriptor;

    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    descriptor = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (descriptor < 0)
        fail("signalfd", strerror(errno));
    return descriptor;
}

/* Whether a signal has come that ends the worker. */
static bool told_to_end(int descriptor) {
    struct signalfd_siginfo signal;
    bool told = false;

    while (read(descriptor, &signal, sizeof signal) == (ssize_t)sizeof signal)
        told = told || signal.ssi_signo != SIGCHLD;
    return told;
}

int main(int argc, char **argv) {
    const int signalled = signals();
    bool taking = true, waiting = false;
    char line[LINE];
    heartbeat *beats;

    if (argc > 1)
        deadline_ms = strtoull(argv[1], NULL, 10);
    beats = start();
    while (taking || waiting || running() > 0) {
        struct pollfd ready[2] = {{.fd = signalled, .events = POLLIN}, {.fd = -1, .events = POLLIN}};

        /* The loop turns, and will be back within its budget. */
        must(heartbeat_pulse(beats), "pulse");
        while (running() < CONCURRENCY && next_line(line))
            begin(beats, job_of(0), line);
        waiting = memchr(input, '\n', filled) != NULL;
        if (taking && !waiting)
            ready[1].fd = STDIN_FILENO;
        poll(ready, 2, TURN_MS);

        reap();
        if (told_to_end(signalled)) {
            for (taking = waiting = false; next_line(line);)
                printf("left: %s\n", line);
            must(heartbeat_drain(beats, HEARTBEAT_NONE), "drain");
        } else if (ready[1].revents && !take()) {
            taking = false;
            must(heartbeat_drain(beats, HEARTBEAT_NONE), "drain");
            waiting = true;
        }
    }
    must(heartbeat_stop(beats), "stop");
    heartbeat_free(beats);
    return EXIT_SUCCESS;
}
