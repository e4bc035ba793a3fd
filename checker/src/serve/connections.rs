//! The connections that are open, so many at most: where one more comes, the one that has been idle for longest makes room.
//!
//! Idle is a connection on which no question is being answered: one that is kept for the next question, one whose client
//! does not read its answer, and one that says its question a byte at a time. So a crowd of those holds up nobody.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The open connections.
#[derive(Debug)]
pub struct Connections {
    most: usize,
    open: Mutex<Open>,
    room: Notify,
}

#[derive(Debug, Default)]
struct Open {
    all: HashMap<u64, Line>,
    /// Those that are idle, by when they came to be that: the one that has been for longest is found at once among any number.
    idle: BTreeMap<u64, u64>,
    turn: u64,
}

impl Open {
    /// A number that is larger than all before.
    fn turn(&mut self) -> u64 {
        self.turn += 1;
        self.turn
    }
}

#[derive(Debug)]
struct Line {
    answering: usize,
    /// Its place among those that are idle, as long as it is that: when it was opened, or the last answer was given.
    since: u64,
    leave: Arc<Notify>,
}

/// One connection's place among them, until it is dropped.
#[derive(Debug)]
pub struct Place {
    of: Arc<Connections>,
    number: u64,
    leave: Arc<Notify>,
}

/// A question on a connection that is being answered, until it is dropped.
#[derive(Debug)]
pub struct Answering(Arc<Place>);

impl Connections {
    /// So many at most.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, open: Mutex::default(), room: Notify::new() })
    }

    /// A place for a connection; waited for where a question is being answered on every other one.
    pub async fn enter(self: &Arc<Self>) -> Arc<Place> {
        loop {
            // Before the look, so that nothing is missed that happens after it.
            let room = self.room.notified();
            if let Some(place) = self.try_enter() {
                return place;
            }
            room.await;
        }
    }

    fn try_enter(self: &Arc<Self>) -> Option<Arc<Place>> {
        let mut open = self.open();
        if open.all.len() >= self.most {
            let (_, longest) = open.idle.pop_first()?;
            if let Some(line) = open.all.remove(&longest) {
                line.leave.notify_one();
            }
        }
        let (number, leave) = (open.turn(), Arc::new(Notify::new()));
        open.idle.insert(number, number);
        open.all.insert(number, Line { answering: 0, since: number, leave: Arc::clone(&leave) });
        Some(Arc::new(Place { of: Arc::clone(self), number, leave }))
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        // Nothing panics under the lock.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Until another connection needs the place.
    pub async fn leave(&self) {
        self.leave.notified().await;
    }

    /// A question came whole, and is being answered.
    pub fn answering(self: &Arc<Self>) -> Answering {
        let mut open = self.of.open();
        let Open { all, idle, .. } = &mut *open;
        if let Some(line) = all.get_mut(&self.number) {
            idle.remove(&line.since);
            line.answering += 1;
        }
        Answering(Arc::clone(self))
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        let Self(place) = self;
        let mut open = place.of.open();
        let now = open.turn();
        let Open { all, idle, .. } = &mut *open;
        if let Some(line) = all.get_mut(&place.number) {
            line.answering = line.answering.saturating_sub(1);
            if line.answering == 0 {
                line.since = now;
                idle.insert(now, place.number);
            }
        }
        drop(open);
        place.of.room.notify_one();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.of.open();
        if let Some(line) = open.all.remove(&self.number) {
            open.idle.remove(&line.since);
        }
        drop(open);
        self.of.room.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::time::{Duration, Instant};

    use tokio::time::timeout;

    use super::*;

    async fn leaves(place: &Place) -> bool {
        timeout(Duration::from_millis(20), place.leave()).await.is_ok()
    }

    #[tokio::test]
    async fn the_one_that_has_been_idle_for_longest_makes_room_and_none_that_is_being_answered() {
        let connections = Connections::new(3);
        let (first, second, third) =
            (connections.enter().await, connections.enter().await, connections.enter().await);
        let question = first.answering();
        drop(second.answering());
        // The third has been idle for longest: the first is busy, and the second was just now.
        let fourth = connections.enter().await;
        assert_eq!((leaves(&first).await, leaves(&second).await, leaves(&third).await), (false, false, true));
        assert!(!leaves(&fourth).await);
        drop(question);
        assert_eq!(connections.open().all.len(), 3);
        drop((first, second, third, fourth));
        let open = connections.open();
        assert!(open.all.is_empty() && open.idle.is_empty());
    }

    #[tokio::test]
    async fn a_newcomer_costs_the_same_however_many_are_open() {
        let connections = Connections::new(10_000);
        let mut places = VecDeque::new();
        let begun = Instant::now();
        for number in 0..100_000 {
            let place = connections.enter().await;
            if number % 3 == 0 {
                drop(place.answering());
            }
            places.push_back(place);
            if places.len() > 10_000 {
                places.pop_front();
            }
        }
        let elapsed = begun.elapsed();
        let open = connections.open();
        assert_eq!((open.all.len(), open.idle.len()), (10_000, 10_000));
        drop(open);
        // One look at each of the others would take a minute.
        assert!(elapsed < Duration::from_secs(15), "{elapsed:?}");
    }

    #[tokio::test]
    async fn where_all_are_busy_the_next_one_waits_for_an_answer_or_an_end() {
        let connections = Connections::new(1);
        let only = connections.enter().await;
        let question = only.answering();
        assert!(timeout(Duration::from_millis(20), connections.enter()).await.is_err());
        drop(question);
        let next = connections.enter().await;
        assert!(leaves(&only).await);
        let question = next.answering();
        let (waiting, ()) = tokio::join!(timeout(Duration::from_secs(20), connections.enter()), async move {
            tokio::task::yield_now().await;
            drop((question, next));
        });
        waiting.unwrap();
    }
}
