//! What Django-Q2 writes of itself, read without Python: its stats, their signature, and the pickles in them.

pub mod pickle;
pub mod signature;
pub mod stat;
pub mod store;
