//! What a call came to: stable numbers, and a sentence for each.

use std::ffi::{CStr, c_char};

use heartbeat_core::{Error, ErrorKind};

use crate::boundary::guarded_or;

/// What a call came to. The numbers stay as they are; new ones may be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Outcome {
    /// Done.
    Ok = 0,
    /// A pointer was NULL. Nothing was done.
    NullParameter = 1,
    /// A value that cannot be: a text that is not UTF-8, an address that is none. Nothing was done.
    InvalidParameter = 2,
    /// A bug in this library. What was asked for may not have been done.
    Panic = 3,
    /// A setting that cannot be, from code or environment.
    Configuration = 4,
    /// The beat file belongs to another living worker.
    Held = 5,
    /// What stands at the beat file's path must not be replaced: a link, a folder, another user's file.
    Unsafe = 6,
    /// The system refused something.
    System = 7,
    /// This library was built without the feature that was asked for.
    #[cfg_attr(
        all(feature = "redis", feature = "endpoint"),
        expect(dead_code, reason = "nothing is missing")
    )]
    Unsupported = 8,
}

impl From<&Error> for Outcome {
    fn from(error: &Error) -> Self {
        match error.kind() {
            ErrorKind::Configuration => Self::Configuration,
            ErrorKind::Held { .. } => Self::Held,
            ErrorKind::Unsafe => Self::Unsafe,
            _ => Self::System,
        }
    }
}

/// All outcomes by their numbers, each as a sentence.
const SENTENCES: [&CStr; 9] = [
    c"done",
    c"a pointer was NULL",
    c"a value that cannot be: a text that is not UTF-8, or an address that is none",
    c"a bug in libheartbeat: it panicked",
    c"a setting that cannot be",
    c"the beat file belongs to another living worker",
    c"what stands at the beat file's path must not be replaced",
    c"the system refused something",
    c"this libheartbeat was built without the feature that was asked for",
];

/// A sentence for a heartbeat_result, for people; never NULL, whatever the number. Details of what went wrong are told by
/// heartbeat_builder_error() and heartbeat_last_error().
///
/// Ownership: the text is constant, and there as long as the library is.
/// Threads: any. Signals: safe in a handler. Fork: safe in a child.
#[unsafe(no_mangle)]
pub extern "C" fn heartbeat_result_text(result: u32) -> *const c_char {
    let unknown = c"not a number of libheartbeat's";
    guarded_or(unknown.as_ptr(), || {
        usize::try_from(result).ok().and_then(|number| SENTENCES.get(number)).unwrap_or(&unknown).as_ptr()
    })
}

/// This library's version, as "0.1.0".
///
/// Ownership: the text is constant, and there as long as the library is.
/// Threads: any. Signals: safe in a handler. Fork: safe in a child.
#[unsafe(no_mangle)]
pub extern "C" fn heartbeat_version() -> *const c_char {
    guarded_or(c"".as_ptr(), || concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast())
}
