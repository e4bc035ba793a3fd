//! The kinds of check: one file a kind, with its settings, its question and its tests.
//!
//! A new kind is a file and two lines here: its `mod`, and its place in [`KINDS`].

#[cfg(feature = "redis")]
pub mod cluster;
#[cfg(feature = "run")]
pub mod command;
#[cfg(feature = "run")]
pub mod tcp;
pub mod worker;

#[cfg(feature = "run")]
use crate::kind::Kind;

/// Every kind of check that this build has, by name.
#[cfg(feature = "run")]
pub static KINDS: &[Kind] = &[
    #[cfg(feature = "redis")]
    Kind::of::<cluster::check::Cluster>(),
    Kind::of::<command::Command>(),
    Kind::of::<tcp::Tcp>(),
    Kind::of::<worker::check::Worker>(),
];
