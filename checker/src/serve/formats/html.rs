//! A page for people: one subset's checks, just asked.

use super::{Failing, Form};
use crate::serve::page;
use crate::serve::view::View;

pub const FORM: Form<View> = Form {
    name: "html",
    media: "text/html",
    content_type: page::HTML,
    failing: Failing::Told,
    print: page::subset,
};
