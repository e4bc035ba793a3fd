//! The kinds of check: one file a kind, with its settings, its question and its tests.

#[cfg(feature = "redis")]
pub mod cluster;
pub mod worker;
