//! `OpenMetrics` 1.0 of one subset, for a scrape that asks its checks.

use super::{Failing, Form};
use crate::format;
use crate::serve::view::View;

pub const FORM: Form<View> = Form {
    name: "openmetrics",
    media: "application/openmetrics-text",
    content_type: "application/openmetrics-text; version=1.0.0; charset=utf-8",
    failing: Failing::Passes,
    print,
};

fn print(view: &View) -> String {
    format::openmetrics::report(&view.subset, &view.report(), view.warnings(), view.shown)
}
