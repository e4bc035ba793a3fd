//! `application/health+json`, draft-inadarei-api-health-check-06.

use super::{Failing, Form};
use crate::format;
use crate::serve::view::View;

pub const FORM: Form<View> = Form {
    name: "health+json",
    media: "application/health+json",
    content_type: "application/health+json",
    failing: Failing::Told,
    print,
};

fn print(view: &View) -> String {
    format::health::report(&view.subset, &view.report(), view.shown)
}
