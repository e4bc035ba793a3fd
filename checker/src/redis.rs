//! Where Redis is, as the command line takes it. A URL may hold a password, so none of its text is ever shown.

use std::env;
use std::path::Path;

use heartbeat::fleet::{InvalidKey, SigningKeys, Url};

use crate::arguments::Unread;

const VARIABLE: &str = "HEARTBEAT_REDIS_URL";

/// What was given, else `$HEARTBEAT_REDIS_URL`.
pub fn url(given: Option<&Unread>) -> Result<Url, String> {
    let (name, text) = match given {
        Some(given) => ("--redis", given.text().to_owned()),
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

/// What records are signed with: the key in a file that was given, else the one in `$HEARTBEAT_KEY`, if any.
pub fn signing(file: Option<&Path>) -> Result<Option<SigningKeys>, String> {
    const NAME: &str = "HEARTBEAT_KEY";
    if let Some(file) = file {
        let keys = SigningKeys::from_file(file);
        return keys.map(Some).map_err(|why| format!("the key in {} cannot be used: {why}", file.display()));
    }
    let Some(text) = env::var_os(NAME).filter(|text| !text.is_empty()) else { return Ok(None) };
    let keys = text.into_string().unwrap_or_default().parse();
    keys.map(Some).map_err(|why: InvalidKey| format!("{NAME} cannot be used: {why}"))
}
