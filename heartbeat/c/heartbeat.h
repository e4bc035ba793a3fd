/*
 * libheartbeat: a queue worker's heartbeat. Facts about the worker, published on a timer, for a checker to judge.
 *
 * A function that can fail returns a heartbeat_result; where that is not HEARTBEAT_RESULT_OK, nothing was written to what it was to
 * write to. Pointers are checked for NULL, and none may be NULL, but for what is freed. Inputs come first, what is written to
 * comes last and is named ..._out, or is a buffer and its size. Texts that go in end with a NUL and are UTF-8, but for paths
 * and names of tasks, which may be of any bytes; all are copied. Whatever this library hands out belongs to the caller, who gives it back once, by the
 * function that its comment names. No function is for a signal handler, but for those that say so. After vfork() none is for the
 * child.
 *
 * This file is made from the library's source.
 */

#ifndef HEARTBEAT_H
#define HEARTBEAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/**
 * "None", where a time in milliseconds is asked for: no deadline, no greatest age; of a heartbeat_builder_set_..._ms(), not set.
 */
#define HEARTBEAT_NONE UINT64_MAX

/**
 * What a call came to. The numbers stay as they are; new ones may be added.
 */
enum heartbeat_result
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Done.
     */
    HEARTBEAT_RESULT_OK = 0,
    /**
     * A pointer was NULL. Nothing was done.
     */
    HEARTBEAT_RESULT_NULL_PARAMETER = 1,
    /**
     * A value that cannot be: a text that is not UTF-8, an address that is none. Nothing was done.
     */
    HEARTBEAT_RESULT_INVALID_PARAMETER = 2,
    /**
     * A bug in this library. What was asked for may not have been done.
     */
    HEARTBEAT_RESULT_PANIC = 3,
    /**
     * A setting that cannot be, from code or environment.
     */
    HEARTBEAT_RESULT_CONFIGURATION = 4,
    /**
     * The beat file belongs to another living worker.
     */
    HEARTBEAT_RESULT_HELD = 5,
    /**
     * What stands at the beat file's path must not be replaced: a link, a folder, another user's file.
     */
    HEARTBEAT_RESULT_UNSAFE = 6,
    /**
     * The system refused something.
     */
    HEARTBEAT_RESULT_SYSTEM = 7,
    /**
     * This library was built without the feature that was asked for.
     */
    HEARTBEAT_RESULT_UNSUPPORTED = 8,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum heartbeat_result heartbeat_result;
#else
typedef uint32_t heartbeat_result;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What a worker says of itself.
 */
enum heartbeat_worker_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Not ready yet.
     */
    HEARTBEAT_WORKER_STATUS_STARTING = 0,
    /**
     * Ready, with no task.
     */
    HEARTBEAT_WORKER_STATUS_IDLE = 1,
    /**
     * Ready, with at least one task.
     */
    HEARTBEAT_WORKER_STATUS_BUSY = 2,
    /**
     * Finishing what it has.
     */
    HEARTBEAT_WORKER_STATUS_DRAINING = 3,
    /**
     * Ended; in a forked child, always.
     */
    HEARTBEAT_WORKER_STATUS_STOPPED = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum heartbeat_worker_status heartbeat_worker_status;
#else
typedef uint32_t heartbeat_worker_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What is concluded of a worker. The first that fits, in this order; the numbers stay as they are, new ones may be added.
 */
enum heartbeat_verdict
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * There is no beat file, or none that can be read.
     */
    HEARTBEAT_VERDICT_MISSING = 0,
    /**
     * A link, not a regular file, or one that others own or may write to.
     */
    HEARTBEAT_VERDICT_UNSAFE = 1,
    /**
     * Not a record.
     */
    HEARTBEAT_VERDICT_CORRUPT = 2,
    /**
     * The worker said that it ended.
     */
    HEARTBEAT_VERDICT_STOPPED = 3,
    /**
     * Its process is no more.
     */
    HEARTBEAT_VERDICT_GONE = 4,
    /**
     * No beat for longer than promised.
     */
    HEARTBEAT_VERDICT_SILENT = 5,
    /**
     * Not ready yet, within its deadline.
     */
    HEARTBEAT_VERDICT_STARTING = 6,
    /**
     * Not ready yet, past it.
     */
    HEARTBEAT_VERDICT_START_OVERDUE = 7,
    /**
     * Finishing what it has, within its deadline.
     */
    HEARTBEAT_VERDICT_DRAINING = 8,
    /**
     * Finishing what it has, past it.
     */
    HEARTBEAT_VERDICT_DRAIN_OVERDUE = 9,
    /**
     * Its loop is overdue.
     */
    HEARTBEAT_VERDICT_WEDGED = 10,
    /**
     * A task is past its deadline.
     */
    HEARTBEAT_VERDICT_OVERDUE = 11,
    /**
     * Alive, but cut off from where its beats, or its work, come and go.
     */
    HEARTBEAT_VERDICT_CUT_OFF = 12,
    /**
     * None of these.
     */
    HEARTBEAT_VERDICT_ALIVE = 13,
    /**
     * Whoever asks cannot tell.
     */
    HEARTBEAT_VERDICT_UNKNOWN = 14,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum heartbeat_verdict heartbeat_verdict;
#else
typedef uint32_t heartbeat_verdict;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * The settings of a heartbeat. What is not set is taken from the environment at the start (HEARTBEAT_FILE, HEARTBEAT_CLUSTER,
 * HEARTBEAT_WORKER, HEARTBEAT_QUEUES with commas, HEARTBEAT_INTERVAL, HEARTBEAT_PROMISE, HEARTBEAT_LOOP_BUDGET,
 * HEARTBEAT_REDIS_URL, HEARTBEAT_KEY), and else is the default.
 */
typedef struct heartbeat_builder heartbeat_builder;

/**
 * A worker's heartbeat: beats from heartbeat_builder_start() until heartbeat_stop(), heartbeat_free(), or exit().
 *
 * In a forked child the inherited handle does nothing, and every call on it returns as it would in the parent: the child neither
 * beats nor cleans up in its parent's name, and no lock is touched that another thread may have held. It may free its copy, or
 * leave it.
 */
typedef struct heartbeat heartbeat;

/**
 * One unit of work that runs, until heartbeat_task_done() or heartbeat_task_fail().
 */
typedef struct heartbeat_task heartbeat_task;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * A sentence for a heartbeat_result, for people; never NULL, whatever the number. Details of what went wrong are told by
 * heartbeat_builder_error() and heartbeat_last_error().
 *
 * Ownership: the text is constant, and there as long as the library is.
 * Threads: any. Signals: safe in a handler. Fork: safe in a child.
 */
const char *heartbeat_result_text(uint32_t result);

/**
 * This library's version, as "0.1.0".
 *
 * Ownership: the text is constant, and there as long as the library is.
 * Threads: any. Signals: safe in a handler. Fork: safe in a child.
 */
const char *heartbeat_version(void);

/**
 * New settings, all of them unset. NULL only where this library has a bug.
 *
 * Ownership: the caller's, until heartbeat_builder_free().
 * Threads: any; what it returns belongs to one thread at a time. Fork: may be used in a child.
 */
struct heartbeat_builder *heartbeat_builder_new(void);

/**
 * Frees settings; not the heartbeats that were started with them. NULL is allowed.
 *
 * Threads: no other may use them any more. Fork: may be called in a child, for its copy.
 */
void heartbeat_builder_free(struct heartbeat_builder *builder);

/**
 * The group of workers that share the work; no braces. Default: $HEARTBEAT_CLUSTER, else "default".
 *
 * Ownership: the text is copied.
 * Errors: NULL_PARAMETER, INVALID_PARAMETER (not UTF-8).
 * Threads: one at a time for one builder. Fork: may be used in a child.
 */
heartbeat_result heartbeat_builder_set_cluster(struct heartbeat_builder *builder, const char *cluster);

/**
 * This worker's name, unique in its cluster. Default: $HEARTBEAT_WORKER, else "HOST:PID".
 *
 * Ownership: the text is copied.
 * Errors: NULL_PARAMETER, INVALID_PARAMETER (not UTF-8).
 * Threads: one at a time for one builder. Fork: may be used in a child.
 */
heartbeat_result heartbeat_builder_set_worker(struct heartbeat_builder *builder, const char *worker);

/**
 * The worker program's own version, for people. Default: none.
 *
 * Ownership: the text is copied.
 * Errors: NULL_PARAMETER, INVALID_PARAMETER (not UTF-8).
 * Threads: one at a time for one builder. Fork: may be used in a child.
 */
heartbeat_result heartbeat_builder_set_version(struct heartbeat_builder *builder, const char *version);

/**
 * One more queue that this worker takes work from. Default: those of $HEARTBEAT_QUEUES, else none.
 *
 * Ownership: the text is copied.
 * Errors: NULL_PARAMETER, INVALID_PARAMETER (not UTF-8).
 * Threads: one at a time for one builder. Fork: may be used in a child.
 */
heartbeat_result heartbeat_builder_add_queue(struct heartbeat_builder *builder, const char *queue);

/**
 * The beat file; relative to the current folder at the start. Default: $HEARTBEAT_FILE, else "/tmp/heartbeat".
 * A folder on tmpfs is best.
 *
 * Ownership: the path is copied. It may be of any bytes.
 * Errors: NULL_PARAMETER.
 * Threads: one at a time for one builder. Fork: may be used in a child.
 */
heartbeat_result heartbeat_builder_set_file(struct heartbeat_builder *builder,
                                            const char *path);

/**
 * No beat file, whatever the environment says.
 *
 * Errors: NULL_PARAMETER.
 * Threads: one at a time for one builder. Fork: may be used in a child.
 */
heartbeat_result heartbeat_builder_set_no_file(struct heartbeat_builder *builder);

/**
 * The beat file's permission bits, exactly, whatever the umask; never writable for group or others. Default: 0600.
 *
 * Errors: NULL_PARAMETER. A mode that cannot be is told at the start.
 * Threads: one at a time for one builder. Fork: may be used in a child.
 */
heartbeat_result heartbeat_builder_set_file_mode(struct heartbeat_builder *builder,
                                                 uint32_t mode);

/**
 * How often to beat, in milliseconds, from 10. Default: $HEARTBEAT_INTERVAL, else 1,000.
 *
 * Errors: NULL_PARAMETER. A time that cannot be is told at the start; HEARTBEAT_NONE is not set. So for all of them.
 * Threads: one at a time for one builder. Fork: may be used in a child.
 */
heartbeat_result heartbeat_builder_set_interval_ms(struct heartbeat_builder *builder,
                                                   uint64_t ms);

/**
 * How long this worker's silence may last before it counts as lost, in milliseconds, from two intervals. Default:
 * $HEARTBEAT_PROMISE, else 30,000.
 *
 * Errors: NULL_PARAMETER.
 * Threads: one at a time for one builder. Fork: may be used in a child.
 */
heartbeat_result heartbeat_builder_set_promise_ms(struct heartbeat_builder *builder,
                                                  uint64_t ms);

/**
 * How long the loop may take from one heartbeat_pulse() to the next, in milliseconds. Default: $HEARTBEAT_LOOP_BUDGET, else
 * 30,000.
 *
 * Errors: NULL_PARAMETER.
 * Threads: one at a time for one builder. Fork: may be used in a child.
 */
heartbeat_result heartbeat_builder_set_loop_budget_ms(struct heartbeat_builder *builder,
                                                      uint64_t ms);

/**
 * The worker is "starting" until heartbeat_ready(), and overdue where that takes longer than this, in milliseconds. Default:
 * it is ready from its first beat.
 *
 * Errors: NULL_PARAMETER.
 * Threads: one at a time for one builder. Fork: may be used in a child.
 */
heartbeat_result heartbeat_builder_set_start_deadline_ms(struct heartbeat_builder *builder,
                                                         uint64_t ms);

/**
 * The deadline of heartbeat_drain() where the call names none, in milliseconds. Default: none.
 *
 * Errors: NULL_PARAMETER.
 * Threads: one at a time for one builder. Fork: may be used in a child.
 */
heartbeat_result heartbeat_builder_set_drain_deadline_ms(struct heartbeat_builder *builder, uint64_t ms);

/**
 * Beats to this Redis or Valkey too: redis://HOST, rediss:, unix:, redis+sentinel:, redis+cluster:. Default:
 * $HEARTBEAT_REDIS_URL, else none. A URL that cannot be is told at the start; a Redis that cannot be reached is no error.
 *
 * What goes there is signed with the key in $HEARTBEAT_KEY, if there is one: the environment is the only place for it, and no call
 * sets it. A key that cannot be is told at the start.
 *
 * Ownership: the text is copied. Nothing of it is ever shown.
 * Errors: NULL_PARAMETER, INVALID_PARAMETER (not UTF-8), UNSUPPORTED (built without the feature redis).
 * Threads: one at a time for one builder. Fork: may be used in a child.
 */
heartbeat_result heartbeat_builder_set_redis(struct heartbeat_builder *builder,
                                             const char *url);

/**
 * Answers GET and HEAD of /livez and /readyz at this address, "127.0.0.1:8090" or "[::1]:8090", from the publisher's own thread
 * and by the verdict of that moment. Port 0 lets the system choose: see heartbeat_endpoint_address(). Default: nowhere. A port in
 * use is told at the start.
 *
 * Ownership: the text is copied.
 * Errors: NULL_PARAMETER, INVALID_PARAMETER (not an address), UNSUPPORTED (built without the feature endpoint).
 * Threads: one at a time for one builder. Fork: may be used in a child.
 */
heartbeat_result heartbeat_builder_set_endpoint(struct heartbeat_builder *builder,
                                                const char *address);

/**
 * Starts a heartbeat: a thread of its own, with all signals blocked, that beats from now on. Waits for the first beat, for 6 s at
 * most. The settings stay the caller's, and may be used for another start.
 *
 * Not an error: a beat file that cannot be written. That is counted, kept (heartbeat_last_error()) and tried again at every
 * beat. The environment is read here, so no other thread may change it meanwhile (setenv, putenv).
 *
 * Ownership: the heartbeat is the caller's, until heartbeat_free().
 * Errors: NULL_PARAMETER; CONFIGURATION, HELD, UNSAFE, SYSTEM, of which heartbeat_builder_error() tells more.
 * Threads: one at a time for one builder. Fork: start after daemon() and after fork(), in the process that works.
 */
heartbeat_result heartbeat_builder_start(struct heartbeat_builder *builder,
                                         struct heartbeat **heartbeat_out);

/**
 * Why the last heartbeat_builder_start() failed, as a sentence for people; empty where it did not. It holds no secret.
 *
 * Ownership: copied into the caller's buffer of size bytes, a NUL included, cut at a character where it does not fit. length_out
 * gets its whole length in bytes, so it was cut where that is size or more.
 * Errors: NULL_PARAMETER.
 * Threads: none may change the builder meanwhile. Fork: may be used in a child.
 */
heartbeat_result heartbeat_builder_error(const struct heartbeat_builder *builder,
                                         char *buffer,
                                         size_t size,
                                         size_t *length_out);

/**
 * Marks the worker's loop alive: it will be back within its loop budget. One clock read and one atomic store; no lock, no
 * allocation, no system call.
 *
 * Errors: NULL_PARAMETER.
 * Threads: any, at the same time. Signals: safe in a handler. Fork: does nothing in a child.
 */
heartbeat_result heartbeat_pulse(const struct heartbeat *heartbeat);

/**
 * Marks the worker's loop alive, and says that its next pulse may take so many milliseconds: the loop is about to run a long
 * job itself. 97 days at most, for HEARTBEAT_NONE too; above 2.3 hours, whole seconds. It costs what heartbeat_pulse() costs.
 *
 * Errors: NULL_PARAMETER.
 * Threads: any, at the same time. Signals: safe in a handler. Fork: does nothing in a child.
 */
heartbeat_result heartbeat_pulse_within_ms(const struct heartbeat *heartbeat,
                                           uint64_t budget_ms);

/**
 * Leaves "starting". Does nothing in any other state.
 *
 * Errors: NULL_PARAMETER.
 * Threads: any, at the same time. Signals: not in a handler. Fork: does nothing in a child.
 */
heartbeat_result heartbeat_ready(const struct heartbeat *heartbeat);

/**
 * The worker finishes what it has and takes no more. It is "drain overdue" where that takes longer than deadline_ms;
 * HEARTBEAT_NONE: the builder's drain deadline, and without one it may take as long as it takes.
 *
 * Errors: NULL_PARAMETER.
 * Threads: any, at the same time. Signals: not in a handler. Fork: does nothing in a child.
 */
heartbeat_result heartbeat_drain(const struct heartbeat *heartbeat,
                                 uint64_t deadline_ms);

/**
 * The worker does not reach where its work comes from, from now on; said again, the first moment counts. Until
 * heartbeat_broker_back() the loop is not judged, because it waits, nor is the deadline of a start; tasks are, as ever. Once that has
 * lasted for longer than the promise, the worker is "cut off": live, and not ready.
 *
 * Errors: NULL_PARAMETER.
 * Threads: any, at the same time. Signals: not in a handler. Fork: does nothing in a child.
 */
heartbeat_result heartbeat_broker_lost(const struct heartbeat *heartbeat);

/**
 * The worker reaches where its work comes from again. The loop and the start have the time back that it took.
 *
 * Errors: NULL_PARAMETER.
 * Threads: any, at the same time. Signals: not in a handler. Fork: does nothing in a child.
 */
heartbeat_result heartbeat_broker_back(const struct heartbeat *heartbeat);

/**
 * What the next beat will say.
 *
 * Errors: NULL_PARAMETER.
 * Threads: any, at the same time. Signals: not in a handler. Fork: "stopped" in a child.
 */
heartbeat_result heartbeat_status(const struct heartbeat *heartbeat, heartbeat_worker_status *status_out);

/**
 * The last thing that went wrong with the file, Redis or the stop, as a sentence for people; empty where nothing did. It holds
 * no secret.
 *
 * Ownership: copied into the caller's buffer of size bytes, a NUL included, cut at a character where it does not fit. length_out
 * gets its whole length in bytes, so it was cut where that is size or more.
 * Errors: NULL_PARAMETER.
 * Threads: any, at the same time. Signals: not in a handler. Fork: empty in a child.
 */
heartbeat_result heartbeat_last_error(const struct heartbeat *heartbeat,
                                      char *buffer,
                                      size_t size,
                                      size_t *length_out);

/**
 * Where the endpoint listens, as "127.0.0.1:8090", with the port that the system chose where 0 was asked for; empty where there
 * is none.
 *
 * Ownership: copied into the caller's buffer of size bytes, a NUL included, cut where it does not fit. length_out gets its whole
 * length in bytes, so it was cut where that is size or more.
 * Errors: NULL_PARAMETER.
 * Threads: any, at the same time. Signals: not in a handler. Fork: what it was in the parent.
 */
heartbeat_result heartbeat_endpoint_address(const struct heartbeat *heartbeat,
                                            char *buffer,
                                            size_t size,
                                            size_t *length_out);

/**
 * Ends the beats and removes the beat file; waits for that, 2 s at most. Once stopped, a heartbeat stays so. The handle stays
 * the caller's.
 *
 * Errors: NULL_PARAMETER; SYSTEM, where the file could not be removed (its record then says "stopped" where it can) or the
 * beats did not end in time: heartbeat_last_error() tells which. It may be called again.
 * Threads: any, at the same time. Signals: not in a handler. Fork: does nothing in a child.
 */
heartbeat_result heartbeat_stop(const struct heartbeat *heartbeat);

/**
 * Stops a heartbeat, where heartbeat_stop() has not, and frees it. NULL is allowed. Tasks may be ended after it.
 *
 * Threads: no other may use it any more. Signals: not in a handler. Fork: may be called in a child, for its copy.
 */
void heartbeat_free(struct heartbeat *heartbeat);

/**
 * Starts a task. The worker is "overdue" where it has not ended within deadline_ms milliseconds; HEARTBEAT_NONE: it may take as
 * long as it takes.
 *
 * The name goes into the record, so it carries no arguments and no secrets. It is cut to 64 bytes; what is not UTF-8 or a control
 * character is replaced.
 *
 * Ownership: the name is copied. The task is the caller's, until heartbeat_task_done() or heartbeat_task_fail(), also after
 * heartbeat_free().
 * Errors: NULL_PARAMETER.
 * Threads: any, at the same time; a task may end in another thread than it began. Signals: not in a handler.
 * Fork: in a child it counts for nobody, and is ended in the same way.
 */
heartbeat_result heartbeat_task_start(const struct heartbeat *heartbeat,
                                      const char *name,
                                      uint64_t deadline_ms,
                                      struct heartbeat_task **task_out);

/**
 * Names the process that does the work: one of this process's PID namespace, that runs now. Naming another one replaces it.
 *
 * The publisher looks at it with each beat. Once it has been stopped (SIGSTOP, a debugger) for longer than 5 s, or gone (also as a
 * zombie) for longer than 20 s, the worker is "overdue" without waiting for the task's own deadline, or where it has none. A process
 * that goes on gives the true deadline back.
 *
 * Errors: NULL_PARAMETER, INVALID_PARAMETER (not a process id).
 * Threads: any, at the same time, until the task ends. Signals: not in a handler. Fork: does nothing in a child.
 */
heartbeat_result heartbeat_task_held_by(const struct heartbeat_task *task,
                                        int32_t pid);

/**
 * Ends a task as done, and frees it.
 *
 * Errors: NULL_PARAMETER.
 * Threads: no other may use the task any more. Signals: not in a handler. Fork: in a child, ends the child's copy alone.
 */
heartbeat_result heartbeat_task_done(struct heartbeat_task *task);

/**
 * Ends a task as failed, and frees it.
 *
 * Errors: NULL_PARAMETER.
 * Threads: no other may use the task any more. Signals: not in a handler. Fork: in a child, ends the child's copy alone.
 */
heartbeat_result heartbeat_task_fail(struct heartbeat_task *task);

/**
 * Reads a worker's beat file and judges the worker, as the command `checker worker` does: for a supervisor that would not start
 * a program for it. No link is followed, and at most 4,096 bytes are read. The file must belong to the caller's own user or root.
 *
 * max_age_ms takes the place of the worker's own promise, and makes an empty file that somebody touches a heartbeat, by its
 * mtime alone; HEARTBEAT_NONE: the worker's own promise. The reason is one sentence for people.
 *
 * Ownership: the reason is copied into the caller's buffer of size bytes, a NUL included, cut at a character where it does not
 * fit. length_out gets its whole length in bytes, so it was cut where that is size or more.
 * Errors: NULL_PARAMETER. Whatever is wrong with the file is a verdict.
 * Threads: any, at the same time. Signals: not in a handler. Fork: may be used in a child.
 */
heartbeat_result heartbeat_check_file(const char *path,
                                      uint64_t max_age_ms,
                                      heartbeat_verdict *verdict_out,
                                      char *buffer,
                                      size_t size,
                                      size_t *length_out);

/**
 * A heartbeat_verdict in words, as "wedged" or "start overdue"; never NULL, whatever the number.
 *
 * Ownership: the text is constant, and there as long as the library is.
 * Threads: any. Signals: safe in a handler. Fork: safe in a child.
 */
const char *heartbeat_verdict_text(uint32_t verdict);

/**
 * Whether a worker of this verdict should be left running. Also where it cannot be told ("unknown", or a number that is no
 * verdict): who cannot tell kills nobody.
 *
 * Threads: any. Signals: safe in a handler. Fork: safe in a child.
 */
bool heartbeat_verdict_is_live(uint32_t verdict);

/**
 * Whether a worker of this verdict takes work. Not where it cannot be told.
 *
 * Threads: any. Signals: safe in a handler. Fork: safe in a child.
 */
bool heartbeat_verdict_is_ready(uint32_t verdict);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* HEARTBEAT_H */
