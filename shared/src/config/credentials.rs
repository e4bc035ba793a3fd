//! What of a text is a password or a token, by where it stands in it.

use std::collections::BTreeSet;

use percent_encoding::percent_decode_str;

/// What the name of a variable or of a parameter holds whose value is a secret.
const WORDS: [&str; 5] = ["pass", "pwd", "secret", "token", "key"];

/// Whether a name says that its value is a secret.
pub fn is_named(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    WORDS.iter().any(|word| name.contains(word))
}

/// Whether a text begins as a URL does.
pub fn is_url(text: &str) -> bool {
    let is_of_scheme = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    text.split_once("://").is_some_and(|(scheme, _)| !scheme.is_empty() && scheme.chars().all(is_of_scheme))
}

/// The credentials of each URL in a text: as they stand there, and as a client decodes them.
///
/// Clients do not agree on where a part of a URL ends. What is one by any of them is told.
pub fn of_urls(text: &str) -> BTreeSet<String> {
    const MARK: &str = "://";
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices(MARK) {
        let (before, rest) = (&text[..at], &text[at + MARK.len()..]);
        let is_http = before.ends_with("http") || before.ends_with("https");
        for ends in [&['/', '?'][..], &['/', '?', '#', '\\']] {
            let authority = rest.split(ends).next().unwrap_or_default();
            found.extend(authority.rsplit_once('@').map(|(login, _)| of_login(login, is_http).to_owned()));
        }
        let query = rest.split_once('?').map(|(_, query)| query).unwrap_or_default();
        for (name, value) in query.split('&').filter_map(|parameter| parameter.split_once('=')) {
            // A file that holds a key is none.
            let is_file = value.starts_with('/') && !name.to_ascii_lowercase().contains("pass");
            if is_named(name) && !is_file {
                found.extend([value, value.split([';', '#']).next().unwrap_or_default()].map(str::to_owned));
            }
        }
    }
    let decoded = |text: &String| {
        [text.clone(), text.replace('+', " ")]
            .map(|text| percent_decode_str(&text).decode_utf8_lossy().into_owned())
    };
    let decoded: Vec<_> = found.iter().flat_map(decoded).collect();
    found.extend(decoded);
    found.remove("");
    found
}

/// A user without a password is a token where it is for HTTP, and a name for all others.
fn of_login(login: &str, is_http: bool) -> &str {
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    if password.is_empty() && is_http { user } else { password }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_found_wherever_a_url_may_hold_it() {
        for (text, expected) in [
            ("redis://:S3cret@h:1/0", &["S3cret"][..]),
            ("postgres://me:S3%63ret@h/d", &["S3%63ret", "S3cret"]),
            ("https://me:S3cret@h/@x", &["S3cret"]),
            ("https://me:S3cret@h?mail=a@b", &["S3cret"]),
            ("sentinel://:S3cret-1@a;sentinel://:S3cret-2@b/0", &["S3cret-1", "S3cret-2"]),
            ("sentinel://a/0;sentinel://:S3cret@b/0", &["S3cret"]),
            ("amqp://me:S3;cret@h", &["S3;cret"]),
            ("unix:///run/it?db=1&password=S3cret", &["S3cret"]),
            ("redis+sentinel://:S3cret-1@h/s?sentinel_password=S3cret-2", &["S3cret-1", "S3cret-2"]),
            ("mysql://h/d?pass=S3+cret", &["S3 cret", "S3+cret"]),
            ("https://h/d?api_key=S3cret", &["S3cret"]),
            ("https://S3cret@h", &["S3cret"]),
            ("https://S3cret:@h", &["S3cret"]),
            ("--url=https://me:S3cret@h", &["S3cret"]),
        ] {
            let expected: BTreeSet<_> = expected.iter().map(|&secret| secret.to_owned()).collect();
            assert_eq!(of_urls(text), expected, "{text}");
        }
        for text in ["redis://:S3#cret@h", "https://me:S3cret@h#@x", "https://me:S3cret@h\\@x"] {
            let found = of_urls(text);
            assert!(found.contains("S3#cret") || found.contains("S3cret"), "{text}: {found:?}");
        }
    }

    #[test]
    fn what_is_no_credential_is_none() {
        for text in [
            "",
            "test",
            "redis://h",
            "postgres://probe@h/d",
            "https://h/@x",
            "https://h/?mail=me:too@h",
            "postgres://h/d?sslkey=/run/it.key&sslmode=require",
            "memcacheds://h?cert=/run/it.pem&key=/run/it.key",
        ] {
            assert!(of_urls(text).is_empty(), "{text}: {:?}", of_urls(text));
        }
        assert!(is_url("redis+socket:///run/it") && !is_url("/run/it") && !is_url("a b://c"));
        assert!(["PGPASSWORD", "API_TOKEN", "MYSQL_PWD", "sentinel_password"].into_iter().all(is_named));
        assert!(["HOME", "db", "sslmode"].into_iter().all(|name| !is_named(name)));
    }
}
