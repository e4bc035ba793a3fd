//! Secrets that no log shows, whatever repeats them: the last line of defence against a library or a peer whose words hold what it
//! was given.
//!
//! They are the process's, because who puts words together for a log, and cuts them, does not know the configuration. They are
//! replaced as a whole and never locked: a child forked while another thread is at it would find a lock held for ever.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwapOption;

/// The longest first: one may be a part of another.
type Form = (Reverse<usize>, String);

/// How many want each of them hidden.
static HIDDEN: ArcSwapOption<BTreeMap<Form, usize>> = ArcSwapOption::const_empty();

fn change(change: impl Fn(&mut BTreeMap<Form, usize>)) {
    HIDDEN.rcu(|hidden| {
        let mut hidden = hidden.as_deref().cloned().unwrap_or_default();
        change(&mut hidden);
        Some(Arc::new(hidden))
    });
}

/// Shorter ones are parts of ordinary words; nothing could be told any more.
const SHORTEST: usize = 4;

/// Secrets that are hidden as long as this lives.
#[must_use = "what is dropped hides nothing any more"]
pub struct Hidden(BTreeSet<Form>);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hidden(…)")
    }
}

impl Hidden {
    /// They are hidden until the process ends.
    pub fn for_good(self) {
        std::mem::forget(self);
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        change(|hidden| {
            for form in &self.0 {
                match hidden.get_mut(form) {
                    Some(wanted) if *wanted > 1 => *wanted -= 1,
                    _ => drop(hidden.remove(form)),
                }
            }
        });
    }
}

/// From now on, these are hidden too, in each form in which they may be repeated.
pub fn hide<'s>(secrets: impl Iterator<Item = &'s str>) -> Hidden {
    let forms: BTreeSet<_> = secrets
        .flat_map(forms)
        .filter(|form| form.len() >= SHORTEST)
        .map(|form| (Reverse(form.len()), form))
        .collect();
    change(|hidden| {
        for form in &forms {
            *hidden.entry(form.clone()).or_default() += 1;
        }
    });
    Hidden(forms)
}

/// As it is, without blanks around it, as JSON writes it, and with what may stand for a character that steers a terminal.
fn forms(secret: &str) -> [String; 5] {
    let quoted = serde_json::Value::from(secret).to_string();
    let quoted = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(secret);
    let [blank, question] = [" ", "?"].map(|instead| secret.replace(char::is_control, instead));
    [secret.to_owned(), secret.trim().to_owned(), quoted.to_owned(), blank, question]
}

/// A text with `…` in the place of each of them. To be asked before anything is cut off or written in another way: of a secret
/// that is cut in two no part would be known again.
pub fn without_secrets(text: &str) -> String {
    replaced(text, |text, secret| text.replace(secret, "…"))
}

/// The same for a text that was cut off already: without what may be the first part of one of them at its end.
pub fn cut_without_secrets(text: &str) -> String {
    replaced(text, |text, secret| {
        let mut text = text.replace(secret, "…");
        let mut parts = secret.char_indices().rev().map(|(at, _)| &secret[..at]);
        let left = parts.find(|part| text.ends_with(part)).unwrap_or_default();
        text.truncate(text.len() - left.len());
        text
    })
}

fn replaced(text: &str, replace: impl Fn(String, &str) -> String) -> String {
    let hidden = HIDDEN.load();
    hidden
        .iter()
        .flat_map(|hidden| hidden.keys())
        .fold(text.to_owned(), |text, (_, secret)| replace(text, secret))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn what_is_hidden_is_nowhere_in_a_text_and_what_is_too_short_is() {
        let _hidden = hide(["Hidden-1", "Hidden-1-and-more", "Hidden\n\"2\"", "is"].into_iter());
        let text = r#"it is Hidden-1-and-more: Hidden-1, {"a":"Hidden\n\"2\""}"#;
        assert_eq!(without_secrets(text), r#"it is …: …, {"a":"…"}"#);
        for form in ["Hidden\n\"2\"", "Hidden \"2\"", "Hidden?\"2\""] {
            assert_eq!(without_secrets(form), "…");
        }
    }

    #[test]
    fn what_nobody_wants_hidden_any_more_is_shown_again() {
        let secrets = || ["Wanted-once-or-twice"].into_iter();
        let (one, other) = (hide(secrets()), hide(secrets()));
        drop(one);
        assert_eq!(without_secrets("Wanted-once-or-twice"), "…");
        drop(other);
        assert_eq!(without_secrets("Wanted-once-or-twice"), "Wanted-once-or-twice");
    }

    #[test]
    fn the_first_part_of_a_secret_is_not_left_at_the_end_of_what_was_cut() {
        let secrets = ["Qy5-Zy6-Wy7", "Qy5-Zy6-Wy7-and-more", "7-other"];
        let _hidden = hide(secrets.into_iter());
        for secret in secrets {
            for length in 1..=secret.len() {
                let told = cut_without_secrets(&format!("it is {}", &secret[..length]));
                assert!(["it is ", "it is …"].contains(&&*told), "{told}");
            }
        }
    }

    #[test]
    fn a_child_that_is_forked_in_the_middle_of_it_hides_what_it_is_told_to() {
        use nix::sys::wait::{WaitStatus, waitpid};
        use nix::unistd::{ForkResult, alarm, fork};

        let _hidden = hide((0..200).map(|_| "Hidden-before-a-fork"));
        let ended = AtomicBool::new(false);
        thread::scope(|threads| {
            for _ in 0..3 {
                threads.spawn(|| {
                    while !ended.load(Ordering::Relaxed) {
                        assert_eq!(without_secrets("Hidden-before-a-fork"), "…");
                        drop(hide(["Hidden-for-a-moment"].into_iter()));
                    }
                });
            }
            let children = (0..50).map(|_| {
                // SAFETY: the child calls what is tested, allocates, and ends; nothing of its parent's threads is waited for.
                match unsafe { fork() }.unwrap() {
                    ForkResult::Child => {
                        alarm::set(20);
                        let _own = hide(["Hidden-by-the-child"].into_iter());
                        let told = without_secrets("Hidden-by-the-child Hidden-before-a-fork");
                        // SAFETY: it ends the process, and runs nothing more of it.
                        unsafe { nix::libc::_exit(i32::from(told != "… …")) }
                    }
                    ForkResult::Parent { child } => waitpid(child, None).unwrap(),
                }
            });
            let well = children.filter(|child| matches!(child, WaitStatus::Exited(_, 0))).count();
            ended.store(true, Ordering::Relaxed);
            assert_eq!(well, 50);
        });
    }
}
