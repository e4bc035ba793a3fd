/* Forks in every way while it beats, and tells how the children fared. A child that hangs is ended by its alarm, and told. */

#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <heartbeat.h>

enum { PATIENCE = 20, STORM = 100 };

extern char **environ;

static heartbeat *beats;

/* In children too, whose standard output is the parent's. */
#define EXPECT(truth)                                                                                                          \
    do {                                                                                                                       \
        if (!(truth)) {                                                                                                        \
            fprintf(stderr, "line %d: %s\n", __LINE__, #truth);                                                                \
            _exit(1);                                                                                                          \
        }                                                                                                                      \
    } while (0)
#define OK(call) EXPECT((call) == HEARTBEAT_RESULT_OK)

static heartbeat *start(const char *file) {
    heartbeat_builder *builder = heartbeat_builder_new();
    heartbeat *started = NULL;
    char why[512];
    size_t length;

    OK(heartbeat_builder_set_file(builder, file));
    OK(heartbeat_builder_set_interval_ms(builder, 20));
    OK(heartbeat_builder_set_promise_ms(builder, 60000));
    if (heartbeat_builder_start(builder, &started) != HEARTBEAT_RESULT_OK) {
        OK(heartbeat_builder_error(builder, why, sizeof why, &length));
        fprintf(stderr, "%s: %s\n", file, why);
        _exit(1);
    }
    heartbeat_builder_free(builder);
    return started;
}

static void told(const char *line) {
    printf("%s\n", line);
    fflush(stdout);
}

static pid_t child(void) {
    pid_t pid = fork();

    EXPECT(pid >= 0);
    if (pid == 0)
        alarm(PATIENCE);
    return pid;
}

static void ended_well(pid_t pid) {
    int status = -1;

    EXPECT(waitpid(pid, &status, 0) == pid);
    if (status != 0) {
        fprintf(stderr, "a child ended with %#x\n", (unsigned)status);
        exit(1);
    }
}

static void wait_for(const char *file) {
    struct stat found;

    while (stat(file, &found) != 0)
        usleep(10000);
}

/* All that a handle is good for, in a child. */
static void use(void) {
    heartbeat_worker_status status = HEARTBEAT_WORKER_STATUS_IDLE;
    heartbeat_task *task = NULL;
    char text[64];
    size_t length;

    OK(heartbeat_pulse(beats));
    OK(heartbeat_pulse_within_ms(beats, 1));
    OK(heartbeat_ready(beats));
    OK(heartbeat_drain(beats, 1));
    OK(heartbeat_task_start(beats, "the child's", 1, &task));
    OK(heartbeat_task_held_by(task, getpid()));
    OK(heartbeat_task_fail(task));
    OK(heartbeat_broker_lost(beats));
    OK(heartbeat_broker_back(beats));
    OK(heartbeat_status(beats, &status));
    EXPECT(status == HEARTBEAT_WORKER_STATUS_STOPPED);
    OK(heartbeat_last_error(beats, text, sizeof text, &length));
    OK(heartbeat_endpoint_address(beats, text, sizeof text, &length));
    OK(heartbeat_stop(beats));
}

static void *churn(void *unused) {
    heartbeat_worker_status status;
    heartbeat_task *task;

    for (;;) {
        OK(heartbeat_task_start(beats, "busy", 60000, &task));
        OK(heartbeat_pulse(beats));
        OK(heartbeat_ready(beats));
        OK(heartbeat_status(beats, &status));
        OK(heartbeat_task_done(task));
    }
    return unused;
}

/* Many children, while other threads are at all the locks. Some beat for themselves. */
static void storm(const char *own) {
    pthread_t thread;

    for (int number = 0; number < 3; number++)
        EXPECT(pthread_create(&thread, NULL, churn, NULL) == 0);
    for (int number = 0; number < STORM; number++) {
        pid_t pid = child();

        if (pid == 0) {
            use();
            heartbeat_free(beats);
            if (number % 10 == 0) {
                beats = start(own);
                OK(heartbeat_stop(beats));
                heartbeat_free(beats);
            }
            _exit(0);
        }
        ended_well(pid);
    }
}

int main(int argc, char **argv) {
    const char *how = argv[1], *file = argv[2], *other = argv[3];
    char *const sleeper[] = {"sh", "-c", "echo $(ls /proc/self/fd); until test -e \"$0\"; do sleep 0.02; done", argv[3], NULL};
    pid_t pid;

    EXPECT(argc == 4);
    if (strcmp(how, "daemon") == 0) {
        EXPECT(daemon(1, 1) == 0);
        beats = start(file);
        wait_for(other);
        heartbeat_free(beats);
        return 0;
    }
    if (strcmp(how, "before") == 0) {
        /* Of a process with one thread, that never had a heartbeat of its own. */
        if (child() == 0) {
            beats = start(other);
            told("child");
            for (;;)
                pause();
        }
        wait_for(other);
        beats = start(file);
    } else {
        beats = start(file);
    }
    OK(heartbeat_pulse_within_ms(beats, 3600000));
    if (strcmp(how, "use") == 0) {
        if ((pid = child()) == 0) {
            use();
            heartbeat_free(beats);
            exit(0);
        }
        ended_well(pid);
    } else if (strcmp(how, "exit") == 0) {
        /* With the handle alive, and all that runs at exit(). */
        if ((pid = child()) == 0)
            exit(0);
        ended_well(pid);
    } else if (strcmp(how, "own") == 0) {
        if (child() == 0) {
            beats = start(other);
            told("child");
            for (;;)
                pause();
        }
    } else if (strcmp(how, "exec") == 0) {
        if (child() == 0) {
            execvp("sh", sleeper);
            _exit(127);
        }
    } else if (strcmp(how, "vfork") == 0) {
        if ((pid = vfork()) == 0) {
            execvp("sh", sleeper);
            _exit(127);
        }
        EXPECT(pid > 0);
    } else if (strcmp(how, "spawn") == 0) {
        EXPECT(posix_spawnp(&pid, "sh", NULL, NULL, sleeper, environ) == 0);
    } else if (strcmp(how, "storm") == 0) {
        storm(other);
    }
    told("parent");
    /* Until the test has looked. */
    EXPECT(getchar() == EOF);
    OK(heartbeat_stop(beats));
    /* The other threads go on. */
    if (strcmp(how, "storm") == 0)
        _exit(0);
    heartbeat_free(beats);
    return 0;
}
