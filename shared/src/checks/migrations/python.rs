//! Constants that stand in a Python file, read without Python: strings, `None`, lists or tuples of them, and what a function
//! gives, by its name.
//!
//! Only what is written out is understood. What is computed is told from what is not there, so that nobody takes the one for
//! the other.

use std::iter::Peekable;
use std::str::Chars;

/// The most words and signs of one statement that are kept.
const MOST_TOKENS: usize = 20_000;

/// A constant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Constant {
    None,
    Text(String),
    Many(Vec<Constant>),
    /// What a function of this name gives.
    Call(String),
}

impl Constant {
    pub(super) fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// The texts of a text or of many, of `None` none; nothing where there is anything else in it.
    pub(super) fn texts(&self) -> Option<Vec<&str>> {
        match self {
            Self::None => Some(Vec::new()),
            Self::Text(text) => Some(vec![text]),
            Self::Many(many) => many.iter().map(Self::text).collect(),
            Self::Call(_) => None,
        }
    }
}

/// The file means something that cannot be told without Python.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unreadable;

/// One statement, or what of it stands before the block that it begins.
#[derive(Debug, Default)]
pub(super) struct Line {
    pub indent: usize,
    tokens: Vec<Token>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Name(String),
    Text(String),
    /// A string of bytes, with values in it, or with an escape that is rare; or more than is kept of one statement.
    Strange,
    Sign(char),
}

impl Line {
    /// Whether it begins the class of this name.
    pub(super) fn begins_class(&self, name: &str) -> bool {
        matches!(&self.tokens[..], [Token::Name(word), Token::Name(class), ..] if word == "class" && class == name)
    }

    /// Whether the name is the first thing in it.
    pub(super) fn begins_with(&self, name: &str) -> bool {
        matches!(self.tokens.first(), Some(Token::Name(word)) if word == name)
    }

    /// Whether the name stands in it outside of all brackets.
    pub(super) fn speaks_of(&self, name: &str) -> bool {
        let mut depth = 0_usize;
        self.tokens.iter().any(|token| {
            match token {
                Token::Sign('(' | '[' | '{') => depth += 1,
                Token::Sign(')' | ']' | '}') => depth = depth.saturating_sub(1),
                Token::Name(word) if depth == 0 => return word == name,
                _ => {}
            }
            false
        })
    }

    /// What it gives to this name, where it does no more than that.
    pub(super) fn assigns(&self, name: &str) -> Option<Result<Constant, Unreadable>> {
        let [Token::Name(word), rest @ ..] = &self.tokens[..] else { return None };
        if word != name {
            return None;
        }
        let value = match rest {
            [Token::Sign('='), value @ ..] => value,
            [Token::Sign(':'), typed @ ..] => &typed[end_of_annotation(typed)? + 1..],
            _ => return None,
        };
        let mut tokens = value.iter().peekable();
        Some(
            constant(&mut tokens, 0)
                .and_then(|value| if tokens.next().is_none() { Ok(value) } else { Err(Unreadable) }),
        )
    }

    fn push(&mut self, token: Token) {
        if self.tokens.len() < MOST_TOKENS {
            self.tokens.push(token);
        } else {
            self.tokens.truncate(MOST_TOKENS - 1);
            self.tokens.push(Token::Strange);
        }
    }
}

/// Where the sign of equality stands that ends a type.
fn end_of_annotation(tokens: &[Token]) -> Option<usize> {
    let mut depth = 0_usize;
    tokens.iter().position(|token| {
        match token {
            Token::Sign('(' | '[' | '{') => depth += 1,
            Token::Sign(')' | ']' | '}') => depth = depth.saturating_sub(1),
            Token::Sign('=') => return depth == 0,
            _ => {}
        }
        false
    })
}

type Tokens<'t> = Peekable<std::slice::Iter<'t, Token>>;

fn constant(tokens: &mut Tokens<'_>, depth: u8) -> Result<Constant, Unreadable> {
    // Nobody writes lists in lists in lists; a file may all the same.
    if depth > 8 {
        return Err(Unreadable);
    }
    match tokens.next() {
        Some(Token::Name(name)) if name == "None" => Ok(Constant::None),
        Some(Token::Name(name)) => call(name, tokens),
        Some(Token::Text(text)) => {
            let mut text = text.clone();
            while let Some(Token::Text(more)) = tokens.next_if(|token| matches!(token, Token::Text(_))) {
                text.push_str(more);
            }
            Ok(Constant::Text(text))
        }
        Some(Token::Sign('[')) => many(tokens, ']', depth),
        Some(Token::Sign('(')) => many(tokens, ')', depth),
        _ => Err(Unreadable),
    }
}

/// What follows the bracket that opens a list or a tuple.
fn many(tokens: &mut Tokens<'_>, close: char, depth: u8) -> Result<Constant, Unreadable> {
    let mut many = Vec::new();
    let mut commas = 0;
    while tokens.next_if(|token| **token == Token::Sign(close)).is_none() {
        many.push(constant(tokens, depth + 1)?);
        if tokens.next_if(|token| **token == Token::Sign(',')).is_some() {
            commas += 1;
        } else if tokens.peek() != Some(&&Token::Sign(close)) {
            return Err(Unreadable);
        }
    }
    // A thing in round brackets is a tuple by its comma.
    match many.pop() {
        Some(only) if close == ')' && many.is_empty() && commas == 0 => Ok(only),
        last => {
            many.extend(last);
            Ok(Constant::Many(many))
        }
    }
}

/// What follows the first part of a function's name. What it is given is passed over.
fn call(first: &str, tokens: &mut Tokens<'_>) -> Result<Constant, Unreadable> {
    let mut name = first;
    while tokens.next_if(|token| **token == Token::Sign('.')).is_some() {
        let Some(Token::Name(next)) = tokens.next() else { return Err(Unreadable) };
        name = next;
    }
    let mut depth = 0_usize;
    loop {
        match tokens.next() {
            Some(Token::Sign('(')) => depth += 1,
            Some(Token::Sign(')')) if depth == 1 => return Ok(Constant::Call(name.to_owned())),
            Some(Token::Sign(')')) => depth = depth.checked_sub(1).ok_or(Unreadable)?,
            Some(_) if depth > 0 => {}
            _ => return Err(Unreadable),
        }
    }
}

/// The statements of a file, of which one at a time is kept. After the first that is unreadable there are no more.
pub(super) struct Lines<'s> {
    chars: Option<Peekable<Chars<'s>>>,
    indent: usize,
}

/// The statements of a file.
pub(super) fn lines(source: &str) -> Lines<'_> {
    let mut chars = source.strip_prefix('\u{feff}').unwrap_or(source).chars().peekable();
    let indent = indent(&mut chars);
    Lines { chars: Some(chars), indent }
}

impl Iterator for Lines<'_> {
    type Item = Result<Line, Unreadable>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut chars = self.chars.take()?;
        loop {
            let mut line = Line { indent: self.indent, tokens: Vec::new() };
            match statement(&mut line, &mut chars) {
                Err(Unreadable) => return Some(Err(Unreadable)),
                Ok(End::File) => return (!line.tokens.is_empty()).then_some(Ok(line)),
                Ok(End::Line) => self.indent = indent(&mut chars),
                Ok(End::Statement) => {}
            }
            if !line.tokens.is_empty() {
                self.chars = Some(chars);
                return Some(Ok(line));
            }
        }
    }
}

/// What a statement ends with.
enum End {
    Statement,
    Line,
    File,
}

fn statement(line: &mut Line, chars: &mut Peekable<Chars<'_>>) -> Result<End, Unreadable> {
    let mut depth = 0_usize;
    while let Some(char) = chars.next() {
        match char {
            '\n' if depth == 0 => return Ok(End::Line),
            ';' if depth == 0 => return Ok(End::Statement),
            '#' => while chars.next_if(|char| *char != '\n').is_some() {},
            '\\' => {
                chars.next_if_eq(&'\r');
                chars.next_if_eq(&'\n');
            }
            '"' | '\'' => line.push(string(char, "", chars)?),
            _ if char.is_whitespace() => {}
            _ if char == '_' || char.is_alphanumeric() => line.push(name_or_string(char, chars)?),
            _ => {
                match char {
                    '(' | '[' | '{' => depth += 1,
                    ')' | ']' | '}' => depth = depth.checked_sub(1).ok_or(Unreadable)?,
                    _ => {}
                }
                line.push(Token::Sign(char));
            }
        }
    }
    if depth == 0 { Ok(End::File) } else { Err(Unreadable) }
}

/// What begins with a letter: a name, or the prefix of a string.
fn name_or_string(first: char, chars: &mut Peekable<Chars<'_>>) -> Result<Token, Unreadable> {
    let mut name = String::from(first);
    while let Some(more) = chars.next_if(|char| *char == '_' || char.is_alphanumeric()) {
        name.push(more);
    }
    let prefix = name.len() <= 2 && name.chars().all(|char| "rRbBuUfFtT".contains(char));
    match chars.next_if(|char| prefix && matches!(char, '"' | '\'')) {
        Some(quote) => string(quote, &name, chars),
        None => Ok(Token::Name(name)),
    }
}

fn indent(chars: &mut Peekable<Chars<'_>>) -> usize {
    let mut indent = 0;
    while let Some(char) = chars.next_if(|char| matches!(char, ' ' | '\t' | '\u{c}')) {
        indent = if char == '\t' { (indent / 8 + 1) * 8 } else { indent + 1 };
    }
    indent
}

/// What follows the first quotation mark, up to its end.
fn string(quote: char, prefix: &str, chars: &mut Peekable<Chars<'_>>) -> Result<Token, Unreadable> {
    let raw = prefix.contains(['r', 'R']);
    let mut strange = prefix.contains(['b', 'B', 'f', 'F', 't', 'T']);
    let mut quotes = 1;
    while quotes < 3 && chars.next_if_eq(&quote).is_some() {
        quotes += 1;
    }
    let long = match quotes {
        2 => return Ok(if strange { Token::Strange } else { Token::Text(String::new()) }),
        many => many == 3,
    };
    let mut text = String::new();
    let mut ending = 0;
    while let Some(char) = chars.next() {
        if char == quote {
            ending += 1;
            if !long || ending == 3 {
                return Ok(if strange { Token::Strange } else { Token::Text(text) });
            }
            continue;
        }
        text.extend(std::iter::repeat_n(quote, std::mem::take(&mut ending)));
        match char {
            '\n' if !long => return Err(Unreadable),
            '\\' => match chars.next().ok_or(Unreadable)? {
                next if raw => text.extend(['\\', next]),
                '\n' => {}
                next @ ('\\' | '\'' | '"') => text.push(next),
                'n' => text.push('\n'),
                't' => text.push('\t'),
                _ => strange = true,
            },
            _ => text.push(char),
        }
    }
    Err(Unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(source: &str) -> Option<Result<Constant, Unreadable>> {
        lines(source).find_map(|line| line.expect("Python").assigns("x"))
    }

    fn text(text: &str) -> Constant {
        Constant::Text(text.to_owned())
    }

    #[test]
    fn constants_are_read_however_they_are_written() {
        let pairs = Constant::Many(vec![Constant::Many(vec![text("a"), text("0001_i")])]);
        for source in [
            "x = [('a', '0001_i')]",
            "x=[\n    (\"a\", '''0001_i'''),  # the ')' first\n]\n",
            "import y; x: list[tuple[str, str]] = [(u'a', r'0001' '_i',),]",
            "x = \\\n  (['a', '00' \"01_i\"],)",
        ] {
            assert_eq!(given(source), Some(Ok(pairs.clone())), "{source}");
        }
        assert_eq!(given("x: str | None = None"), Some(Ok(Constant::None)));
        assert_eq!(given("x = ('a')"), Some(Ok(text("a"))));
        assert_eq!(given("x = ()"), Some(Ok(Constant::Many(Vec::new()))));
        assert_eq!(given("x = 'it\\'s'"), Some(Ok(text("it's"))));
        let called = Constant::Many(vec![Constant::Call("make".to_owned()), text("a")]);
        assert_eq!(given("x = [y.make(z, (b'', w)), 'a']"), Some(Ok(called)));
    }

    #[test]
    fn what_is_computed_is_not_taken_for_what_is_not_there() {
        for source in [
            "x = y",
            "x = ['a'] + y",
            "x = f'{y}'",
            "x = [b'a']",
            "x = [*y]",
            "x = [y().z, 'a']",
            "x = [y for z in w]",
            "x = ['a', y]",
            "x = y = 'a'",
            "x = 'a' if y else 'b'",
            "x = '\\x41'",
        ] {
            assert_eq!(given(source), Some(Err(Unreadable)), "{source}");
        }
        for source in ["'''x = 1'''", "# x = 'a'", "y(x='a')", "xx = 'a'", "x == 'a'\n"] {
            assert!(!matches!(given(source), Some(Ok(_))), "{source}");
        }
    }

    #[test]
    fn a_file_that_is_no_python_is_unreadable_and_no_more() {
        for source in ["x = '", "x = (", "x = )", "x = '''", "x = '\\"] {
            assert_eq!(lines(source).last().map(Result::err), Some(Some(Unreadable)), "{source}");
        }
        for (open, close) in [("[", "]"), ("(", ")"), ("'a', ", "")] {
            let source = format!("x = [{}{}]", open.repeat(MOST_TOKENS), close.repeat(MOST_TOKENS));
            assert_eq!(given(&source), Some(Err(Unreadable)), "{open}");
        }
    }
}
