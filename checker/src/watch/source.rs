//! Where the table's rows come from: a folder on this machine, or a cluster in Redis.

use std::time::Duration;

use super::row::Row;

/// A place that has workers, and what is known of them.
pub trait Source {
    /// The rows, in any order.
    fn rows(&self) -> Vec<&Row>;

    /// The place's name, for people.
    fn title(&self) -> String;

    /// What is wrong with the place itself.
    fn notice(&self) -> Option<&str>;

    /// What is said where there are no rows.
    fn emptiness(&self) -> &'static str;

    /// When to call [`Source::tick`] next.
    fn next_tick(&self) -> Duration;

    /// Looks at what has changed, and at nothing else.
    fn catch_up(&mut self);

    /// Judges everything anew.
    fn tick(&mut self);
}
