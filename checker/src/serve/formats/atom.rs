//! Atom, RFC 4287: the changes of a subset's checks, just asked.

use maud::html;

use super::feed::{self, Feed};
use super::{Failing, Form};
use crate::format::time::rfc3339;
use crate::serve::view::View;

const MEDIA: &str = "application/atom+xml";

pub const FORM: Form<View> = Form {
    name: "atom",
    media: MEDIA,
    content_type: "application/atom+xml; charset=utf-8",
    failing: Failing::Passes,
    print,
};

fn print(view: &View) -> String {
    let feed = Feed::of(view);
    let (own, page) = (feed.link(FORM.name), feed.link("html"));
    feed::document(&html! {
        feed xmlns="http://www.w3.org/2005/Atom" xml:lang="en" {
            id { (feed.id) }
            title { (feed.title) }
            subtitle { (feed.about) }
            updated { (rfc3339(feed.updated)) }
            author { name { (feed.author) } }
            link rel="self" type=(MEDIA) href=(own) {}
            link rel="alternate" type="text/html" href=(page) {}
            @for entry in &feed.entries {
                entry {
                    id { (entry.id) }
                    title { (entry.title) }
                    updated { (rfc3339(entry.at)) }
                    link rel="alternate" type="text/html" href=(page) {}
                    content { (entry.text) }
                }
            }
        }
    })
}
