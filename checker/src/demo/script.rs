//! The demo's script: who is on the stage, what is done to each worker, and what must be told of it by when.

use std::time::Duration;

use heartbeat::verdict::Verdict;
use nix::sys::signal::Signal;

/// How often each worker beats.
pub const INTERVAL: &str = "200ms";
/// The same, to reckon with.
pub const BEAT: Duration = Duration::from_millis(200);

/// How long each worker's silence may last.
pub const PROMISE: &str = "2s";
const SILENCE: Duration = Duration::from_secs(2);

/// How long a turn of the loop may take in the worker whose loop will stop.
pub const LOOP_BUDGET: &str = "1500ms";
const LOOP: Duration = Duration::from_millis(1_500);

const DEADLINE: Duration = Duration::from_secs(1);

/// How long the workers have to get going.
pub const START: Duration = Duration::from_secs(5);

/// One thing that is done to one worker.
#[derive(Clone, Copy, Debug)]
pub struct Act {
    /// The worker's name.
    pub worker: &'static str,
    /// What is done, for people.
    pub what: &'static str,
    /// What is done.
    pub fault: Fault,
    /// The only right verdict afterwards.
    pub verdict: Verdict,
    /// How long the verdict may take; `None`: it has to be there at the next look.
    pub bound: Option<Duration>,
}

/// What is done to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing from outside: the worker itself goes on.
    Nothing,
    /// Its process gets this signal.
    Signal(Signal),
    /// It is told this.
    Say(&'static str),
    /// Its beat file is overwritten.
    Overwrite,
}

/// The worker that must never be called anything but alive, and what it is told at its start: an hour of work,
/// declared as such.
pub const CONTROL: Act = Act {
    worker: "control",
    what: "nothing; a long task in time",
    fault: Fault::Say("task 1h 2h"),
    verdict: Verdict::Alive,
    bound: None,
};

/// What is done, in this order. The first line that names a worker brings it on the stage.
pub const ACTS: [Act; 9] = [
    Act {
        worker: "killed",
        what: "kill -9",
        fault: Fault::Signal(Signal::SIGKILL),
        verdict: Verdict::Gone,
        bound: None,
    },
    Act {
        worker: "frozen",
        what: "kill -STOP",
        fault: Fault::Signal(Signal::SIGSTOP),
        verdict: Verdict::Silent,
        bound: Some(SILENCE),
    },
    Act {
        worker: "frozen",
        what: "kill -CONT",
        fault: Fault::Signal(Signal::SIGCONT),
        verdict: Verdict::Alive,
        bound: Some(BEAT),
    },
    Act {
        worker: "stuck",
        what: "its loop stops, it beats on",
        fault: Fault::Say("wedge"),
        verdict: Verdict::Wedged,
        bound: Some(LOOP.saturating_add(BEAT)),
    },
    Act {
        worker: "slow",
        what: "a task past its deadline",
        fault: Fault::Say("task 1h 1s"),
        verdict: Verdict::Overdue,
        bound: Some(DEADLINE.saturating_add(BEAT)),
    },
    Act {
        worker: "garbled",
        what: "its beat file overwritten",
        fault: Fault::Overwrite,
        verdict: Verdict::Corrupt,
        bound: None,
    },
    Act {
        worker: "garbled",
        what: "healed by its next beat",
        fault: Fault::Nothing,
        verdict: Verdict::Alive,
        bound: Some(BEAT),
    },
    Act {
        worker: "leaving",
        what: "told to finish its work",
        fault: Fault::Say("drain 1h"),
        verdict: Verdict::Draining,
        bound: Some(BEAT),
    },
    Act {
        worker: "stopped",
        what: "told to stop: its file goes",
        fault: Fault::Say("stop"),
        verdict: Verdict::Missing,
        bound: Some(BEAT),
    },
];

/// The workers' names, each once, in the order of the script.
pub fn workers() -> Vec<&'static str> {
    let mut names = vec![CONTROL.worker];
    names.extend(ACTS.iter().map(|act| act.worker));
    // A worker's acts stand together.
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounds_are_those_that_the_workers_are_given() {
        let parse = heartbeat::duration::parse;
        assert_eq!(parse(INTERVAL), Ok(BEAT));
        assert_eq!(parse(PROMISE), Ok(SILENCE));
        assert_eq!(parse(LOOP_BUDGET), Ok(LOOP));
    }

    #[test]
    fn each_worker_is_there_once() {
        let workers = workers();
        let mut once = workers.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(workers.len(), once.len());
        assert_eq!(workers.len(), 8);
    }
}
