//! The other side: what a supervisor asks of a worker's beat file, without starting a program.

use std::ffi::{CStr, OsStr, c_char};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use heartbeat_core::observe::{Moment, Owner, observe};
use heartbeat_core::verdict;

use crate::boundary::{Buffer, Out, bytes, guarded, guarded_or};
use crate::handle::HEARTBEAT_NONE;
use crate::outcome::Outcome;

/// What is concluded of a worker. The first that fits, in this order; the numbers stay as they are, new ones may be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Verdict {
    /// There is no beat file, or none that can be read.
    Missing = 0,
    /// A link, not a regular file, or one that others own or may write to.
    Unsafe = 1,
    /// Not a record.
    Corrupt = 2,
    /// The worker said that it ended.
    Stopped = 3,
    /// Its process is no more.
    Gone = 4,
    /// No beat for longer than promised.
    Silent = 5,
    /// Not ready yet, within its deadline.
    Starting = 6,
    /// Not ready yet, past it.
    StartOverdue = 7,
    /// Finishing what it has, within its deadline.
    Draining = 8,
    /// Finishing what it has, past it.
    DrainOverdue = 9,
    /// Its loop is overdue.
    Wedged = 10,
    /// A task is past its deadline.
    Overdue = 11,
    /// Alive, but cut off from where its beats, or its work, come and go.
    CutOff = 12,
    /// None of these.
    Alive = 13,
    /// Whoever asks cannot tell.
    Unknown = 14,
}

/// The core's verdicts by their numbers here.
const VERDICTS: [verdict::Verdict; 15] = verdict::Verdict::ALL;

fn verdict_of(number: u32) -> Option<verdict::Verdict> {
    usize::try_from(number).ok().and_then(|number| VERDICTS.get(number)).copied()
}

impl From<verdict::Verdict> for Verdict {
    fn from(verdict: verdict::Verdict) -> Self {
        match verdict {
            verdict::Verdict::Missing => Self::Missing,
            verdict::Verdict::Unsafe => Self::Unsafe,
            verdict::Verdict::Corrupt => Self::Corrupt,
            verdict::Verdict::Stopped => Self::Stopped,
            verdict::Verdict::Gone => Self::Gone,
            verdict::Verdict::Silent => Self::Silent,
            verdict::Verdict::Starting => Self::Starting,
            verdict::Verdict::StartOverdue => Self::StartOverdue,
            verdict::Verdict::Draining => Self::Draining,
            verdict::Verdict::DrainOverdue => Self::DrainOverdue,
            verdict::Verdict::Wedged => Self::Wedged,
            verdict::Verdict::Overdue => Self::Overdue,
            verdict::Verdict::CutOff => Self::CutOff,
            verdict::Verdict::Alive => Self::Alive,
            verdict::Verdict::Unknown => Self::Unknown,
        }
    }
}

/// Reads a worker's beat file and judges the worker, as the command `checker worker` does: for a supervisor that would not start
/// a program for it. No link is followed, and at most 4,096 bytes are read. The file must belong to the caller's own user or root.
///
/// max_age_ms takes the place of the worker's own promise, and makes an empty file that somebody touches a heartbeat, by its
/// mtime alone; HEARTBEAT_NONE: the worker's own promise. The reason is one sentence for people.
///
/// Ownership: the reason is copied into the caller's buffer of size bytes, a NUL included, cut at a character where it does not
/// fit. length_out gets its whole length in bytes, so it was cut where that is size or more.
/// Errors: NULL_PARAMETER. Whatever is wrong with the file is a verdict.
/// Threads: any, at the same time. Signals: not in a handler. Fork: may be used in a child.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn heartbeat_check_file(
    path: *const c_char,
    max_age_ms: u64,
    verdict_out: *mut Verdict,
    buffer: *mut c_char,
    size: usize,
    length_out: *mut usize,
) -> Outcome {
    guarded(|| {
        // SAFETY: the caller's word.
        let path = Path::new(OsStr::from_bytes(unsafe { bytes(path) }?));
        let (out, buffer) = (Out::new(verdict_out)?, Buffer::new(buffer, size, length_out)?);
        let asked = Moment::now();
        let seen = observe(path, Owner::Own);
        let judgement = seen.judge_as_of(asked, (max_age_ms != HEARTBEAT_NONE).then_some(max_age_ms));
        let reason = judgement.to_string();
        // SAFETY: the caller's word, for both.
        unsafe {
            out.put(judgement.verdict.into());
            buffer.put(&reason);
        }
        Ok(())
    })
}

/// A heartbeat_verdict in words, as "wedged" or "start overdue"; never NULL, whatever the number.
///
/// Ownership: the text is constant, and there as long as the library is.
/// Threads: any. Signals: safe in a handler. Fork: safe in a child.
#[unsafe(no_mangle)]
pub extern "C" fn heartbeat_verdict_text(verdict: u32) -> *const c_char {
    const WORDS: [&CStr; 15] = [
        c"missing",
        c"unsafe",
        c"corrupt",
        c"stopped",
        c"gone",
        c"silent",
        c"starting",
        c"start overdue",
        c"draining",
        c"drain overdue",
        c"wedged",
        c"overdue",
        c"cut off",
        c"alive",
        c"unknown",
    ];
    guarded_or(c"unknown".as_ptr(), || {
        usize::try_from(verdict).ok().and_then(|number| WORDS.get(number)).unwrap_or(&c"unknown").as_ptr()
    })
}

/// Whether a worker of this verdict should be left running. Also where it cannot be told ("unknown", or a number that is no
/// verdict): who cannot tell kills nobody.
///
/// Threads: any. Signals: safe in a handler. Fork: safe in a child.
#[unsafe(no_mangle)]
pub extern "C" fn heartbeat_verdict_is_live(verdict: u32) -> bool {
    guarded_or(true, || verdict_of(verdict).and_then(verdict::Verdict::live).unwrap_or(true))
}

/// Whether a worker of this verdict takes work. Not where it cannot be told.
///
/// Threads: any. Signals: safe in a handler. Fork: safe in a child.
#[unsafe(no_mangle)]
pub extern "C" fn heartbeat_verdict_is_ready(verdict: u32) -> bool {
    guarded_or(false, || verdict_of(verdict).and_then(verdict::Verdict::ready).unwrap_or(false))
}
