//! What the kinds share that ask what a provider tells of itself: who is known by name, and how a document is fetched.

pub mod date;
pub mod document;
pub mod providers;

use std::time::Duration;

use crate::check::Refresh;
use crate::kind::Mistake;
use crate::settings::Span;

/// How often a provider is asked where the settings say nothing.
pub fn every() -> Span {
    Span(Duration::from_mins(5))
}

/// How old an answer may be where the settings say nothing.
pub fn max_stale() -> Span {
    Span(Duration::from_mins(15))
}

/// The settings of all kinds that ask in the background, once they make sense.
pub fn refresh(every: Span, max_stale: Span, mistakes: &mut Vec<Mistake>) -> Refresh {
    if every.0 < Duration::from_secs(1) {
        mistakes.push(Mistake::of("every", "nobody is asked more often than every second"));
    }
    if max_stale <= every {
        mistakes.push(Mistake::of("max_stale", "an answer must live longer than until the next look"));
    }
    Refresh { every: every.0, max_stale: max_stale.0 }
}

/// A number of things.
pub fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// What a provider says of some of them, for the log: of bounded length.
pub fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.take(10).map(|name| &name[..name.floor_char_boundary(150)]).collect();
    names.join("; ")
}
