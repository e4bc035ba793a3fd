//! Secrets that no log shows, whatever repeats them: the last line of defence against a library or a peer whose words hold what it
//! was given.
//!
//! They are the process's, because who puts words together for a log, and cuts them, does not know the configuration.

use std::sync::{PoisonError, RwLock};

/// The longest first: one may be a part of another.
static HIDDEN: RwLock<Vec<String>> = RwLock::new(Vec::new());

/// Shorter ones are parts of ordinary words; nothing could be told any more.
const SHORTEST: usize = 4;

/// From now on, these are hidden too, as they are and as JSON writes them.
pub fn hide<'s>(secrets: impl Iterator<Item = &'s str>) {
    let mut hidden = HIDDEN.write().unwrap_or_else(PoisonError::into_inner);
    for secret in secrets.filter(|secret| secret.len() >= SHORTEST) {
        let quoted = serde_json::Value::from(secret).to_string();
        let quoted = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        hidden.extend([secret, quoted.unwrap_or(secret)].map(ToOwned::to_owned));
    }
    hidden.sort_by(|one, other| other.len().cmp(&one.len()).then_with(|| one.cmp(other)));
    hidden.dedup();
}

/// A text with `…` in the place of each of them. To be asked before anything is cut off or written in another way: of a secret
/// that is cut in two no part would be known again.
pub fn without_secrets(text: &str) -> String {
    let hidden = HIDDEN.read().unwrap_or_else(PoisonError::into_inner);
    hidden.iter().fold(text.to_owned(), |text, secret| text.replace(secret, "…"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hidden_is_nowhere_in_a_text_and_what_is_too_short_is() {
        hide(["Hidden-1", "Hidden-1-and-more", "Hidden\n\"2\"", "is"].into_iter());
        let text = r#"it is Hidden-1-and-more: Hidden-1, {"a":"Hidden\n\"2\""}"#;
        assert_eq!(without_secrets(text), r#"it is …: …, {"a":"…"}"#);
        assert_eq!(without_secrets("Hidden\n\"2\""), "…");
    }
}
