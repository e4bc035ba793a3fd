//! The kinds of check: one file a kind, with its settings, its question and its tests.

pub mod worker;
