//! The formats that answers are served in: one file each that prints a [`View`], and the list of them.
//!
//! What is asked for is decided in `negotiate`; a format decides nothing.

mod atom;
mod feed;
mod health;
mod html;
mod json;
mod openmetrics;
mod rss;
mod text;

use super::view::View;

/// One format of what is shown: of a subset's answer, a [`View`].
#[derive(Clone, Copy, Debug)]
pub struct Form<T> {
    /// The word for `?format=`.
    pub name: &'static str,
    /// The media type for `Accept`.
    pub media: &'static str,
    /// What is sent as `Content-Type`.
    pub content_type: &'static str,
    /// The HTTP status of an answer that does not pass.
    pub failing: Failing,
    /// Prints it.
    pub print: fn(&T) -> String,
}

/// Which HTTP status an answer has that does not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failing {
    /// `failure_status` of the configuration.
    Told,
    /// 200 all the same, for readers that would take nothing else: of feeds and of scrapes.
    Passes,
}

/// The formats of a subset's answer. Where nothing is asked for, and among those that are asked for alike, the first is given.
pub const FORMS: &[Form<View>] =
    &[json::FORM, text::FORM, html::FORM, health::FORM, rss::FORM, atom::FORM, openmetrics::FORM];
