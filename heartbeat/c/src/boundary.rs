//! The border itself: no panic out, no bad pointer in, texts copied in and out.

use std::ffi::{CStr, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::outcome::Outcome;

/// What a call comes to inside the border.
pub type Answer = Result<(), Outcome>;

/// Runs an export's body. A panic stays here; whoever called is told of it.
///
/// Where nothing panics it costs nothing, so that an export is as safe in a signal handler as its body.
pub fn guarded(call: impl FnOnce() -> Answer) -> Outcome {
    guarded_or(Outcome::Panic, || call().err().unwrap_or(Outcome::Ok))
}

/// [`guarded`], for an export that has something else to return.
pub fn guarded_or<T>(fallback: T, call: impl FnOnce() -> T) -> T {
    let call = || {
        #[cfg(feature = "panics")]
        on_purpose::panic();
        call()
    };
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|payload| {
        // Dropping somebody's payload could panic once more.
        std::mem::forget(payload);
        fallback
    })
}

/// Looks at what a caller holds.
///
/// # Safety
///
/// NULL, or of this library and not freed.
pub unsafe fn borrowed<'a, T>(pointer: *const T) -> Result<&'a T, Outcome> {
    // SAFETY: by the caller's word it is NULL or a value that lives.
    unsafe { pointer.as_ref() }.ok_or(Outcome::NullParameter)
}

/// Changes what a caller holds.
///
/// # Safety
///
/// NULL, or of this library, not freed, and in no other thread's hands.
pub unsafe fn changed<'a, T>(pointer: *mut T) -> Result<&'a mut T, Outcome> {
    // SAFETY: by the caller's word it is NULL or a value that lives and is his alone.
    unsafe { pointer.as_mut() }.ok_or(Outcome::NullParameter)
}

/// Takes back what a caller was given.
///
/// # Safety
///
/// NULL, or from [`give`], and not freed.
pub unsafe fn taken<T>(pointer: *mut T) -> Result<Box<T>, Outcome> {
    if pointer.is_null() {
        return Err(Outcome::NullParameter);
    }
    // SAFETY: by the caller's word it came from `give`, which made it a box.
    Ok(unsafe { Box::from_raw(pointer) })
}

/// Gives a value to a caller, who frees it.
pub fn give<T>(value: T) -> *mut T {
    Box::into_raw(Box::new(value))
}

/// Where a caller wants a result. Made before anything is done, so that nothing is done in vain.
pub struct Out<T>(*mut T);

impl<T> Out<T> {
    pub fn new(pointer: *mut T) -> Result<Self, Outcome> {
        if pointer.is_null() { Err(Outcome::NullParameter) } else { Ok(Self(pointer)) }
    }

    /// # Safety
    ///
    /// The pointer may be written to.
    pub unsafe fn put(self, value: T) {
        // SAFETY: not NULL, and the caller's own for a `T`. What stands there is nobody's, so it is not dropped.
        unsafe { self.0.write(value) };
    }
}

/// A caller's buffer for a text, and where its length goes.
pub struct Buffer {
    start: *mut c_char,
    size: usize,
    length: Out<usize>,
}

impl Buffer {
    pub fn new(start: *mut c_char, size: usize, length_out: *mut usize) -> Result<Self, Outcome> {
        Out::new(start)?;
        Ok(Self { start, size, length: Out::new(length_out)? })
    }

    /// Copies as much of a text as finds place, whole characters and a NUL, and tells its whole length.
    ///
    /// # Safety
    ///
    /// `size` bytes may be written from `start`.
    pub unsafe fn put(self, text: &str) {
        if let Some(place) = self.size.checked_sub(1) {
            let end = text.floor_char_boundary(place);
            // SAFETY: `end` and a NUL are at most `size` bytes, which are the caller's, and no text of ours lies there.
            unsafe {
                self.start.copy_from_nonoverlapping(text.as_ptr().cast(), end);
                self.start.add(end).write(0);
            }
        }
        // SAFETY: the caller's own, by his word.
        unsafe { self.length.put(text.len()) };
    }
}

/// A caller's bytes up to their NUL.
///
/// # Safety
///
/// NULL, or ended by a NUL, and unchanged for the length of the call.
pub unsafe fn bytes<'a>(text: *const c_char) -> Result<&'a [u8], Outcome> {
    if text.is_null() {
        return Err(Outcome::NullParameter);
    }
    // SAFETY: by the caller's word.
    Ok(unsafe { CStr::from_ptr(text) }.to_bytes())
}

/// A caller's text, which must be UTF-8.
///
/// # Safety
///
/// As for [`bytes`].
pub unsafe fn text<'a>(text: *const c_char) -> Result<&'a str, Outcome> {
    // SAFETY: the same promise.
    std::str::from_utf8(unsafe { bytes(text) }?).map_err(|_| Outcome::InvalidParameter)
}

/// Panics where the tests want one.
#[cfg(feature = "panics")]
mod on_purpose {
    use std::sync::atomic::{AtomicBool, Ordering};

    static ON: AtomicBool = AtomicBool::new(false);

    /// From now on every export panics, or none any more.
    #[unsafe(no_mangle)]
    pub extern "C" fn heartbeat_test_panics(on: bool) {
        ON.store(on, Ordering::Relaxed);
    }

    pub fn panic() {
        assert!(!ON.load(Ordering::Relaxed), "on purpose");
    }
}
