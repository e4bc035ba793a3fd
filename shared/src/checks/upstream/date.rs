//! Dates as providers write them.

use std::time::{SystemTime, UNIX_EPOCH};

use heartbeat::duration::Human;
use time::OffsetDateTime;
use time::format_description::well_known::{Rfc2822, Rfc3339};

/// Seconds since 1970, in UTC.
pub type Unix = i64;

/// Now.
pub fn now() -> Unix {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Unix::try_from(since.as_secs()).unwrap_or(Unix::MAX)
}

/// The moment that a text gives in the form of Atom and JSON (RFC 3339) or of RSS (RFC 2822).
pub fn parse(text: &str) -> Option<Unix> {
    let text = text.trim();
    let date = OffsetDateTime::parse(text, &Rfc3339).ok().or_else(|| of_mail(text))?;
    Some(date.unix_timestamp())
}

/// The weekday is left out: it adds nothing, and may be in any language.
fn of_mail(text: &str) -> Option<OffsetDateTime> {
    let text = text.split_once(',').map_or(text, |(_, date)| date.trim_start());
    let text = text.strip_suffix("UTC").map_or_else(|| text.to_owned(), |date| format!("{date}GMT"));
    OffsetDateTime::parse(&text, &Rfc2822).ok()
}

/// How long ago something was.
pub fn age(now: Unix, then: Unix) -> Human {
    Human(u64::try_from(now.saturating_sub(then)).unwrap_or_default().saturating_mul(1_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read_as_providers_write_them() {
        let good = [
            "2023-11-14T22:13:20Z",
            "2023-11-14T22:13:20.000Z",
            " 2023-11-14T23:13:20.123+01:00\n",
            "Tue, 14 Nov 2023 22:13:20 +0000",
            "Tue, 14 Nov 2023 22:13:20 GMT",
            "Di, 14 Nov 2023 22:13:20 UTC",
            "Tue, 14 Nov 2023 14:13:20 PST",
            "14 Nov 2023 15:13:20 -0700",
            "Tue, 14 Nov 23 22:13:20 Z",
        ];
        for text in good {
            assert_eq!(parse(text), Some(1_700_000_000), "{text}");
        }
        for text in ["", "now", "1700000000", "2023-11-14", "Tue, 99 Nov 2023 22:13:20 GMT", ",", "UTC"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn ages_are_told_as_people_say_them() {
        assert_eq!(age(1_000, 1_000 - 720).to_string(), "12 min");
        // Clocks differ.
        assert_eq!(age(1_000, 1_010).to_string(), "0 ms");
        assert!(!age(Unix::MAX, Unix::MIN).to_string().is_empty());
    }
}
