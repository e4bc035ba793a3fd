//! What can be wrong with a configuration: the one table of codes, and the list that a reading collects.

use std::fmt;

/// A kind of mistake. Its code stays what it is from one version to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each one's title says it")]
pub enum Code {
    Unreadable,
    TooLarge,
    Syntax,
    UnknownKey,
    MissingKey,
    WrongType,
    BadValue,
    BadDuration,
    BadUrl,
    BadNetwork,
    UnsetVariable,
    BadPlaceholder,
    BadSecretFile,
    UnknownKind,
    BadName,
    UnknownCheck,
    UnknownSubset,
    Circle,
    EmptySubset,
    NoSense,
    UnusedCheck,
    CutOff,
}

impl Code {
    /// All of them, in the order of their codes.
    pub const ALL: [Self; 22] = [
        Self::Unreadable,
        Self::TooLarge,
        Self::Syntax,
        Self::UnknownKey,
        Self::MissingKey,
        Self::WrongType,
        Self::BadValue,
        Self::BadDuration,
        Self::BadUrl,
        Self::BadNetwork,
        Self::UnsetVariable,
        Self::BadPlaceholder,
        Self::BadSecretFile,
        Self::UnknownKind,
        Self::BadName,
        Self::UnknownCheck,
        Self::UnknownSubset,
        Self::Circle,
        Self::EmptySubset,
        Self::NoSense,
        Self::UnusedCheck,
        Self::CutOff,
    ];

    /// The code and what it stands for.
    fn entry(self) -> (&'static str, &'static str) {
        match self {
            Self::Unreadable => ("C001", "the file cannot be read"),
            Self::TooLarge => ("C002", "the file is larger than 1 MiB"),
            Self::Syntax => ("C003", "the file is not TOML; nothing else of it is looked at"),
            Self::UnknownKey => ("C004", "a key that nothing knows"),
            Self::MissingKey => ("C005", "a key that must be there is missing"),
            Self::WrongType => ("C006", "a value of the wrong type"),
            Self::BadValue => {
                ("C007", "a value that is out of range, none of the choices, or otherwise wrong")
            }
            Self::BadDuration => ("C008", "not a duration"),
            Self::BadUrl => ("C009", "not a URL"),
            Self::BadNetwork => ("C010", "not a network"),
            Self::UnsetVariable => ("C011", "an environment variable that is not set, and has no default"),
            Self::BadPlaceholder => ("C012", "a `${` that begins no `${NAME}` or `${NAME:-default}`"),
            Self::BadSecretFile => ("C013", "a `{ file = … }` that cannot be read"),
            Self::UnknownKind => ("C014", "a `type` that is no kind of check"),
            Self::BadName => ("C015", "a name of a check or a subset that is none"),
            Self::UnknownCheck => ("C016", "a subset lists a check that there is not"),
            Self::UnknownSubset => ("C017", "a subset includes one that there is not"),
            Self::Circle => ("C018", "subsets include each other in a circle"),
            Self::EmptySubset => ("C019", "a subset without checks"),
            Self::NoSense => ("C020", "settings that make no sense together"),
            Self::UnusedCheck => {
                ("C021", "warning: a check that is in no subset, so that nobody ever asks it")
            }
            Self::CutOff => {
                ("C022", "warning: a check that may take longer than `server.timeout`, where it is cut off")
            }
        }
    }

    /// The code, such as `C004`.
    pub fn as_str(self) -> &'static str {
        self.entry().0
    }

    /// What it stands for.
    pub fn title(self) -> &'static str {
        self.entry().1
    }

    /// Whether it only warns: the configuration can be used all the same.
    pub fn is_warning(self) -> bool {
        matches!(self, Self::UnusedCheck | Self::CutOff)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What kind of mistake it is.
    pub code: Code,
    /// Where in the file, where it is in one place.
    pub place: Option<Place>,
    /// What is wrong, as a sentence without capital and full stop. It holds no value, which might be a secret.
    pub what: String,
}

/// A place in a text, both counted from 1; columns are characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is its own word")]
pub struct Place {
    pub line: usize,
    pub column: usize,
}

/// `12:5: C004: what is wrong`, which follows the name of the file and a colon.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Place { line, column }) = self.place {
            write!(f, "{line}:{column}: ")?;
        }
        let warning = if self.code.is_warning() { "warning: " } else { "" };
        write!(f, "{}: {warning}{}", self.code, self.what)
    }
}

/// What a reading has found so far, by where it is in the text.
#[derive(Debug, Default)]
pub struct Found(Vec<(usize, Code, String)>);

impl Found {
    /// Adds one that begins at that byte of the text.
    pub fn add(&mut self, at: usize, code: Code, what: impl Into<String>) {
        self.0.push((at, code, what.into()));
    }

    /// Adds all that were found elsewhere.
    pub fn append(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }

    /// Whether nothing was.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether that is all: one mistake of this kind, here.
    pub fn is_only(&self, code: Code, at: usize) -> bool {
        matches!(self.0[..], [(found_at, found, _)] if found == code && found_at == at)
    }

    /// In the order of the text, each with its line. Mistakes at one place stay in the order in which they were found.
    pub fn into_problems(mut self, text: &str) -> Vec<Problem> {
        self.0.sort_by_key(|(at, ..)| *at);
        self.0.dedup();
        let problem = |(at, code, what)| Problem { code, place: Some(place(text, at)), what };
        self.0.into_iter().map(problem).collect()
    }
}

fn place(text: &str, at: usize) -> Place {
    let before = &text[..text.floor_char_boundary(at)];
    let line_begins = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
    Place { line, column: before[line_begins..].chars().count() + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_numbered_in_their_order_and_each_once() {
        for (number, code) in Code::ALL.into_iter().enumerate() {
            assert_eq!(code.as_str(), format!("C{:03}", number + 1));
            assert_eq!(code.title().starts_with("warning: "), code.is_warning());
        }
    }

    #[test]
    fn a_place_is_counted_in_lines_and_characters() {
        let text = "a\nüb\r\n\nc";
        for (at, line, column) in
            [(0, 1, 1), (2, 2, 1), (4, 2, 2), (5, 2, 3), (7, 3, 1), (8, 4, 1), (99, 4, 2)]
        {
            assert_eq!(place(text, at), Place { line, column }, "{at}");
        }
    }
}
