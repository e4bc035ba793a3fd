//! An allocator that begins with a few pages of the program itself.
//!
//! A probe allocates a few hundred bytes and ends. With musl each size of them asks the kernel for memory of its own first:
//! a dozen system calls and page faults, a tenth of the time of a probe. Here they come one after another out of pages that are
//! there already, and are never given back; what does not fit any more goes to the system's allocator, as ever.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How much there is, with the number of it that is used: four pages, of which those that nothing touches cost nothing.
const SIZE: usize = 16 * 1_024 - ALIGN;

/// Each piece begins at a multiple of this.
const ALIGN: usize = 16;

/// What is too large to take a share of it.
const LARGE: usize = SIZE / 4;

/// See the file's head. The number stands on the page that is touched first.
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct Arena {
    used: AtomicUsize,
    pieces: Pieces,
}

#[derive(Debug)]
#[repr(C, align(16))]
struct Pieces(UnsafeCell<[u8; SIZE]>);

// SAFETY: of its bytes nobody has a reference: each caller of `take` gets a part of them of its own.
unsafe impl Sync for Pieces {}

impl Arena {
    pub const fn new() -> Self {
        Self { used: AtomicUsize::new(0), pieces: Pieces(UnsafeCell::new([0; SIZE])) }
    }

    /// The next piece, of zeroes, where there is room for it.
    fn take(&self, layout: Layout) -> Option<*mut u8> {
        if layout.size() > LARGE || layout.align() > ALIGN {
            return None;
        }
        let size = layout.size().next_multiple_of(ALIGN);
        let fits = |used: usize| Some(used + size).filter(|end| *end <= SIZE);
        let at = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).ok()?;
        // SAFETY: `at` is less than `SIZE`, the length of what it is an offset into.
        Some(unsafe { self.pieces.0.get().cast::<u8>().add(at) })
    }

    fn owns(&self, piece: *mut u8) -> bool {
        piece.addr().wrapping_sub(self.pieces.0.get().addr()) < SIZE
    }
}

// SAFETY: a piece is either one of the arena's, given out once and long and aligned as asked for, or the system's, to which
// goes back only what came from it.
unsafe impl GlobalAlloc for Arena {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is passed on.
        self.take(layout).unwrap_or_else(|| unsafe { System.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is passed on.
        self.take(layout).unwrap_or_else(|| unsafe { System.alloc_zeroed(layout) })
    }

    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        if !self.owns(piece) {
            // SAFETY: it came from there; the caller's promise is passed on.
            unsafe { System.dealloc(piece, layout) }
        }
    }

    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !self.owns(piece) {
            // SAFETY: it came from there; the caller's promise is passed on.
            return unsafe { System.realloc(piece, layout, size) };
        }
        // SAFETY: the caller promises that `size` makes a layout with this alignment, and is not 0.
        let larger = unsafe { self.alloc(Layout::from_size_align_unchecked(size, layout.align())) };
        if !larger.is_null() {
            // SAFETY: both are as long as what is copied, and no two pieces overlap.
            unsafe { ptr::copy_nonoverlapping(piece, larger, layout.size().min(size)) };
        }
        larger
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_zero_aligned_and_apart_and_what_finds_no_room_is_the_systems() {
        // More than there is room for.
        const ROUNDS: usize = if cfg!(miri) { 1_000 } else { 4_000 };
        let arena = Arena::new();
        let mut pieces = Vec::new();
        for round in 0..ROUNDS {
            let layout = Layout::from_size_align(1 + round % 61, 1 << (round % 7)).unwrap();
            // SAFETY: the layout's size is not 0.
            let piece = unsafe { arena.alloc_zeroed(layout) };
            assert!(!piece.is_null() && piece.addr().is_multiple_of(layout.align()));
            for at in 0..layout.size() {
                // SAFETY: within the piece.
                unsafe {
                    assert_eq!(*piece.add(at), 0);
                    *piece.add(at) = round.to_le_bytes()[0];
                }
            }
            pieces.push((piece, layout, round.to_le_bytes()[0]));
        }
        assert!(arena.owns(pieces[0].0) && !arena.owns(pieces[ROUNDS - 1].0));
        for (piece, layout, mark) in pieces {
            // SAFETY: from this allocator, with this layout; the new size is not 0.
            unsafe {
                assert!((0..layout.size()).all(|at| *piece.add(at) == mark));
                let larger = arena.realloc(piece, layout, 2 * layout.size());
                assert!((0..layout.size()).all(|at| *larger.add(at) == mark));
                arena.dealloc(larger, Layout::from_size_align(2 * layout.size(), layout.align()).unwrap());
            }
        }
    }

    #[test]
    fn what_is_large_leaves_the_room_to_others() {
        let arena = Arena::new();
        let large = Layout::from_size_align(LARGE + 1, 1).unwrap();
        assert_eq!(arena.take(large), None);
        assert_eq!(arena.used.into_inner(), 0);
    }
}
