//! The running tasks: where workers write and the publisher reads.
//!
//! Slots in a few shards, so that threads that start and end tasks at the same time do not meet. A slot
//! lives on after its task, so that a worker that has warmed up allocates nothing. Each lock is held for
//! a few instructions, and never across I/O.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::process;
use crate::record::{MAX_TASK_NAME, Nearest, Tasks};

const SHARDS: usize = 16;

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
            shard.lock().start(Slot { name: Name::new(name), since_ms: now_ms, due_ms, used: true })
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

    /// Counts, and copies the task whose deadline is nearest. `spare` lends the name its memory.
    pub fn snapshot(&self, tasks: &mut Tasks, spare: &mut String) {
        if let Some(nearest) = tasks.nearest.take() {
            *spare = nearest.name;
        }
        let mut first: Option<Slot> = None;
        (tasks.running, tasks.done, tasks.failed) = (0, 0, 0);
        for shard in &self.shards {
            let slots = shard.lock();
            tasks.done += slots.done;
            tasks.failed += slots.failed;
            for slot in slots.all.iter().filter(|slot| slot.used) {
                tasks.running += 1;
                if first.is_none_or(|first| slot.urgency() < first.urgency()) {
                    first = Some(*slot);
                }
            }
        }
        tasks.nearest = first.map(|slot| {
            let mut name = std::mem::take(spare);
            name.clear();
            name.push_str(slot.name.as_str());
            Nearest { name, since_mono_ms: slot.since_ms, due_mono_ms: slot.due_ms }
        });
    }

    /// Gives every running task more time.
    pub fn extend(&self, by_ms: u64) {
        for shard in &self.shards {
            for slot in &mut shard.lock().all {
                slot.due_ms = slot.due_ms.map(|due| due.saturating_add(by_ms));
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
    used: bool,
}

impl Slot {
    /// Nearest deadline first, then the longest running.
    fn urgency(&self) -> (u64, u64) {
        (self.due_ms.unwrap_or(u64::MAX), self.since_ms)
    }
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
        board.snapshot(&mut tasks, &mut String::new());
        tasks
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
        let _two = board.start("two", 1, None);
        board.extend(50);
        assert_eq!(snapshot(&board).nearest.and_then(|task| task.due_mono_ms), Some(150));
    }
}
