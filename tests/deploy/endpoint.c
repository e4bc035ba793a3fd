/* A worker with an endpoint of its own at port 8090, set by the environment but for that. SIGUSR1 wedges its loop. */

#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "heartbeat.h"

static volatile sig_atomic_t wedged, ended;

static void wedge(int number) { (void)number; wedged = 1; }
static void end(int number) { (void)number; ended = 1; }

int main(void) {
    heartbeat_builder *builder = heartbeat_builder_new();
    heartbeat *beats = NULL;

    signal(SIGUSR1, wedge);
    signal(SIGTERM, end);
    if (heartbeat_builder_set_endpoint(builder, "0.0.0.0:8090") != HEARTBEAT_RESULT_OK ||
        heartbeat_builder_start(builder, &beats) != HEARTBEAT_RESULT_OK) {
        fputs("no heartbeat\n", stderr);
        return 1;
    }
    heartbeat_builder_free(builder);
    while (!ended) {
        if (!wedged)
            heartbeat_pulse(beats);
        usleep(50000);
    }
    return heartbeat_stop(beats) != HEARTBEAT_RESULT_OK;
}
