//! `application/health+json`, draft-inadarei-api-health-check-06.
//!
//! The draft wants status and HTTP status to say the same, so what does not pass is `fail` here, a warning too. Which service it
//! is stands here as far as `/version` tells it.

use super::{Failing, Form};
use crate::format::health;
use crate::format::time::{rfc3339, seconds};
use crate::serve::view::View;

pub const FORM: Form<View> = Form {
    name: "health+json",
    media: "application/health+json",
    content_type: "application/health+json",
    failing: Failing::Told,
    print,
};

fn print(view: &View) -> String {
    let mut document = health::report_document(&view.subset, &view.report(), view.shown);
    if !view.passed {
        document["status"] = "fail".into();
    }
    for seen in &view.checks {
        // Not every answer was given just now.
        let answered = seen.answered.map_or(view.at, |answered| answered.wall);
        let key = health::key(&seen.outcome.name, view.shown);
        document["checks"][key][0]["time"] = rfc3339(seconds(answered)).into();
    }
    if view.setup.server.expose_version {
        let service = view.setup.version();
        let members =
            [("serviceId", service.name), ("version", service.version), ("releaseId", service.commit)];
        for (member, told) in members {
            if let Some(told) = told {
                document[member] = told.into();
            }
        }
    }
    format!("{document}\n")
}
