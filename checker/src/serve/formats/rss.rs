//! RSS 2.0: the changes of a subset's checks, just asked.

use maud::html;

use super::feed::{self, Feed};
use super::{Failing, Form};
use crate::format::time::rfc822;
use crate::serve::view::View;

const MEDIA: &str = "application/rss+xml";

pub const FORM: Form<View> = Form {
    name: "rss",
    media: MEDIA,
    content_type: "application/rss+xml; charset=utf-8",
    failing: Failing::Passes,
    print,
};

fn print(view: &View) -> String {
    let feed = Feed::of(view);
    let (own, page) = (feed.link(FORM.name), feed.link("html"));
    feed::document(&html! {
        rss version="2.0" xmlns:atom="http://www.w3.org/2005/Atom" {
            channel {
                title { (feed.title) }
                link { (page) }
                description { (feed.about) }
                language { "en" }
                lastBuildDate { (rfc822(feed.updated)) }
                atom:link rel="self" type=(MEDIA) href=(own) {}
                @for entry in &feed.entries {
                    item {
                        title { (entry.title) }
                        link { (page) }
                        // Readers take this for HTML.
                        description { (html! { (entry.text) }.into_string()) }
                        guid isPermaLink="false" { (entry.id) }
                        pubDate { (rfc822(entry.at)) }
                    }
                }
            }
        }
    })
}
