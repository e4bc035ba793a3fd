//! Where Redis is, as the command line takes it. A URL may hold a password, so none of its text is ever shown.

use std::env;
use std::fmt;

use heartbeat::fleet::Url;

const VARIABLE: &str = "HEARTBEAT_REDIS_URL";

/// A URL that has not been read yet. Reading it is not the parser's work: a parser shows what it cannot read.
#[derive(Clone)]
pub struct Unread(String);

#[cfg(any(feature = "celery", feature = "django-q"))]
impl Unread {
    /// For who reads it, and never for showing.
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl From<String> for Unread {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unread(…)")
    }
}

/// What was given, else `$HEARTBEAT_REDIS_URL`.
pub fn url(given: Option<&Unread>) -> Result<Url, String> {
    let (name, text) = match given {
        Some(Unread(text)) => ("--redis", text.clone()),
        None => (VARIABLE, variable()?),
    };
    parse(name, &text)
}

/// Reads the URL that was given by a flag or a variable of this name.
pub fn parse(name: &str, text: &str) -> Result<Url, String> {
    text.parse().map_err(|invalid| format!("the URL in {name} cannot be used: {invalid}"))
}

fn variable() -> Result<String, String> {
    match env::var_os(VARIABLE).filter(|text| !text.is_empty()) {
        Some(text) => text.into_string().map_err(|_| format!("the URL in {VARIABLE} is not text")),
        None => Err(format!("which Redis? Say it with --redis URL or in {VARIABLE}")),
    }
}
