//! One question of a web application, brought to the checker's own endpoints.
//!
//! What can be asked here came from anybody: what makes no question is answered with 400, as an HTTP server would.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::OriginalUri;
use axum::http::uri::PathAndQuery;
use axum::http::{Error, HeaderValue, Request, StatusCode, Uri};
use checker::serve::endpoints::{self, refusal};
use checker::serve::{Board, Encrypted, Peer, over};
use pyo3::PyResult;
use pyo3::exceptions::PyRuntimeError;
use tokio::runtime::Builder;
use tokio::time;
use tower::ServiceExt as _;

/// How long after the configuration's own `timeout` an answer is waited for.
const GRACE: Duration = Duration::from_secs(1);

/// The most that an answer may hold. Reports and feeds are far smaller.
const LARGEST: usize = 16 * 1024 * 1024;

/// What is asked.
#[derive(Debug)]
pub struct Question {
    pub method: String,
    pub path: String,
    pub query: String,
    pub headers: Vec<(String, Vec<u8>)>,
    /// The other end of the connection; nothing where that is not known.
    pub client: Option<String>,
    pub encrypted: bool,
    /// The path that the client has asked at, where that is another one.
    pub asked_at: Option<String>,
}

/// What is answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Question {
    /// Asks it, and waits on this thread.
    pub fn ask(self, board: &Arc<Board>) -> PyResult<Answer> {
        let within = board.setup().server.timeout.0.saturating_add(GRACE);
        // All that waits here is a timer and other threads' news; what checks do goes on on the board's own runtime.
        let runtime = Builder::new_current_thread().enable_time().build();
        let runtime = runtime
            .map_err(|error| PyRuntimeError::new_err(format!("no answer can be waited for: {error}")))?;
        runtime.block_on(async {
            let answered = time::timeout(within, self.answered(board)).await;
            taken(answered.unwrap_or_else(|_| late())).await
        })
    }

    async fn answered(self, board: &Arc<Board>) -> endpoints::Answer {
        match self.request() {
            // The router's error is that there is none.
            Ok(request) => {
                over(Arc::clone(board)).oneshot(request).await.unwrap_or_else(|never| match never {})
            }
            Err(_) => refusal(StatusCode::BAD_REQUEST, "this is no question"),
        }
    }

    fn request(self) -> Result<Request<Body>, Error> {
        let mut request = Request::builder().method(&*self.method).uri(uri(&self.path, &self.query)?);
        for (name, value) in self.headers {
            request = request.header(name, HeaderValue::from_bytes(&value)?);
        }
        if let Some(peer) = self.client.and_then(|client| client.parse::<IpAddr>().ok()) {
            request = request.extension(Peer(peer));
        }
        if self.encrypted {
            request = request.extension(Encrypted);
        }
        if let Some(path) = self.asked_at {
            request = request.extension(OriginalUri(uri(&path, "")?));
        }
        request.body(Body::empty())
    }
}

fn uri(path: &str, query: &str) -> Result<Uri, Error> {
    let whole = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
    Ok(Uri::from(PathAndQuery::try_from(whole)?))
}

fn late() -> endpoints::Answer {
    refusal(StatusCode::SERVICE_UNAVAILABLE, "there was no answer in time")
}

/// What the endpoint has given, as Python takes it.
async fn taken(answer: endpoints::Answer) -> PyResult<Answer> {
    let (head, body) = answer.into_parts();
    let headers = head
        .headers
        .iter()
        .filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())))
        .collect();
    let body = to_bytes(body, LARGEST).await;
    let body = body.map_err(|_| PyRuntimeError::new_err("the answer is too large"))?.to_vec();
    Ok(Answer { status: head.status.as_u16(), headers, body })
}
