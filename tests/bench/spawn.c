// Starts programs in turn, again and again, and tells of each run how long it took, in nanoseconds, and its memory at the most,
// in KiB: `spawn ROUNDS PROGRAM...`, each program with its words apart by a space. A line a run: its number, its time, its memory.
//
// In C and static, because what a child's memory is counted from is what its parent had, and little of that may be the measure's own.
#define _GNU_SOURCE
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

extern char **environ;
enum { MOST_PROGRAMS = 32, MOST_WORDS = 32 };

static long long now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

int main(int count, char **words) {
    static char *programs[MOST_PROGRAMS][MOST_WORDS + 1];
    int many = count - 2;
    if (many < 1 || many > MOST_PROGRAMS) return 2;
    for (int program = 0; program < many; program++) {
        int word = 0;
        for (char *next = strtok(words[program + 2], " "); next && word < MOST_WORDS; next = strtok(0, " ")) programs[program][word++] = next;
    }
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
    for (int round = atoi(words[1]); round > 0; round--) {
        for (int program = 0; program < many; program++) {
            pid_t child;
            int status;
            struct rusage used;
            long long begun = now();
            if (posix_spawn(&child, programs[program][0], &actions, 0, programs[program], environ) != 0) return 3;
            if (wait4(child, &status, 0, &used) != child) return 3;
            long long took = now() - begun;
            if (status != 0) {
                fprintf(stderr, "%s ended with %#x\n", programs[program][0], status);
                return 1;
            }
            printf("%d %lld %ld\n", program, took, used.ru_maxrss);
        }
    }
    return 0;
}
