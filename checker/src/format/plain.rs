//! Text that goes to people's eyes: nothing in it may steer a terminal, start a new line or hide another part.

use std::fmt::{self, Write};

/// Shows a text with every invisible or steering character escaped.
pub struct Plain<T>(pub T);

impl<T: fmt::Display> fmt::Display for Plain<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping(f), "{}", self.0)
    }
}

struct Escaping<'a, 'f>(&'a mut fmt::Formatter<'f>);

impl fmt::Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.split_inclusive(steers) {
            match part.char_indices().next_back() {
                Some((at, last)) if steers(last) => {
                    write!(self.0, "{}{}", &part[..at], last.escape_unicode())?;
                }
                _ => self.0.write_str(part)?,
            }
        }
        Ok(())
    }
}

/// Control characters, line and paragraph separators, what is invisible or reverses the text around it, and what is no
/// character of XML.
fn steers(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}'
                | '\u{61c}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fffe}'..='\u{ffff}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_is_escaped_and_all_else_is_shown_as_it_is() {
        for (text, shown) in [
            ("", ""),
            ("Größe 工 \"a\\b\" |", "Größe 工 \"a\\b\" |"),
            ("a\nb", "a\\u{a}b"),
            ("\u{1b}[2J", "\\u{1b}[2J"),
            ("a\u{9b}\u{7f}", "a\\u{9b}\\u{7f}"),
            ("a\u{202e}b\u{2028}", "a\\u{202e}b\\u{2028}"),
            ("a\u{fffd}\u{ffff}", "a\u{fffd}\\u{ffff}"),
        ] {
            assert_eq!(Plain(text).to_string(), shown);
        }
    }
}
