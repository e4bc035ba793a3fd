//! The keys of a cluster, once, and the scripts that read and write them.

use std::fmt::Display;
use std::sync::LazyLock;

use super::ask::Script;

/// How long a worker that went silent can still be named, and an abandoned cluster stays, in milliseconds: 1 h.
pub const FORGET_MS: u64 = 3_600_000;

/// How many workers one script withdraws at most: a fraction of a millisecond, in which the server serves nobody else.
pub const MOST_WITHDRAWN: usize = 500;

/// How many of those that are forgotten one beat removes at most, from each set.
pub const MOST_PRUNED: u64 = 16;

macro_rules! script {
    ($made:ident, $name:literal) => {
        LazyLock::new(|| Script::$made(include_str!(concat!("scripts/", $name, ".lua"))))
    };
}

pub static BEAT: LazyLock<Script> = script!(new, "beat");
pub static LOSE: LazyLock<Script> = script!(new, "lose");
pub static WITHDRAW: LazyLock<Script> = script!(new, "withdraw");
pub static WITHDRAW_ONCE: LazyLock<Script> = script!(once, "withdraw");
pub static COUNT: LazyLock<Script> = script!(new, "count");
pub static NAMED: LazyLock<Script> = script!(new, "named");
pub static LOST: LazyLock<Script> = script!(new, "lost");

/// A cluster's keys. They share a hash tag, so a Redis Cluster keeps them on one node.
#[derive(Debug)]
pub struct Keys(String);

impl Keys {
    pub fn of(cluster: &str) -> Self {
        Self(format!("heartbeat:{{{cluster}}}:"))
    }

    pub fn stat(&self, id: impl Display) -> Vec<u8> {
        format!("{}stat:{id}", self.0).into_bytes()
    }

    pub fn workers(&self) -> Vec<u8> {
        format!("{}workers", self.0).into_bytes()
    }

    pub fn names(&self) -> Vec<u8> {
        format!("{}names", self.0).into_bytes()
    }

    pub fn ready(&self) -> Vec<u8> {
        format!("{}ready", self.0).into_bytes()
    }

    pub fn queue(&self, name: &str) -> Vec<u8> {
        format!("{}queue:{name}", self.0).into_bytes()
    }

    /// All that a withdrawal of these workers takes from, whose queues are the same.
    pub fn of_all(&self, ids: impl IntoIterator<Item = impl Display>, queues: &[String]) -> Vec<Vec<u8>> {
        let mut keys = vec![self.workers(), self.names(), self.ready()];
        keys.extend(queues.iter().map(|queue| self.queue(queue)));
        keys.extend(ids.into_iter().map(|id| self.stat(id)));
        keys
    }

    /// All that one worker writes to.
    pub fn of_worker(&self, id: impl Display, queues: &[String]) -> Vec<Vec<u8>> {
        let mut keys = vec![self.stat(id), self.workers(), self.names(), self.ready()];
        keys.extend(queues.iter().map(|queue| self.queue(queue)));
        keys
    }
}
