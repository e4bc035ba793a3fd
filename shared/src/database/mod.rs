//! Questions to SQL databases: PostgreSQL, MySQL, MariaDB and SQLite, each named by a URL.
//!
//! Here is what all kinds of check share that ask a database: where it is, one connection that is kept from one question to
//! the next, and what may be said of what went wrong. What is asked, and what the answer means, is the kinds' own.
//!
//! What cannot be had from the driver: it reads as much as a peer sends, so that there is a relay between them, which lets no
//! more through than a question may cost; and where it panics over what it read, the question fails, no more.

mod connection;
mod kept;
mod place;
mod relay;
mod trouble;

pub use self::connection::{Connection, Row};
pub use self::kept::{Database, Question};
pub use self::place::{Access, Engine, Place};
#[cfg(feature = "django-q")]
pub(crate) use self::trouble::contained;
pub use self::trouble::{Trouble, What};
