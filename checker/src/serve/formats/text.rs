//! A line for each check, and the whole in the last one.

use super::{Failing, Form};
use crate::format;
use crate::serve::view::View;

pub const FORM: Form<View> = Form {
    name: "text",
    media: "text/plain",
    content_type: "text/plain; charset=utf-8",
    failing: Failing::Told,
    print,
};

fn print(view: &View) -> String {
    if view.checks.is_empty() {
        return format!("{}: {}\n", view.word(), view.subset);
    }
    format::text::report(view.word(), &view.subset, &view.report(), view.shown)
}
