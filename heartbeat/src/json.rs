//! As much JSON (RFC 8259) as a record needs: a writer that allocates nothing, and a strict reader.
//!
//! An embedder pays for nothing that it does not name, so there is no JSON library in the default build;
//! `serde_json` is this file's oracle in the tests.

use std::borrow::Cow;
use std::fmt;

/// How deep a value that the reader passes over may nest.
const MAX_DEPTH: u32 = 16;

/// Where and how a text is not JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Syntax {
    /// The offset, in bytes.
    pub at: usize,
    /// What was expected there, or what is wrong.
    pub what: &'static str,
}

impl fmt::Display for Syntax {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it is not JSON: {} at byte {}", self.what, self.at)
    }
}

impl std::error::Error for Syntax {}

/// Appends a number in decimal digits.
pub fn write_number(line: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0; 20];
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    line.extend_from_slice(&digits[first..]);
}

/// Appends a string in quotes, escaped.
pub fn write_string(line: &mut Vec<u8>, text: &str) {
    line.push(b'"');
    for &byte in text.as_bytes() {
        match byte {
            b'"' | b'\\' => line.extend_from_slice(&[b'\\', byte]),
            0..0x20 => {
                let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble)];
                line.extend_from_slice(&[b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte & 0xf)]);
            }
            _ => line.push(byte),
        }
    }
    line.push(b'"');
}

/// A cursor over one JSON text.
///
/// The typed readers (`number`, `string`) consume a value of any type, and answer `None` where it is of
/// another type, so that the caller can name the field.
pub struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Result<Self, Syntax> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Self { text, at: 0 }),
            Err(error) => Err(Syntax { at: error.valid_up_to(), what: "bytes that are not UTF-8" }),
        }
    }

    fn fail<T>(&self, what: &'static str) -> Result<T, Syntax> {
        Err(Syntax { at: self.at, what })
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn accept(&mut self, byte: u8) -> bool {
        self.space();
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), Syntax> {
        if self.accept(byte) { Ok(()) } else { self.fail(what) }
    }

    /// Only white space may be left.
    pub fn end(&mut self) -> Result<(), Syntax> {
        self.space();
        if self.at == self.text.len() { Ok(()) } else { self.fail("text after its end") }
    }

    pub fn at_object(&mut self) -> bool {
        self.space();
        self.peek() == Some(b'{')
    }

    pub fn at_array(&mut self) -> bool {
        self.space();
        self.peek() == Some(b'[')
    }

    /// Reads an object; `member` must read exactly the one value that belongs to the key.
    pub fn object<E: From<Syntax>>(
        &mut self,
        mut member: impl FnMut(&mut Self, &str) -> Result<(), E>,
    ) -> Result<(), E> {
        self.expect(b'{', "no object")?;
        if self.accept(b'}') {
            return Ok(());
        }
        loop {
            self.space();
            let key = self.quoted()?;
            self.expect(b':', "no colon")?;
            member(self, &key)?;
            if !self.accept(b',') {
                return Ok(self.expect(b'}', "no comma or closing brace")?);
            }
        }
    }

    /// Reads an array; `element` must read exactly one value.
    pub fn array<E: From<Syntax>>(
        &mut self,
        mut element: impl FnMut(&mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        self.expect(b'[', "no array")?;
        if self.accept(b']') {
            return Ok(());
        }
        loop {
            element(self)?;
            if !self.accept(b',') {
                return Ok(self.expect(b']', "no comma or closing bracket")?);
            }
        }
    }

    /// Reads a value; `None` where it is anything but a whole number from 0 to `u64::MAX` in plain digits.
    pub fn number(&mut self) -> Result<Option<u64>, Syntax> {
        self.space();
        let start = self.at;
        let bytes = &self.text.as_bytes()[start..];
        // Up to 19 digits cannot overflow; and what follows them here is no part of a number.
        let (mut number, mut plain) = (0, 0);
        while let Some(digit @ b'0'..=b'9') = bytes.get(plain).filter(|_| plain < 19) {
            number = number * 10 + u64::from(digit - b'0');
            plain += 1;
        }
        let ends = matches!(bytes.get(plain), Some(b',' | b'}' | b']'));
        if ends && matches!(bytes[..plain], [b'0'] | [b'1'..=b'9', ..]) {
            self.at += plain;
            return Ok(Some(number));
        }
        self.skip()?;
        let text = &self.text[start..self.at];
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        Ok(if digits { text.parse().ok() } else { None })
    }

    /// Reads a value; `None` where it is no string.
    pub fn string(&mut self) -> Result<Option<Cow<'a, str>>, Syntax> {
        self.space();
        if self.peek() == Some(b'"') {
            return self.quoted().map(Some);
        }
        self.skip()?;
        Ok(None)
    }

    /// Passes over one value of any type.
    pub fn skip(&mut self) -> Result<(), Syntax> {
        self.skip_nested(MAX_DEPTH)
    }

    fn skip_nested(&mut self, depth: u32) -> Result<(), Syntax> {
        if depth == 0 {
            return self.fail("too many levels");
        }
        self.space();
        match self.peek() {
            Some(b'{') => self.object(|reader, _| reader.skip_nested(depth - 1)),
            Some(b'[') => self.array(|reader| reader.skip_nested(depth - 1)),
            Some(b'"') => self.quoted().map(|_| ()),
            Some(b't') => self.word("true"),
            Some(b'f') => self.word("false"),
            Some(b'n') => self.word("null"),
            Some(b'-' | b'0'..=b'9') => self.skip_number(),
            _ => self.fail("no value"),
        }
    }

    fn word(&mut self, word: &str) -> Result<(), Syntax> {
        if !self.text[self.at..].starts_with(word) {
            return self.fail("no value");
        }
        self.at += word.len();
        Ok(())
    }

    fn skip_number(&mut self) -> Result<(), Syntax> {
        self.at += usize::from(self.peek() == Some(b'-'));
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Syntax> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at == start { self.fail("no digit") } else { Ok(()) }
    }

    fn quoted(&mut self) -> Result<Cow<'a, str>, Syntax> {
        if self.peek() != Some(b'"') {
            return self.fail("no string");
        }
        self.at += 1;
        let text = self.plain();
        if self.peek() == Some(b'"') {
            self.at += 1;
            return Ok(Cow::Borrowed(text));
        }
        self.rest_of_quoted(text.to_owned()).map(Cow::Owned)
    }

    fn rest_of_quoted(&mut self, mut text: String) -> Result<String, Syntax> {
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(text);
                }
                Some(b'\\') => text.push(self.escape()?),
                Some(_) => return self.fail("a bare control character"),
                None => return self.fail("no closing quote"),
            }
            text.push_str(self.plain());
        }
    }

    /// What stands here before the next byte that means something in a string.
    fn plain(&mut self) -> &'a str {
        let start = self.at;
        self.at += plain(&self.text.as_bytes()[start..]);
        // Both ends are beside ASCII bytes, so the slice is whole characters.
        &self.text[start..self.at]
    }

    fn escape(&mut self) -> Result<char, Syntax> {
        self.at += 1;
        let escape = self.peek();
        self.at += 1;
        Ok(match escape {
            Some(byte @ (b'"' | b'\\' | b'/')) => char::from(byte),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode(),
            _ => {
                self.at -= 1;
                return self.fail("an unknown escape");
            }
        })
    }

    fn unicode(&mut self) -> Result<char, Syntax> {
        let high = self.hex()?;
        let code = match high {
            0xd800..0xdc00 => {
                if !self.text[self.at..].starts_with("\\u") {
                    return self.fail("half a surrogate pair");
                }
                self.at += 2;
                let low = self.hex()?;
                if !(0xdc00..0xe000).contains(&low) {
                    return self.fail("half a surrogate pair");
                }
                0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00)
            }
            _ => high,
        };
        char::from_u32(code).map_or_else(|| self.fail("half a surrogate pair"), Ok)
    }

    fn hex(&mut self) -> Result<u32, Syntax> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4);
        let Some(digits) = digits.filter(|digits| digits.iter().all(u8::is_ascii_hexdigit)) else {
            return self.fail("no four hexadecimal digits");
        };
        let value = digits
            .iter()
            .fold(0, |value, digit| value * 16 + char::from(*digit).to_digit(16).unwrap_or_default());
        self.at += 4;
        Ok(value)
    }
}

/// How many bytes there are before the first quote, backslash or control character: eight at a time, because half of a
/// record is names.
fn plain(bytes: &[u8]) -> usize {
    let (words, rest) = bytes.as_chunks();
    for (index, word) in words.iter().enumerate() {
        let ends = ends(u64::from_le_bytes(*word));
        if ends != 0 {
            return index * 8 + ends.trailing_zeros() as usize / 8;
        }
    }
    let whole = bytes.len() - rest.len();
    whole + rest.iter().take_while(|byte| !matches!(byte, 0..0x20 | b'"' | b'\\')).count()
}

/// The highest bit of each byte that is a quote, a backslash or a control character. Behind the first of them others may
/// be marked too: what is borrowed in the subtraction comes from there.
fn ends(word: u64) -> u64 {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    let below = |word: u64, least: u8| word.wrapping_sub(ONES * u64::from(least)) & !word;
    let is = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    (below(word, 0x20) | is(b'"') | is(b'\\')) & (ONES << 7)
}

#[cfg(test)]
mod tests;
