//! A document that somebody publishes: fetched, bounded, and only where it has changed.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use reqwest::header::{ETAG, HeaderMap, HeaderName, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED};
use reqwest::{Response, StatusCode};

use crate::check::Failure;
use crate::checks::http::client::{Way, Web, body};
use crate::settings::{Size, TlsFiles, Url};

/// No larger one is read.
const MAX: Size = Size(1 << 20);

/// How many redirects are followed.
const REDIRECTS: u8 = 5;

/// Whatever goes wrong between here and the document tells nothing of the provider, so it is `unknown`.
pub struct Document<T> {
    web: Web,
    kept: Mutex<Option<Kept<T>>>,
}

/// What was read last, and by which headers the server knows whether that is still so.
struct Kept<T> {
    conditions: HeaderMap,
    read: Arc<T>,
}

impl<T> Document<T> {
    /// Opens nothing yet.
    pub fn new(url: Url, proxy: Option<Url>, tls: TlsFiles) -> Self {
        let way = Way { url, proxy, unix_socket: None, redirects: REDIRECTS, keeps_headers_secret: false };
        Self { web: Web::new(way, tls), kept: Mutex::new(None) }
    }

    /// The document as it is now, made of its bytes by `read` where it has changed.
    pub async fn fetch(
        &self,
        deadline: Instant,
        read: impl FnOnce(&[u8]) -> Result<T, Failure>,
    ) -> Result<Arc<T>, Failure> {
        let conditions = self.conditions();
        let answer = self.web.send(deadline, |client, url| client.get(url).headers(conditions.clone())).await;
        let answer = answer.map_err(Failure::as_unknown)?;
        match (answer.status(), self.unchanged()) {
            (StatusCode::NOT_MODIFIED, Some(kept)) => return Ok(kept),
            (StatusCode::OK, _) => {}
            (other, _) => return Err(Failure::unknown(format!("the status is {}", other.as_u16()))),
        }
        let conditions = conditions_of(&answer);
        let bytes = body(answer, MAX).await.map_err(Failure::as_unknown)?;
        let read = Arc::new(read(&bytes)?);
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Kept { conditions, read: Arc::clone(&read) });
        Ok(read)
    }

    fn conditions(&self) -> HeaderMap {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.as_ref().map(|kept| kept.conditions.clone()).unwrap_or_default()
    }

    fn unchanged(&self) -> Option<Arc<T>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.as_ref().map(|kept| Arc::clone(&kept.read))
    }
}

fn conditions_of(answer: &Response) -> HeaderMap {
    let header = |from: HeaderName, to: HeaderName| Some((to, answer.headers().get(from)?.clone()));
    [header(ETAG, IF_NONE_MATCH), header(LAST_MODIFIED, IF_MODIFIED_SINCE)].into_iter().flatten().collect()
}

impl<T> fmt::Debug for Document<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document").field("web", &self.web).finish_non_exhaustive()
    }
}
