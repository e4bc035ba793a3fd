//! The page for people, at `/`: what stands of every check, as a document and as a stream of what changes in it.
//!
//! It asks no check; what others have asked is what it shows. One address answers with both: a browser asks for `text/html`,
//! its `EventSource` for `text/event-stream`, so that nothing depends on where the page is mounted. How it looks is decided in
//! `sheet`, how the stream goes in `live`.

mod crews;
mod live;
mod sheet;
mod strip;

use std::time::Duration;

use axum::http::StatusCode;
use axum::http::request::Parts;

pub use self::crews::Crew;
pub use self::live::{Live, SIGN};
pub use self::sheet::subset;

use super::address;
use super::endpoints::{Answer, Asked, answer};
use super::formats::{Failing, Form};

/// What the pages may load and do: what stands in them, told by its hash, and a stream from where they came.
pub const POLICY: &str = "default-src 'none'; style-src 'sha256-ufatw66tfN+LAfhEtQ8+4SXbe+ZW8xHcKk8ZNSzM5gE='; script-src 'sha256-8uI1uNt0mQjLg6LcEEJvwc/IVboAFMiDrjXd3tZwB7w='; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const STYLE: &str = include_str!("page.css");

const SCRIPT: &str = include_str!("page.js");

/// What is sent as `Content-Type` of pages.
pub const HTML: &str = "text/html; charset=utf-8";

/// The forms that the page is asked for in. What prints them needs more than one value, so it stands below.
pub const FORMS: &[Form<()>] = &[form("html", "text/html", HTML), form(EVENTS, STREAM, STREAM)];

/// Workers that were read so long ago are shown to nobody who does not wait for them to be read again.
const OLD: Duration = Duration::from_secs(10);

const EVENTS: &str = "events";

const STREAM: &str = "text/event-stream";

const fn form(name: &'static str, media: &'static str, content_type: &'static str) -> Form<()> {
    Form { name, media, content_type, failing: Failing::Passes, print: |()| String::new() }
}

/// The page, or a stream of it.
pub async fn page(asked: Asked) -> Answer {
    let form = match asked.form(FORMS) {
        Ok(form) => form,
        Err(refusal) => return *refusal,
    };
    let base = base(&asked.head);
    if form.name == EVENTS {
        return live::stream(&asked.board, &asked.setup, base);
    }
    asked.board.live().crews.meet(&asked.board, &asked.setup, OLD).await;
    answer(StatusCode::OK, HTML, sheet::page(&asked.board, &asked.setup, &base))
}

/// What the links of the page begin with: they are relative, so that they hold behind a proxy and under a secret path too.
fn base(head: &Parts) -> String {
    match address::path(head).rsplit_once('/') {
        Some((_, last)) if !last.is_empty() => format!("./{last}/"),
        _ => "./".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use sha2::{Digest as _, Sha256};

    use super::*;

    #[test]
    fn the_policy_allows_the_own_style_and_script_and_no_other() {
        for (what, text) in [("style", STYLE), ("script", SCRIPT)] {
            let hash = STANDARD.encode(Sha256::digest(text));
            let allowed = format!("{what}-src 'sha256-{hash}'");
            assert!(POLICY.contains(&allowed), "the policy must have {allowed}");
        }
        for word in ["unsafe", "*", "http:", "https:"] {
            assert!(!POLICY.contains(word));
        }
    }

    #[test]
    fn nothing_in_style_and_script_ends_its_element() {
        assert!(!STYLE.contains("</") && !SCRIPT.contains("</") && !SCRIPT.contains("<!--"));
    }

    #[test]
    fn links_hold_with_and_without_a_slash_at_the_end_and_below_any_path() {
        for (path, begins) in
            [("/", "./"), ("/secret", "./secret/"), ("/secret/", "./"), ("/a/b", "./b/"), ("/a:b", "./a:b/")]
        {
            let (head, ()) = Request::get(path).body(()).unwrap().into_parts();
            assert_eq!(base(&head), begins, "{path}");
        }
    }
}
