//! Which redirects are followed.

use std::fmt;

use reqwest::redirect::{Action, Attempt, Policy};

use super::same_host;

/// Why one is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There are more than this many.
    Many(u8),
    /// From `https` to `http`.
    Unencrypted,
    /// To another host, while headers are sent that it would be told.
    Elsewhere,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Many(most) => write!(f, "redirected more than {most} times"),
            Self::Unencrypted => f.write_str("redirected to where nothing is encrypted"),
            Self::Elsewhere => f.write_str("redirected to another host, which would be told the headers"),
        }
    }
}

impl std::error::Error for Refused {}

/// Follows so many of them, by the rules.
pub fn policy(most: u8, keep_headers_secret: bool) -> Policy {
    if most == 0 {
        return Policy::none();
    }
    Policy::custom(move |attempt| judge(attempt, most, keep_headers_secret))
}

fn judge(attempt: Attempt<'_>, most: u8, keep_headers_secret: bool) -> Action {
    let from = attempt.previous().last();
    let unencrypted = from.is_some_and(|from| from.scheme() == "https") && attempt.url().scheme() != "https";
    let elsewhere = keep_headers_secret && !from.is_some_and(|from| same_host(from, attempt.url()));
    if attempt.previous().len() > usize::from(most) {
        attempt.error(Refused::Many(most))
    } else if unencrypted {
        attempt.error(Refused::Unencrypted)
    } else if elsewhere {
        attempt.error(Refused::Elsewhere)
    } else {
        attempt.follow()
    }
}
