//! The endpoints: the list of them, and what each answers.
//!
//! Who may ask, and what is said of a path that is none of these, is decided in `router` before anything here runs.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use axum::body::Body;
use axum::http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Response, StatusCode};
use serde_json::{Value, json};
use shared::config::Service;

use super::board::{Board, LIVENESS, READINESS, STARTUP, Setup};
use super::formats::{FORMS, Failing, Form};
use super::metrics::{self, Metrics};
use super::router::Encrypted;
use super::view::{View, Words};
use super::{address, negotiate, openapi, page};

/// What a question is answered with.
pub type Answer = Response<Body>;

/// An answer that is on its way.
pub type Answering = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// One endpoint.
#[derive(Clone, Copy)]
pub struct Endpoint {
    /// Its path. A part in braces stands for any one.
    pub path: &'static str,
    /// What it answers, in a sentence.
    pub about: &'static str,
    /// The media types that it answers in, the first where none is asked for.
    pub media: fn() -> Vec<&'static str>,
    /// What its JSON is, by its name in `openapi`'s schemas.
    pub schema: &'static str,
    /// Whether its answer can be that something does not pass.
    pub fails: bool,
    /// Whether this configuration has it, at this part of its path.
    pub is_there: fn(&Setup, &str) -> bool,
    /// Answers.
    pub answer: fn(Asked) -> Answering,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("path", &self.path).finish_non_exhaustive()
    }
}

/// The path of the endpoint that is open to all, unless it is protected.
pub const HEALTHZ: &str = "/healthz";

/// All endpoints.
pub const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        path: HEALTHZ,
        about: "Whether the process is up. It touches nothing.",
        media: || media(FORMS),
        schema: "Report",
        fails: false,
        is_there: |_, _| true,
        answer: |asked| {
            Box::pin(async move { asked.show(FORMS, |setup| asked.addressed(View::alive(setup))) })
        },
    },
    Endpoint {
        path: "/readyz",
        about: "The subset `readiness`: whether work may be sent here.",
        media: || media(FORMS),
        schema: "Report",
        fails: true,
        is_there: |setup, _| setup.subset(READINESS).is_some(),
        answer: |asked| Box::pin(asked.subset(READINESS, Words::Ready)),
    },
    Endpoint {
        path: "/startupz",
        about: "The subset `startup`: whether it has started.",
        media: || media(FORMS),
        schema: "Report",
        fails: true,
        is_there: |setup, _| setup.subset(STARTUP).is_some(),
        answer: |asked| Box::pin(asked.subset(STARTUP, Words::Started)),
    },
    Endpoint {
        path: "/healthcheck/{subset}",
        about: "Any subset. `liveness` without a subset of that name answers as `/healthz`.",
        media: || media(FORMS),
        schema: "Report",
        fails: true,
        is_there: |setup, name| name == LIVENESS || setup.subset(name).is_some(),
        answer: |asked| {
            Box::pin(async move {
                let name = asked.part.clone();
                asked.subset(&name, Words::Whole).await
            })
        },
    },
    Endpoint {
        path: "/version",
        about: "What is deployed here.",
        media: || media(VERSION),
        schema: "Version",
        fails: false,
        is_there: |setup, _| setup.server.expose_version,
        answer: |asked| Box::pin(async move { asked.show(VERSION, |setup| setup.version()) }),
    },
    Endpoint {
        path: "/metrics",
        about: "What stands of each check, subset and worker, as OpenMetrics. It asks no check.",
        media: || media(metrics::FORMS),
        schema: "Document",
        fails: false,
        is_there: |_, _| true,
        answer: |asked| {
            Box::pin(async move {
                metrics::prepare(&asked.board, &asked.setup).await;
                asked.show(metrics::FORMS, |setup| Metrics::of(&asked.board, setup))
            })
        },
    },
    Endpoint {
        path: "/openapi.json",
        about: "This description.",
        media: || media(DESCRIPTION),
        schema: "Document",
        fails: false,
        is_there: |_, _| true,
        answer: |asked| {
            Box::pin(async move {
                asked.show(DESCRIPTION, |setup| Description(openapi::document(setup, &asked.head)))
            })
        },
    },
    Endpoint {
        path: "/",
        about: "A page for people, and as a stream of server-sent events what changes in it. It asks no check.",
        media: || media(page::FORMS),
        schema: "Document",
        fails: false,
        is_there: |setup, _| setup.server.has_page(),
        answer: |asked| Box::pin(page::page(asked)),
    },
];

/// A question that may be asked, with the one configuration that all of its answer is made of.
#[derive(Debug)]
pub struct Asked {
    /// The board, for who asks checks or waits for news.
    pub board: Arc<Board>,
    /// The configuration that was in force when the question came.
    pub setup: Arc<Setup>,
    /// The part of the path that stands in braces.
    pub part: String,
    /// The question's head.
    pub head: Parts,
}

/// What can be shown, and may pass or not.
pub trait Shows {
    /// Whether it passes.
    fn passes(&self) -> bool;
}

impl Shows for View {
    fn passes(&self) -> bool {
        self.passed
    }
}

impl Shows for Service {
    fn passes(&self) -> bool {
        true
    }
}

impl Asked {
    /// The format that is asked for; else the answer that there is none such. It is chosen before any check is asked.
    pub fn form<T>(&self, forms: &'static [Form<T>]) -> Result<&'static Form<T>, Box<Answer>> {
        let accept: Vec<_> = self.head.headers.get_all(ACCEPT).iter().map(HeaderValue::as_bytes).collect();
        let chosen = negotiate::choose(forms, self.head.uri.query(), &accept);
        chosen.ok_or_else(|| {
            let names: Vec<_> = forms.iter().map(|form| form.name).collect();
            let what = format!("there is no such format here; there are {}", names.join(", "));
            Box::new(refusal(StatusCode::NOT_ACCEPTABLE, &what))
        })
    }

    /// What there is to show, in the format that is asked for.
    pub fn show<T: Shows>(&self, forms: &'static [Form<T>], shown: impl FnOnce(&Arc<Setup>) -> T) -> Answer {
        match self.form(forms) {
            Ok(form) => self.printed(form, &shown(&self.setup)),
            Err(refusal) => *refusal,
        }
    }

    async fn subset(self, name: &str, words: Words) -> Answer {
        match self.form(FORMS) {
            Ok(form) => {
                let Ok(_place) = self.board.place_to_wait(&self.setup, name) else {
                    return full("too many wait for an answer already", "1");
                };
                let view = self.board.ask(&self.setup, name, words).await;
                view.map_or_else(not_found, |view| self.printed(form, &self.addressed(view)))
            }
            Err(refusal) => *refusal,
        }
    }

    /// The same, which says where it was asked.
    fn addressed(&self, view: View) -> View {
        let encrypted = self.head.extensions.get::<Encrypted>().is_some();
        View { address: address::of(&self.head, encrypted), ..view }
    }

    fn printed<T: Shows>(&self, form: &Form<T>, shown: &T) -> Answer {
        let failing = !shown.passes() && form.failing == Failing::Told;
        let status = if failing { self.setup.server.failure_status } else { 200 };
        // The configuration's schema has seen to its range.
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        answer(status, form.content_type, (form.print)(shown))
    }
}

/// The media types of formats.
pub fn media<T>(forms: &[Form<T>]) -> Vec<&'static str> {
    forms.iter().map(|form| form.media).collect()
}

/// An answer.
pub fn answer(status: StatusCode, content_type: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Body::from(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

/// An answer that refuses, as JSON: `{"error":"…"}`.
pub fn refusal(status: StatusCode, what: &str) -> Answer {
    answer(status, "application/json", format!("{}\n", json!({ "error": what })))
}

/// There is no place for this question, and there may be in so many seconds.
pub fn full(what: &str, seconds: &'static str) -> Answer {
    let mut answer = refusal(StatusCode::SERVICE_UNAVAILABLE, what);
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(seconds));
    answer
}

/// There is nothing at this path.
pub fn not_found() -> Answer {
    refusal(StatusCode::NOT_FOUND, "there is nothing at this path")
}

const VERSION: &[Form<Service>] = &[Form {
    name: "json",
    media: "application/json",
    content_type: "application/json",
    failing: Failing::Told,
    print: |service| format!("{}\n", service.document()),
}];

/// The description of all this.
struct Description(Value);

impl Shows for Description {
    fn passes(&self) -> bool {
        true
    }
}

const DESCRIPTION: &[Form<Description>] = &[Form {
    name: "json",
    media: "application/json",
    content_type: "application/json",
    failing: Failing::Told,
    print: |Description(document)| format!("{document:#}\n"),
}];
