//! gRPC's health checks, `grpc.health.v1`: whether a subset passes, asked once (`Check`) or followed (`Watch`).
//!
//! The answers are the board's, as over HTTP, and who may ask is decided by the same rules. Connections are `listen`'s concern.

use std::fmt;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Request as Question, Response as Answer, StatusCode};
use futures_util::{Stream, stream};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{self, Instant};
use tonic::body::Body;
use tonic::codegen::Service as _;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::board::{Board, Life, READINESS, Setup};
use super::router::{self, Peer};
use super::view::Words;

/// How many may watch at once.
pub const WATCHERS: usize = 256;

/// How often the checks of who watches are asked, as far as their answers are older than `cache`.
const AGAIN: Duration = Duration::from_secs(1);

/// The most that a question's body may hold: a name, and a few bytes around it.
const LARGEST: usize = 4 * 1024;

/// For who has no deadline.
const FOREVER: Duration = Duration::from_hours(24 * 365);

const LATE: &str = "there was no answer in time";
const REFUSED: &str = "this may not be asked from here";

/// Why a question did not come whole: for the client, whose stream ends by it.
#[derive(Clone, Copy, Debug)]
pub struct Broken;

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the question did not come whole")
    }
}

impl std::error::Error for Broken {}

/// A question's head with all of its body, which has so long to come.
pub async fn whole(question: Question<Incoming>, within: Duration) -> Result<Question<Full<Bytes>>, Broken> {
    let (head, body) = question.into_parts();
    let read = time::timeout(within, Limited::new(body, LARGEST).collect()).await;
    let body = read.map_err(|_| Broken)?.map_err(|_| Broken)?.to_bytes();
    Ok(Question::from_parts(head, Full::new(body)))
}

/// Answers a question.
pub async fn answer(board: &Arc<Board>, peer: IpAddr, mut question: Question<Full<Bytes>>) -> Answer<Body> {
    question.extensions_mut().insert(Peer(peer));
    let (head, body) = question.into_parts();
    let is_grpc = |header: &HeaderValue| header.as_bytes().starts_with(b"application/grpc");
    if !head.headers.get(CONTENT_TYPE).is_some_and(is_grpc) {
        let mut answer = Answer::new(Body::empty());
        *answer.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return answer;
    }
    if !router::may(&board.setup().server.access, &head) {
        return Status::permission_denied(REFUSED).into_http();
    }
    let asked = Asked { board: Arc::clone(board), head: head.clone() };
    let mut server = HealthServer::new(asked).max_decoding_message_size(LARGEST);
    match server.call(Question::from_parts(head, body)).await {
        Ok(answer) => answer,
        Err(never) => match never {},
    }
}

/// A question that may be asked.
#[derive(Debug)]
struct Asked {
    board: Arc<Board>,
    head: Parts,
}

impl Asked {
    /// Until when the client waits.
    fn deadline(&self) -> Instant {
        let header = self.head.headers.get("grpc-timeout");
        Instant::now() + header.and_then(|header| patience(header.as_bytes())).unwrap_or(FOREVER).min(FOREVER)
    }
}

#[tonic::async_trait]
impl Health for Asked {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let (setup, subset) = (self.board.setup(), subset(&request.get_ref().service));
        let Ok(_place) = self.board.place_to_wait(&setup, subset) else {
            return Err(Status::unavailable("too many wait for an answer already"));
        };
        let status = time::timeout_at(self.deadline(), status(&self.board, &setup, subset)).await;
        match status.map_err(|_| Status::deadline_exceeded(LATE))? {
            Some(status) => Ok(Response::new(response(status))),
            None => Err(Status::not_found("there is no subset of this name")),
        }
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let Some(place) = self.board.place_to_watch() else {
            return Err(Status::unavailable("too many watch already"));
        };
        let watcher = Watcher {
            board: Arc::clone(&self.board),
            head: self.head.clone(),
            service: request.into_inner().service,
            life: self.board.life(),
            deadline: self.deadline(),
            told: None,
            _place: place,
        };
        let stream = stream::unfold(watcher, |mut watcher| async move {
            let told = time::timeout_at(watcher.deadline, watcher.next()).await;
            Some((told.unwrap_or(Err(Status::deadline_exceeded(LATE))), watcher))
        });
        Ok(Response::new(Box::pin(stream)))
    }
}

/// Who watches. It is asked for its next answer only where the client has room for one, so nothing is kept for a client that
/// does not read.
struct Watcher {
    board: Arc<Board>,
    head: Parts,
    service: String,
    life: watch::Receiver<Life>,
    deadline: Instant,
    told: Option<ServingStatus>,
    _place: OwnedSemaphorePermit,
}

impl Watcher {
    /// What is, and after that what has changed; an error at the end.
    async fn next(&mut self) -> Result<HealthCheckResponse, Status> {
        let mut at_once = self.told.is_none();
        loop {
            if !at_once {
                // That the end is near is told at once. The board, which tells it, is held here.
                let _ = time::timeout(AGAIN, self.life.changed()).await;
            }
            at_once = false;
            if *self.life.borrow_and_update() == Life::Stopped {
                return Err(Status::unavailable("the server has stopped"));
            }
            // Another configuration may have other rules.
            let setup = self.board.setup();
            if !router::may(&setup.server.access, &self.head) {
                return Err(Status::permission_denied(REFUSED));
            }
            let status = tokio::select! {
                status = status(&self.board, &setup, subset(&self.service)) => status.unwrap_or(ServingStatus::ServiceUnknown),
                _ = self.life.changed() => {
                    at_once = true;
                    continue;
                }
            };
            if self.told.replace(status) != Some(status) {
                return Ok(response(status));
            }
        }
    }
}

/// The subset that a service stands for.
fn subset(service: &str) -> &str {
    if service.is_empty() { READINESS } else { service }
}

/// Whether a subset passes. Nothing where there is none of this name.
async fn status(board: &Board, setup: &Arc<Setup>, subset: &str) -> Option<ServingStatus> {
    let view = board.ask(setup, subset, Words::Whole).await?;
    Some(if view.passed { ServingStatus::Serving } else { ServingStatus::NotServing })
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

/// What a header `grpc-timeout` says: at most eight digits, and a unit.
fn patience(header: &[u8]) -> Option<Duration> {
    let (unit, digits) = header.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = std::str::from_utf8(digits).ok()?.parse().ok()?;
    match unit {
        b'H' => Some(Duration::from_hours(number)),
        b'M' => Some(Duration::from_mins(number)),
        b'S' => Some(Duration::from_secs(number)),
        b'm' => Some(Duration::from_millis(number)),
        b'u' => Some(Duration::from_micros(number)),
        b'n' => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Instant as Clock;

    use futures_util::FutureExt as _;
    use shared::config::{Configuration, Surroundings};
    use tokio::runtime::Builder;

    use super::*;

    #[test]
    fn who_watches_is_told_at_once_that_the_end_is_near_though_a_check_hangs_just_then() {
        let folder = tempfile::tempdir().unwrap();
        let runs = folder.path().join("runs");
        let script = format!("touch {}; sleep 60", runs.display());
        let text = format!(
            "[subsets]\nreadiness = ['it']\n[checks.it]\ntype = 'command'\ncommand = ['sh', '-c', '{script}']\ntimeout = '1m'\n[server]\ntimeout = '1m'\n"
        );
        let surroundings = Surroundings { variable: &|_| None, folder: Path::new("/") };
        let configuration = Configuration::parse(&text, surroundings).configuration.unwrap();
        let board = Arc::new(Board::new(configuration).unwrap());
        let (head, ()) = Question::get("/").body(()).unwrap().into_parts();
        let mut watcher = Watcher {
            board: Arc::clone(&board),
            head,
            service: String::new(),
            life: board.life(),
            deadline: Instant::now() + FOREVER,
            told: Some(ServingStatus::Serving),
            _place: board.place_to_watch().unwrap(),
        };
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut next = Box::pin(watcher.next());
            let begun = Clock::now();
            while !runs.exists() {
                assert!(begun.elapsed() < Duration::from_secs(20), "the check is not asked");
                let _ = time::timeout(Duration::from_millis(10), &mut next).await;
            }
            board.stop();
            let told = next.as_mut().now_or_never().unwrap().unwrap();
            assert_eq!(told.status(), ServingStatus::NotServing);
        });
    }

    #[test]
    fn a_clients_patience_is_read_in_every_unit_and_nothing_is_made_of_garbage() {
        for (header, patience) in [
            (&b"2H"[..], Duration::from_hours(2)),
            (b"3M", Duration::from_mins(3)),
            (b"4S", Duration::from_secs(4)),
            (b"500m", Duration::from_millis(500)),
            (b"00000005u", Duration::from_micros(5)),
            (b"6n", Duration::from_nanos(6)),
            (b"99999999H", Duration::from_hours(99_999_999)),
        ] {
            assert_eq!(super::patience(header), Some(patience), "{header:?}");
        }
        for header in
            [&b""[..], b"S", b"5", b"5s", b"-5S", b"+5S", b"100000000S", b"5 S", b"\xff\xffS", b"1.5S"]
        {
            assert_eq!(super::patience(header), None, "{header:?}");
        }
    }
}
