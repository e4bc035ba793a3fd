//! The way of a question from its arrival to its endpoint: secret path, access, path, method; and the headers that every
//! answer has.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{
    ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, VARY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};

use super::access::{self, FORWARDING, From, TOKEN_HEADER};
use super::board::Board;
use super::endpoints::{Answer, Asked, ENDPOINTS, Endpoint, HEALTHZ, not_found, refusal};
use super::page;

/// The other end of the connection that a question came over. A peer at a Unix socket counts as this machine.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

/// The connection that a question came over is encrypted. Where nobody says so, a proxy's header may.
#[derive(Clone, Copy, Debug)]
pub struct Encrypted;

/// What every answer has, unless its endpoint says otherwise.
const HEADERS: [(HeaderName, &str); 6] = [
    (CACHE_CONTROL, "no-store"),
    (VARY, "accept"),
    (HeaderName::from_static("x-robots-tag"), "noindex"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (CONTENT_SECURITY_POLICY, page::POLICY),
    // A path may hold a secret.
    (REFERRER_POLICY, "no-referrer"),
];

/// The endpoints over a board: all that is asked of the router is answered, with 404 where there is nothing.
pub fn over(board: Arc<Board>) -> Router {
    Router::new().fallback(route).with_state(board)
}

async fn route(State(board): State<Arc<Board>>, question: Request) -> Answer {
    // No endpoint wants a body, so none is read.
    answer(board, question.into_parts().0).await
}

/// Answers a question.
pub async fn answer(board: Arc<Board>, head: Parts) -> Answer {
    let mut answer = find(board, head).await;
    for (name, value) in HEADERS {
        answer.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    answer
}

async fn find(board: Arc<Board>, head: Parts) -> Answer {
    let setup = board.setup();
    let rules = &setup.server.access;
    let path = head.uri.path();
    let open = !rules.protect_healthz && matches(HEALTHZ, path).is_some();
    let inner = if open { Some(path) } else { access::behind_secret(rules, path) };
    let found = inner.and_then(endpoint);
    let is_healthz = found.as_ref().is_some_and(|(endpoint, _)| endpoint.path == HEALTHZ);
    if !(is_healthz && !rules.protect_healthz || may(&setup.server.access, &head)) {
        return refusal(StatusCode::FORBIDDEN, "this may not be asked from here");
    }
    // What is not there is told first: no other method and no other format would find it.
    let there = found.filter(|(endpoint, part)| (endpoint.is_there)(&setup, part));
    let Some((endpoint, part)) = there else { return not_found() };
    if head.method != Method::GET && head.method != Method::HEAD {
        let mut answer = refusal(StatusCode::METHOD_NOT_ALLOWED, "this can only be asked with GET or HEAD");
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return answer;
    }
    let part = part.to_owned();
    (endpoint.answer)(Asked { board, setup, part, head }).await
}

/// Whether who asks this may.
pub fn may(rules: &shared::config::Access, head: &Parts) -> bool {
    let lines = head.headers.get_all(&rules.client_ip_header);
    let forwarded: Vec<_> = lines.iter().map(HeaderValue::as_bytes).collect();
    let bearer = || head.headers.get(AUTHORIZATION).and_then(|header| access::bearer(header.as_bytes()));
    let token = head.headers.get(TOKEN_HEADER).map(HeaderValue::as_bytes).or_else(bearer);
    let told_elsewhere = FORWARDING.iter().any(|header| head.headers.contains_key(*header));
    access::allows(rules, From { peer: peer(head), forwarded: &forwarded, told_elsewhere, token })
}

/// Our own server says it, or the application's that has mounted the router.
fn peer(head: &Parts) -> Option<IpAddr> {
    let own = head.extensions.get::<Peer>().map(|Peer(address)| *address);
    own.or_else(|| head.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip()))
}

/// The endpoint at a path, with or without a slash at its end, and the part of it that stands in braces.
fn endpoint(path: &str) -> Option<(&'static Endpoint, &str)> {
    ENDPOINTS.iter().find_map(|endpoint| Some((endpoint, matches(endpoint.path, path)?)))
}

fn matches<'p>(pattern: &str, path: &'p str) -> Option<&'p str> {
    let path = path.strip_suffix('/').filter(|path| !path.is_empty() && *path != "/").unwrap_or(path);
    let Some((before, _)) = pattern.split_once('{') else { return (path == pattern).then_some("") };
    path.strip_prefix(before).filter(|part| !part.is_empty() && !part.contains('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_found_with_and_without_its_last_slash() {
        for (path, found) in [
            ("/readyz", Some(("/readyz", ""))),
            ("/readyz/", Some(("/readyz", ""))),
            ("/readyz//", None),
            ("//readyz", None),
            ("/", Some(("/", ""))),
            ("//", None),
            ("/READYZ", None),
            ("/readyzz", None),
            ("/healthcheck/all", Some(("/healthcheck/{subset}", "all"))),
            ("/healthcheck/all/", Some(("/healthcheck/{subset}", "all"))),
            ("/healthcheck/", None),
            ("/healthcheck", None),
            ("/healthcheck/a/b", None),
            ("*", None),
            ("", None),
        ] {
            assert_eq!(endpoint(path).map(|(endpoint, part)| (endpoint.path, part)), found, "{path}");
        }
    }
}
