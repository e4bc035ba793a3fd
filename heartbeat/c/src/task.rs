//! Tasks: units of work with a deadline each.

use std::ffi::c_char;

use crate::boundary::{Out, borrowed, bytes, give, guarded, taken};
use crate::handle::{Heartbeat, optional};
use crate::outcome::Outcome;

/// One unit of work that runs, until heartbeat_task_done() or heartbeat_task_fail().
#[derive(Debug)]
pub struct Task(heartbeat_core::Task);

/// Starts a task. The worker is "overdue" where it has not ended within deadline_ms milliseconds; HEARTBEAT_NONE: it may take as
/// long as it takes.
///
/// The name goes into the record, so it carries no arguments and no secrets. It is cut to 64 bytes; what is not UTF-8 or a control
/// character is replaced.
///
/// Ownership: the name is copied. The task is the caller's, until heartbeat_task_done() or heartbeat_task_fail(), also after
/// heartbeat_free().
/// Errors: NULL_PARAMETER.
/// Threads: any, at the same time; a task may end in another thread than it began. Signals: not in a handler.
/// Fork: in a child it counts for nobody, and is ended in the same way.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbeat_task_start(
    heartbeat: *const Heartbeat,
    name: *const c_char,
    deadline_ms: u64,
    task_out: *mut *mut Task,
) -> Outcome {
    guarded(|| {
        // SAFETY: the caller's word.
        let (heartbeat, name) = unsafe { (borrowed(heartbeat)?, bytes(name)?) };
        let out = Out::new(task_out)?;
        let task = heartbeat.core.task(&String::from_utf8_lossy(name), optional(deadline_ms));
        // SAFETY: the caller's word.
        unsafe { out.put(give(Task(task))) };
        Ok(())
    })
}

/// Names the process that does the work: one of this process's PID namespace, that runs now. Naming another one replaces it.
///
/// The publisher looks at it with each beat. Once it has been stopped (SIGSTOP, a debugger) for longer than 5 s, or gone (also as a
/// zombie) for longer than 20 s, the worker is "overdue" without waiting for the task's own deadline, or where it has none. A process
/// that goes on gives the true deadline back.
///
/// Errors: NULL_PARAMETER, INVALID_PARAMETER (not a process id).
/// Threads: any, at the same time, until the task ends. Signals: not in a handler. Fork: does nothing in a child.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbeat_task_held_by(task: *const Task, pid: i32) -> Outcome {
    guarded(|| {
        // SAFETY: the caller's word.
        let task = unsafe { borrowed(task) }?;
        let pid = u32::try_from(pid).ok().filter(|pid| *pid > 0).ok_or(Outcome::InvalidParameter)?;
        task.0.held_by(pid);
        Ok(())
    })
}

/// Ends a task as done, and frees it.
///
/// Errors: NULL_PARAMETER.
/// Threads: no other may use the task any more. Signals: not in a handler. Fork: in a child, ends the child's copy alone.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbeat_task_done(task: *mut Task) -> Outcome {
    guarded(|| {
        // SAFETY: the caller's word.
        unsafe { taken(task) }?.0.done();
        Ok(())
    })
}

/// Ends a task as failed, and frees it.
///
/// Errors: NULL_PARAMETER.
/// Threads: no other may use the task any more. Signals: not in a handler. Fork: in a child, ends the child's copy alone.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbeat_task_fail(task: *mut Task) -> Outcome {
    guarded(|| {
        // SAFETY: the caller's word.
        unsafe { taken(task) }?.0.fail();
        Ok(())
    })
}
