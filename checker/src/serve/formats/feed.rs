//! What feeds tell, whatever they are written in: the last changes of a subset's checks, an entry each.
//!
//! Nothing in it depends on when it is read, so two readings without a change between them are the same.

use std::cmp::Reverse;

use form_urlencoded::byte_serialize;
use maud::{Markup, PreEscaped, html};

use crate::format::plain::Plain;
use crate::format::time::seconds;
use crate::serve::standing::Change;
use crate::serve::view::{Seen, View};

/// How many entries there are at most.
const ENTRIES: usize = 100;

/// A feed. Its texts hold no character that XML has not.
#[derive(Debug)]
pub struct Feed {
    /// Its own name, a URI: the same wherever it is asked for.
    pub id: String,
    /// Of what it is.
    pub title: String,
    /// The same in a sentence.
    pub about: String,
    /// Who says it.
    pub author: String,
    /// When the last change was, in seconds since 1970; where there is none, since when there might have been one.
    pub updated: u64,
    /// The changes, the latest first.
    pub entries: Vec<Entry>,
    address: String,
}

/// A change of a check.
#[derive(Debug)]
pub struct Entry {
    /// The change's own name, a URI.
    pub id: String,
    /// `CHECK: STATUS`.
    pub title: String,
    /// Why, where that is told, and what stood before.
    pub text: String,
    /// When, in seconds since 1970.
    pub at: u64,
}

impl Feed {
    /// The feed of a subset.
    pub fn of(view: &View) -> Self {
        let changes = |seen| Seen::changes(seen).map(|change| (&*seen.outcome.name, change));
        let mut changes: Vec<_> = view.checks.iter().flat_map(changes).collect();
        changes.sort_by_key(|(_, change)| Reverse((change.at.mono, change.series, change.number)));
        changes.truncate(ENTRIES);
        let since = view.checks.iter().map(|seen| seen.since.wall).max().unwrap_or(view.setup.since);
        let updated = changes.first().map_or(since, |(_, change)| change.at.wall);
        let author = Plain(view.setup.title()).to_string();
        Self {
            id: id(view),
            title: format!("{author}: {}", view.subset),
            about: format!("When the checks of {} change.", view.subset),
            author,
            updated: seconds(updated),
            entries: changes.iter().map(|(check, change)| Entry::of(check, change)).collect(),
            address: view.address.clone(),
        }
    }

    /// Where the same is found in a format.
    pub fn link(&self, format: &str) -> String {
        format!("{}?format={format}", self.address)
    }
}

impl Entry {
    fn of(check: &str, change: &Change) -> Self {
        let before = change.from.word();
        let text = match &change.reason {
            Some(reason) => format!("{}; before: {before}", Plain(reason)),
            None => format!("before: {before}"),
        };
        let title = format!("{check}: {}", change.to.word());
        Self { id: change.id(), title, text, at: seconds(change.at.wall) }
    }
}

/// Service, where it is deployed to as far as that may be told, and subset.
fn id(view: &View) -> String {
    let setup = &view.setup;
    let environment = setup.service.environment.as_deref().filter(|_| setup.server.expose_version);
    [setup.title(), environment.unwrap_or_default(), &view.subset]
        .iter()
        .fold("urn:checker".to_owned(), |id, part| {
            id + ":" + &byte_serialize(part.as_bytes()).collect::<String>()
        })
}

/// A document of XML.
pub fn document(root: &Markup) -> String {
    html! { (PreEscaped("<?xml version=\"1.0\" encoding=\"utf-8\"?>\n")) (root) "\n" }.into_string()
}
