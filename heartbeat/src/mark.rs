//! The pulse mark: one atomic word that the worker's loop writes and the publisher reads.
//!
//! Both numbers that the record needs, the moment of the pulse and the budget from there, are packed into the
//! word, so that a pulse is one store and no reader can ever see half of it: 40 bits of milliseconds since boot
//! (34 years), 24 bits of budget.

use std::sync::atomic::Ordering;

use crate::record::Pulse;
use crate::sync::AtomicU64;

const BUDGET_BITS: u32 = 24;
/// Set in a budget that counts seconds; without it, milliseconds.
const SECONDS: u64 = 1 << (BUDGET_BITS - 1);
/// The largest count: 2.3 hours in milliseconds, 97 days in seconds.
const MAX_COUNT: u64 = SECONDS - 1;
const PULSED_MASK: u64 = (1 << (64 - BUDGET_BITS)) - 1;

/// A budget, packed beforehand, so that a pulse with the default one computes nothing.
#[derive(Clone, Copy, Debug)]
pub struct Budget(u64);

impl Budget {
    /// Above 2.3 hours, rounded up to whole seconds; at most 97 days.
    pub fn from_millis(ms: u64) -> Self {
        if ms <= MAX_COUNT { Self(ms) } else { Self(SECONDS | ms.div_ceil(1_000).min(MAX_COUNT)) }
    }

    pub fn millis(self) -> u64 {
        let count = self.0 & MAX_COUNT;
        if self.0 & SECONDS == 0 { count } else { count * 1_000 }
    }
}

/// Zero until the first pulse.
#[derive(Debug, Default)]
pub struct Mark(AtomicU64);

impl Mark {
    /// Marks a pulse at `now_ms`. One store, relaxed: the word carries all that it means.
    pub fn set(&self, now_ms: u64, budget: Budget) {
        self.0.store(pack(now_ms, budget), Ordering::Relaxed);
    }

    pub fn get(&self) -> Option<Pulse> {
        unpack(self.0.load(Ordering::Relaxed))
    }

    /// Moves the due moment of the pulse that stands now; a pulse made meanwhile wins.
    pub fn extend(&self, by_ms: u64) {
        self.extend_with(|_| by_ms);
    }

    /// Gives the pulse that stands now the time between two moments back, as far as it is after the pulse.
    pub fn give_back(&self, from_ms: u64, to_ms: u64) {
        self.extend_with(|pulse| to_ms.saturating_sub(from_ms.max(pulse.pulsed_mono_ms)));
    }

    fn extend_with(&self, by_ms: impl FnOnce(Pulse) -> u64) {
        let word = self.0.load(Ordering::Relaxed);
        if let Some(pulse) = unpack(word) {
            let by_ms = by_ms(pulse);
            let budget = (pulse.due_mono_ms - pulse.pulsed_mono_ms).saturating_add(by_ms);
            let extended = pack(pulse.pulsed_mono_ms, Budget::from_millis(budget));
            // Losing the exchange means a newer pulse, which needs no more time.
            let _ = self.0.compare_exchange(word, extended, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

fn pack(now_ms: u64, budget: Budget) -> u64 {
    (now_ms & PULSED_MASK) << BUDGET_BITS | budget.0
}

fn unpack(word: u64) -> Option<Pulse> {
    let pulsed_mono_ms = word >> BUDGET_BITS;
    let budget = Budget(word & ((1 << BUDGET_BITS) - 1));
    (word != 0).then_some(Pulse { pulsed_mono_ms, due_mono_ms: pulsed_mono_ms + budget.millis() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pulse_is_read_as_it_was_marked() {
        let mark = Mark::default();
        assert_eq!(mark.get(), None);
        for (now, budget) in [(1, 0), (5_000, 30_000), (1 << 39, MAX_COUNT)] {
            mark.set(now, Budget::from_millis(budget));
            assert_eq!(mark.get(), Some(Pulse { pulsed_mono_ms: now, due_mono_ms: now + budget }));
        }
    }

    #[test]
    fn a_budget_is_never_shortened_below_97_days() {
        let days_97 = 97 * 86_400_000;
        for ms in [MAX_COUNT, MAX_COUNT + 1, 86_400_001, days_97] {
            let kept = Budget::from_millis(ms).millis();
            assert!(kept >= ms && kept < ms + 1_000, "{ms} became {kept}");
        }
        assert!(Budget::from_millis(u64::MAX).millis() >= days_97);
    }

    #[test]
    fn time_is_added_to_the_standing_pulse_only() {
        let mark = Mark::default();
        mark.extend(500);
        assert_eq!(mark.get(), None);
        mark.set(1_000, Budget::from_millis(100));
        mark.extend(500);
        assert_eq!(mark.get(), Some(Pulse { pulsed_mono_ms: 1_000, due_mono_ms: 1_600 }));
    }

    #[test]
    fn only_what_was_lost_after_the_pulse_is_given_back() {
        for (from, to, due) in [(1_200, 5_000, 4_900), (400, 5_000, 5_100), (400, 900, 1_100), (5, 4, 1_100)]
        {
            let mark = Mark::default();
            mark.give_back(from, to);
            assert_eq!(mark.get(), None);
            mark.set(1_000, Budget::from_millis(100));
            mark.give_back(from, to);
            assert_eq!(mark.get(), Some(Pulse { pulsed_mono_ms: 1_000, due_mono_ms: due }), "{from} to {to}");
        }
    }
}
