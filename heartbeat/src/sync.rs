//! What the heartbeat's threads and the worker's share anything by: `std`'s, and the kernel's. `tests/models` puts others in its
//! place.

pub use std::sync::atomic::AtomicU64;
#[cfg(any(feature = "endpoint", feature = "redis", feature = "systemd"))]
pub use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
pub use std::sync::{Condvar, Mutex, MutexGuard};
#[cfg(any(feature = "endpoint", feature = "redis", feature = "systemd"))]
pub use std::time::Instant;

pub use nix::sys::eventfd::{EfdFlags, EventFd};
