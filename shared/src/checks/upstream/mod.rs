//! What the kinds share that ask what a provider tells of itself: who is known by name, and how a document is fetched.

pub mod date;
pub mod document;
pub mod providers;

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::http::client;
use crate::check::Refresh;
use crate::kind::Mistake;
use crate::settings::{Span, TlsFiles, Url};

/// The settings of how a provider is looked at, which all of these kinds have.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Looking {
    /// How often to look, at least `"1s"`; sooner again where nothing could be read.
    #[serde(default = "every")]
    every: Span,
    /// How old the last answer may be once nothing can be read any more, until it is `unknown`.
    #[serde(default = "max_stale")]
    max_stale: Span,
    /// The proxy to use, `http://` or `https://`. The environment's are not.
    pub proxy: Option<Url>,
    /// Whom to trust, and who this side is.
    #[serde(default)]
    pub tls: TlsFiles,
}

fn every() -> Span {
    Span(Duration::from_mins(5))
}

fn max_stale() -> Span {
    Span(Duration::from_mins(15))
}

impl Looking {
    /// What is wrong with them, and with the address to look at.
    pub fn mistakes(&self, url: Option<&Url>) -> Vec<Mistake> {
        let mut mistakes = client::mistakes(url, self.proxy.as_ref(), &self.tls);
        if self.every.0 < Duration::from_secs(1) {
            mistakes.push(Mistake::of("every", "nobody is asked more often than every second"));
        }
        if self.max_stale <= self.every {
            mistakes.push(Mistake::of("max_stale", "an answer must live longer than until the next look"));
        }
        mistakes
    }

    /// When to look.
    pub fn refresh(&self) -> Refresh {
        Refresh { every: self.every.0, max_stale: self.max_stale.0 }
    }
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
