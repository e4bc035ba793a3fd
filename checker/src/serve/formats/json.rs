//! JSON, in the form that clients of django-deploy-probes know.

use super::{Failing, Form};
use crate::format;
use crate::serve::view::View;

pub const FORM: Form<View> = Form {
    name: "json",
    media: "application/json",
    content_type: "application/json",
    failing: Failing::Told,
    print,
};

fn print(view: &View) -> String {
    format::json::report(view.word(), &view.report(), view.shown)
}
