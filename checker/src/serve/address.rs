//! Where a question was asked: its path, and the absolute URL that feeds must name.
//!
//! The URL is told to nobody but who asks, so what the client and its proxies say of it is believed. Whatever they say, it is a URL.

use axum::extract::OriginalUri;
use axum::http::HeaderValue;
use axum::http::header::HOST;
use axum::http::request::Parts;
use axum::http::uri::Authority;

/// In which header a proxy tells whether it was asked over HTTPS.
const PROTO: &str = "x-forwarded-proto";

/// The absolute URL, without a query and a slash at its end. Where nobody names a host, that is `localhost`.
pub fn of(head: &Parts, encrypted: bool) -> String {
    let scheme = if encrypted || asked_encrypted(head) { "https" } else { "http" };
    let host = host(head).map_or_else(|| "localhost".to_owned(), |host| host.to_string());
    format!("{scheme}://{host}{}", path(head).trim_end_matches('/'))
}

/// The path, below whatever path the router is mounted at.
pub fn path(head: &Parts) -> &str {
    head.extensions.get::<OriginalUri>().map_or(&head.uri, |original| &original.0).path()
}

fn host(head: &Parts) -> Option<Authority> {
    let named = head.headers.get(HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let host = named.or_else(|| head.uri.authority().cloned())?;
    (!host.as_str().contains('@') && !host.host().is_empty()).then_some(host)
}

fn asked_encrypted(head: &Parts) -> bool {
    let told = head.headers.get(PROTO).map(HeaderValue::as_bytes).unwrap_or_default();
    let first = told.split(|byte| *byte == b',').next().unwrap_or_default();
    first.trim_ascii().eq_ignore_ascii_case(b"https")
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    #[test]
    fn it_is_a_url_whatever_is_said() {
        for (path, headers, encrypted, url) in [
            ("/readyz", &[("host", "it:8080")][..], false, "http://it:8080/readyz"),
            ("/readyz/?format=rss", &[("host", "[::1]:80")], true, "https://[::1]:80/readyz"),
            ("http://else/a/b", &[], false, "http://else/a/b"),
            ("/readyz", &[("host", "it"), (PROTO, "HTTPS, http")], false, "https://it/readyz"),
            ("/readyz", &[("host", "it"), (PROTO, "javascript")], false, "http://it/readyz"),
            ("/readyz", &[], false, "http://localhost/readyz"),
            ("/readyz", &[("host", "")], false, "http://localhost/readyz"),
            ("/readyz", &[("host", "me:S3cret@it")], false, "http://localhost/readyz"),
            ("/readyz", &[("host", "it/\"><script>")], false, "http://localhost/readyz"),
            ("/readyz", &[("host", "a b")], false, "http://localhost/readyz"),
        ] {
            let mut request = Request::get(path);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let (head, ()) = request.body(()).unwrap().into_parts();
            assert_eq!(of(&head, encrypted), url, "{path} {headers:?}");
        }
    }
}
