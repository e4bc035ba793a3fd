//! The running tasks: where workers write and the publisher reads.
//!
//! Slots in a few shards, so that threads that start and end tasks at the same time do not meet. A slot
//! lives on after its task, so that a worker that has warmed up allocates nothing. Each lock is held for
//! a few instructions, and never across I/O: the processes that hold tasks are looked at between two locks.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crate::clock;
use crate::duration::millis;
use crate::process;
use crate::record::{MAX_TASK_NAME, Nearest, Tasks};
use crate::sync::{Mutex, MutexGuard};
use crate::verdict::Process;

const SHARDS: usize = 16;

/// How long a process may be stopped before its tasks are due: a debugger stops one for a moment.
const STOPPED_GRACE_MS: u64 = 5_000;

/// How long a process may be gone before its tasks are due: a supervisor ends them itself, and needs its time for that.
/// Celery's pools without an event loop give up the task of a lost child after 10 s, and look every 5 s.
const GONE_GRACE_MS: u64 = 20_000;

/// `USER_HZ`, the unit of start times in `/proc`: part of the kernel's ABI, and 100 wherever Rust's `std` runs on Linux.
const TICK_MS: u64 = 10;

/// How much later than its naming a process may seem to have started: ticks are rounded, and the clocks read apart.
const START_SLACK_MS: u64 = 50;

/// One unit of work that runs: from [`crate::Heartbeat::task`] until it is dropped.
///
/// Dropped, the task counts as done; dropped by a panic, or ended with [`Task::fail`], as failed.
#[must_use = "a task ends when this is dropped"]
pub struct Task {
    shard: Arc<Shard>,
    slot: usize,
    generation: u32,
    failed: bool,
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task").finish_non_exhaustive()
    }
}

impl Task {
    /// Ends the task, as done.
    pub fn done(self) {}

    /// Ends the task, as failed.
    pub fn fail(mut self) {
        self.failed = true;
    }

    /// Gives it another deadline, from now on; `None`: it may take as long as it takes.
    ///
    /// One clock read, and a lock held for a few instructions: no allocation, no system call.
    pub fn due_within(&self, deadline: impl Into<Option<Duration>>) {
        if self.generation == process::generation() {
            let due_ms = deadline.into().map(|deadline| clock::mono_ms().saturating_add(millis(deadline)));
            if let Some(slot) = self.shard.lock().all.get_mut(self.slot) {
                slot.due_ms = due_ms;
            }
        }
    }

    /// Names the process that does the work: one of this process's PID namespace, that runs now. Naming another one
    /// replaces it.
    ///
    /// The publisher looks at it with each beat. Once it has been stopped (`SIGSTOP`, a debugger) for longer than 5 s, or
    /// gone (also as a zombie) for longer than 20 s, the task counts as due since then, so the worker is `overdue` without
    /// waiting for the task's own deadline, or where it has none. A process that goes on gives the true deadline back; one that
    /// got the same pid later is not taken for it. A process that cannot be seen (`hidepid`) is taken to run.
    ///
    /// One clock read, and a lock held for a few instructions: no allocation, no system call.
    pub fn held_by(&self, pid: u32) {
        if self.generation == process::generation() {
            let holder = Holder { pid, named_boot_ms: clock::boot_ms(), start: None, lost: None };
            if let Some(slot) = self.shard.lock().all.get_mut(self.slot) {
                slot.holder = Some(holder);
            }
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        // In a forked child the task is the parent's, and the lock may be held by a thread that is not here.
        if self.generation == process::generation() {
            let failed = self.failed || std::thread::panicking();
            self.shard.lock().end(self.slot, failed);
        }
    }
}

/// All tasks of one worker.
#[derive(Debug)]
pub struct Board {
    shards: [Arc<Shard>; SHARDS],
    generation: u32,
}

impl Board {
    pub fn new() -> Self {
        Self { shards: std::array::from_fn(|_| Arc::default()), generation: process::generation() }
    }

    pub fn start(&self, name: &str, now_ms: u64, due_ms: Option<u64>) -> Task {
        let shard = &self.shards[thread_number() % SHARDS];
        let slot = if self.generation == process::generation() {
            shard.lock().start(Slot {
                name: Name::new(name),
                since_ms: now_ms,
                due_ms,
                holder: None,
                used: true,
            })
        } else {
            usize::MAX
        };
        Task { shard: Arc::clone(shard), slot, generation: self.generation, failed: false }
    }

    /// Whether any task runs.
    pub fn busy(&self) -> bool {
        self.shards.iter().any(|shard| {
            let slots = shard.lock();
            slots.free.len() < slots.all.len()
        })
    }

    /// Counts, and copies the task whose deadline is nearest as of now. `spare` lends the name its memory. Whether any task
    /// is held by another process.
    pub fn snapshot(&self, tasks: &mut Tasks, spare: &mut String, now_ms: u64) -> bool {
        if let Some(nearest) = tasks.nearest.take() {
            *spare = nearest.name;
        }
        let mut first: Option<Slot> = None;
        let mut held = false;
        (tasks.running, tasks.done, tasks.failed) = (0, 0, 0);
        for shard in &self.shards {
            let slots = shard.lock();
            tasks.done += slots.done;
            tasks.failed += slots.failed;
            for slot in slots.all.iter().filter(|slot| slot.used) {
                tasks.running += 1;
                held |= slot.holder.is_some();
                let slot = Slot { due_ms: slot.due_as_of(now_ms), ..*slot };
                if first.is_none_or(|first| slot.urgency() < first.urgency()) {
                    first = Some(slot);
                }
            }
        }
        tasks.nearest = first.map(|slot| {
            let mut name = std::mem::take(spare);
            name.clear();
            name.push_str(slot.name.as_str());
            Nearest { name, since_mono_ms: slot.since_ms, due_mono_ms: slot.due_ms }
        });
        held
    }

    /// Looks at each process that holds a task, with no lock held. When one that is stopped or gone makes its task due, if
    /// that is to come. `seen` lends its memory.
    pub fn look_at_holders(&self, seen: &mut Vec<Seen>, look: impl Fn(u32) -> Process) -> Option<u64> {
        seen.clear();
        for (shard, slots) in self.shards.iter().enumerate() {
            let slots = slots.lock();
            let running = slots.all.iter().enumerate().filter(|(_, slot)| slot.used);
            let held = running.filter_map(|(index, slot)| Some((index, slot.since_ms, slot.holder?)));
            seen.extend(held.map(|(slot, since_ms, holder)| Seen { shard, slot, since_ms, holder }));
        }
        // Tasks of one process stand together, so that it is looked at once.
        seen.sort_unstable_by_key(|seen| seen.holder.pid);
        let mut last: Option<(u32, Process)> = None;
        let mut next_due: Option<u64> = None;
        for seen in seen {
            let pid = seen.holder.pid;
            let process = match last {
                Some((looked_at, process)) if looked_at == pid => process,
                _ => look(pid),
            };
            last = Some((pid, process));
            let now_ms = clock::mono_ms();
            seen.holder.found(process, now_ms);
            let due = seen.holder.lost.map(Lost::due_ms).filter(|due| *due >= now_ms);
            next_due = [next_due, due].into_iter().flatten().min();
            let Some(shard) = self.shards.get(seen.shard) else { continue };
            if let Some(slot) = shard.lock().all.get_mut(seen.slot)
                && slot.used
                && slot.since_ms == seen.since_ms
                && slot.holder.is_some_and(|holder| holder.is_named_as(&seen.holder))
            {
                slot.holder = Some(seen.holder);
            }
        }
        next_due
    }

    /// Gives every running task more time.
    pub fn extend(&self, by_ms: u64) {
        for shard in &self.shards {
            for slot in &mut shard.lock().all {
                slot.due_ms = slot.due_ms.map(|due| due.saturating_add(by_ms));
                if let Some(lost) = slot.holder.as_mut().and_then(|holder| holder.lost.as_mut()) {
                    lost.since_ms = lost.since_ms.saturating_add(by_ms);
                }
            }
        }
    }
}

/// A number of this thread's own, as long as there are few threads.
fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed));
    NUMBER.try_with(|number| *number).unwrap_or_default()
}

/// Aligned so that two shards never share a cache line, nor the pair that is fetched together.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard(Mutex<Slots>);

impl Shard {
    fn lock(&self) -> MutexGuard<'_, Slots> {
        // Nothing panics under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
struct Slots {
    all: Vec<Slot>,
    free: Vec<usize>,
    done: u64,
    failed: u64,
}

impl Slots {
    fn start(&mut self, task: Slot) -> usize {
        if let Some(index) = self.free.pop()
            && let Some(slot) = self.all.get_mut(index)
        {
            *slot = task;
            return index;
        }
        self.all.push(task);
        // Room for every slot to be free, so that ending a task never allocates.
        self.free.reserve(self.all.len() - self.free.len());
        self.all.len() - 1
    }

    fn end(&mut self, index: usize, failed: bool) {
        if let Some(slot) = self.all.get_mut(index).filter(|slot| slot.used) {
            slot.used = false;
            self.free.push(index);
            *(if failed { &mut self.failed } else { &mut self.done }) += 1;
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    name: Name,
    since_ms: u64,
    due_ms: Option<u64>,
    holder: Option<Holder>,
    used: bool,
}

impl Slot {
    /// Its deadline; since when nobody works on it, where that has been so for too long.
    fn due_as_of(&self, now_ms: u64) -> Option<u64> {
        let lost = self.holder.and_then(|holder| holder.lost).filter(|lost| now_ms > lost.due_ms());
        let lost_ms = lost.map(|lost| lost.since_ms.max(self.since_ms));
        [self.due_ms, lost_ms].into_iter().flatten().min()
    }

    /// Nearest deadline first, then the longest running.
    fn urgency(&self) -> (u64, u64) {
        (self.due_ms.unwrap_or(u64::MAX), self.since_ms)
    }
}

/// The process that does a task's work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Holder {
    pid: u32,
    /// When it was named, in milliseconds since boot with suspends, which is what start times count.
    named_boot_ms: u64,
    /// Its start time in ticks, from the first look on.
    start: Option<u64>,
    lost: Option<Lost>,
}

/// A holder that has been seen to do nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lost {
    since_ms: u64,
    gone: bool,
}

impl Lost {
    /// The last moment at which its task is not due yet.
    fn due_ms(self) -> u64 {
        self.since_ms.saturating_add(if self.gone { GONE_GRACE_MS } else { STOPPED_GRACE_MS })
    }
}

impl Holder {
    /// Whether the other one is the same, as far as the worker named it.
    fn is_named_as(&self, other: &Self) -> bool {
        (self.pid, self.named_boot_ms) == (other.pid, other.named_boot_ms)
    }

    /// Takes note of what a look at its pid has found.
    fn found(&mut self, process: Process, now_ms: u64) {
        let gone = match process {
            Process::Present { start, stopped } if self.may_have_started(start) => {
                self.start = Some(start);
                stopped.then_some(false)
            }
            Process::Present { .. } | Process::Absent => Some(true),
            Process::Unknown => None,
        };
        self.lost = gone.map(|gone| {
            // What was stopped and then killed has the time of what is gone, from the first moment on.
            let since_ms = self.lost.map_or(now_ms, |lost| lost.since_ms);
            Lost { since_ms, gone }
        });
    }

    /// Whether a process that started then is the one that was named, or got its pid later.
    fn may_have_started(&self, ticks: u64) -> bool {
        match self.start {
            Some(start) => start == ticks,
            None => ticks.saturating_mul(TICK_MS) <= self.named_boot_ms.saturating_add(START_SLACK_MS),
        }
    }
}

/// One held task and what a look at its holder has found.
#[derive(Debug)]
pub struct Seen {
    shard: usize,
    slot: usize,
    since_ms: u64,
    holder: Holder,
}

/// A task's name, cut to [`MAX_TASK_NAME`] bytes, with `?` for control characters.
#[derive(Clone, Copy, Debug)]
struct Name {
    bytes: [u8; MAX_TASK_NAME],
    length: u8,
}

impl Name {
    fn new(name: &str) -> Self {
        let mut bytes = [0; MAX_TASK_NAME];
        let mut length = 0;
        for character in name.chars().map(|c| if c.is_control() { '?' } else { c }) {
            let end = length + character.len_utf8();
            let Some(place) = bytes.get_mut(length..end) else { break };
            character.encode_utf8(place);
            length = end;
        }
        // At most MAX_TASK_NAME, which fits.
        Self { bytes, length: u8::try_from(length).unwrap_or_default() }
    }

    fn as_str(&self) -> &str {
        // Only whole characters were copied.
        std::str::from_utf8(&self.bytes[..usize::from(self.length)]).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(board: &Board) -> Tasks {
        let mut tasks = Tasks::default();
        board.snapshot(&mut tasks, &mut String::new(), 1_000);
        tasks
    }

    fn due(board: &Board, now_ms: u64) -> Option<u64> {
        let mut tasks = Tasks::default();
        assert!(board.snapshot(&mut tasks, &mut String::new(), now_ms), "nobody holds a task");
        tasks.nearest.and_then(|task| task.due_mono_ms)
    }

    fn running(start: u64) -> Process {
        Process::Present { start, stopped: false }
    }

    const STOPPED: Process = Process::Present { start: 7, stopped: true };

    /// A look that finds this, and when it made the tasks due.
    fn look(board: &Board, process: Process) -> Option<u64> {
        board.look_at_holders(&mut Vec::new(), |_| process)
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no CLOCK_BOOTTIME")]
    fn a_task_is_due_since_its_holder_was_stopped_or_gone_and_only_after_its_grace() {
        for (process, grace) in
            [(STOPPED, STOPPED_GRACE_MS), (Process::Absent, GONE_GRACE_MS), (running(8), GONE_GRACE_MS)]
        {
            for deadline in [None, Some(u64::MAX)] {
                let board = Board::new();
                let task = board.start("job", 1, deadline);
                task.held_by(4242);
                assert_eq!(look(&board, running(7)), None);
                assert_eq!(due(&board, u64::MAX), deadline);
                let before = clock::mono_ms();
                let turn = look(&board, process).unwrap();
                let since = turn - grace;
                assert!((before..=clock::mono_ms()).contains(&since), "{process:?}");
                assert_eq!(look(&board, process), Some(turn), "a further look moves nothing");
                assert_eq!(due(&board, turn), deadline, "{process:?}");
                assert_eq!(due(&board, turn + 1), Some(since), "{process:?}");
                // The true deadline is back.
                assert_eq!(look(&board, running(7)), None);
                assert_eq!(due(&board, u64::MAX), deadline);
            }
        }
    }

    #[test]
    fn a_deadline_that_passed_before_the_holder_stopped_stands() {
        let board = Board::new();
        let task = board.start("job", 1, Some(5));
        task.held_by(4242);
        let turn = look(&board, STOPPED).unwrap();
        assert_eq!(due(&board, turn + 1), Some(5));
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no CLOCK_BOOTTIME")]
    fn a_process_that_started_after_it_was_named_is_another_one() {
        let board = Board::new();
        let task = board.start("job", 1, None);
        task.held_by(4242);
        let named = clock::boot_ms();
        assert_eq!(look(&board, running(named / TICK_MS)), None);
        task.held_by(4242);
        assert!(look(&board, running((named + 1_000) / TICK_MS)).is_some());
        // Once it was seen, its start is known to the tick.
        task.held_by(4242);
        assert_eq!(look(&board, running(7)), None);
        assert!(look(&board, running(8)).is_some());
    }

    #[test]
    fn a_process_that_cannot_be_seen_is_taken_to_run() {
        let board = Board::new();
        let task = board.start("job", 1, None);
        task.held_by(4242);
        assert_eq!(look(&board, Process::Unknown), None);
        assert_eq!(due(&board, u64::MAX), None);
    }

    #[test]
    fn a_process_is_looked_at_once_for_all_its_tasks_and_not_once_they_have_ended() {
        let board = Board::new();
        let _free = board.start("free", 1, None);
        let tasks: Vec<_> = (0..10).map(|_| board.start("job", 1, None)).collect();
        for (number, task) in (0..).zip(&tasks) {
            task.held_by(1_000 + number % 2);
        }
        let looks = std::cell::RefCell::new(Vec::new());
        let look = |pid| {
            looks.borrow_mut().push(pid);
            STOPPED
        };
        board.look_at_holders(&mut Vec::new(), look);
        assert_eq!(looks.take(), [1_000, 1_001]);
        drop(tasks);
        assert_eq!(board.look_at_holders(&mut Vec::new(), look), None);
        assert_eq!(looks.take(), [0; 0]);
        assert!(!board.snapshot(&mut Tasks::default(), &mut String::new(), 0));
        // The slot's next task has no holder.
        let _next = board.start("next", 1, None);
        assert!(!board.snapshot(&mut Tasks::default(), &mut String::new(), 0));
    }

    #[test]
    fn what_a_look_found_is_not_put_on_the_task_that_came_into_its_place() {
        let board = Board::new();
        let task = std::cell::RefCell::new(Some(board.start("job", 1, None)));
        task.borrow().as_ref().unwrap().held_by(4242);
        board.look_at_holders(&mut Vec::new(), |_| {
            task.take();
            let next = board.start("next", 2, None);
            next.held_by(4242);
            *task.borrow_mut() = Some(next);
            STOPPED
        });
        assert_eq!(due(&board, u64::MAX), None);
    }

    #[test]
    fn the_nearest_deadline_is_shown_and_outcomes_are_counted() {
        let board = Board::new();
        let forever = board.start("forever", 1, None);
        assert_eq!(snapshot(&board).nearest.map(|task| task.name), Some("forever".to_owned()));
        let late = board.start("late", 2, Some(900));
        let soon = board.start("soon", 3, Some(500));
        let nearest = snapshot(&board).nearest;
        let expected = Nearest { name: "soon".to_owned(), since_mono_ms: 3, due_mono_ms: Some(500) };
        assert_eq!(nearest, Some(expected));
        soon.done();
        late.fail();
        drop(forever);
        let tasks = snapshot(&board);
        assert_eq!((tasks.running, tasks.done, tasks.failed, tasks.nearest), (0, 2, 1, None));
    }

    #[test]
    fn a_task_that_gets_another_deadline_has_that_one_alone() {
        let board = Board::new();
        let task = board.start("job", 1, Some(5));
        task.held_by(4242);
        task.due_within(None);
        assert_eq!(due(&board, u64::MAX), None);
        let before = clock::mono_ms();
        task.due_within(Duration::from_secs(9));
        let moved = due(&board, 0).unwrap();
        assert!((before + 9_000..=clock::mono_ms() + 9_000).contains(&moved));
        // Who holds it is as before.
        assert!(look(&board, STOPPED).is_some());
    }

    #[test]
    fn a_task_that_panics_counts_as_failed() {
        let board = Board::new();
        let work = std::panic::AssertUnwindSafe(|| {
            let _task = board.start("doomed", 1, None);
            panic!("on purpose");
        });
        assert!(std::panic::catch_unwind(work).is_err());
        assert_eq!(snapshot(&board).failed, 1);
    }

    #[test]
    fn a_long_name_is_cut_at_a_character_and_cannot_steer_a_terminal() {
        assert_eq!(Name::new("a\u{1b}[2J\n").as_str(), "a?[2J?");
        let cut = Name::new(&"é".repeat(40));
        assert_eq!(cut.as_str(), "é".repeat(32));
        let cut = Name::new(&format!("x{}", "é".repeat(40)));
        assert_eq!(cut.as_str(), format!("x{}", "é".repeat(31)));
    }

    #[test]
    fn slots_are_used_again() {
        let board = Board::new();
        for round in 0..1_000 {
            drop(board.start("job", round, None));
        }
        let slots: usize = board.shards.iter().map(|shard| shard.lock().all.len()).sum();
        assert_eq!(slots, 1);
        assert_eq!(snapshot(&board).done, 1_000);
    }

    #[test]
    fn more_time_moves_every_deadline() {
        let board = Board::new();
        let _one = board.start("one", 1, Some(100));
        let two = board.start("two", 1, None);
        board.extend(50);
        assert_eq!(snapshot(&board).nearest.and_then(|task| task.due_mono_ms), Some(150));
        two.held_by(4242);
        let turn = look(&board, STOPPED).unwrap();
        board.extend(50);
        assert_eq!(look(&board, STOPPED), Some(turn + 50));
    }
}
