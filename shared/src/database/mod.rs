//! Questions to SQL databases: PostgreSQL, MySQL, MariaDB and SQLite, each named by a URL.
//!
//! Here is what all kinds of check share that ask a database: where it is, one connection that is kept from one question to
//! the next, and what may be said of what went wrong. What is asked, and what the answer means, is the kinds' own.
//!
//! Each driver is a feature and a file. A build without any knows which database a URL means, and no more.
//!
//! What cannot be had from the driver: it reads as much as a peer sends, so that there is a relay between them, which lets no
//! more through than a question may cost; and where it panics over what it read, the question fails, no more.

#[cfg(feature = "_sql")]
mod connection;
mod engine;
#[cfg(feature = "_sql")]
mod kept;
#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "_sql")]
mod place;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "_sql-remote")]
mod relay;
#[cfg(feature = "_sql-remote")]
mod server;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(feature = "_sql")]
mod trouble;

#[cfg(feature = "_sql")]
pub use self::connection::{Connection, Row};
pub use self::engine::Engine;
#[cfg(feature = "_sql")]
pub use self::kept::{Database, Question};
#[cfg(feature = "_sql")]
pub use self::place::{Access, Place};
#[cfg(all(feature = "django-q", feature = "sqlite"))]
pub(crate) use self::trouble::contained;
#[cfg(feature = "_sql")]
pub use self::trouble::{Trouble, What};
