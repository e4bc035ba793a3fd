//! Signed records: what proves that a record in Redis was written by somebody who has the key.
//!
//! The signature is the record's last two members: `"signed_ms"`, the server's own clock, and `"mac"`, over all bytes before it. The
//! record's id and its cluster are among them, so one that is copied to another worker's key is not that worker's; and so is the time, so
//! one that is sent again after its worker's end does not count for long. Who has no key reads past both, as past every field that
//! it does not know.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::str::FromStr;

use ring::hmac::{self, HMAC_SHA256};

use crate::record::{Corrupt, MAX_BYTES};

/// What stands before every signed record, so that no other use of the same key signs one.
const CONTEXT: &[u8] = b"heartbeat record 1\n";

const TIME: &[u8] = b",\"signed_ms\":";
const BEFORE: &[u8] = b",\"mac\":\"";
const AFTER: &[u8] = b"\"}\n";
const DIGITS: usize = 64;
/// Of a time in milliseconds, until 2286.
const TIME_DIGITS: usize = 13;

/// What a signature adds to a record, in bytes: its end, `}` and a newline, is there already.
pub(crate) const MORE_BYTES: usize =
    TIME.len() + TIME_DIGITS + BEFORE.len() + DIGITS + AFTER.len() - END.len();
const END: &[u8] = b"}\n";

/// The fewest characters of a key: 128 bits as hexadecimal digits.
const LEAST: usize = 32;
const MOST: usize = 1024;
const MOST_KEYS: usize = 2;

/// The key that records in Redis are signed with, or two while one takes the place of the other: the first signs, and
/// both are accepted. A secret of all workers, agents and checkers of a cluster; shows nothing of itself.
///
/// ```
/// use heartbeat::fleet::SigningKeys;
///
/// let one: SigningKeys = "b8f0fd7e6b6e4a5f9f5d9e0f43c2a1d7".parse()?;
/// let two: SigningKeys = "the-new-one-of-32-characters-or-more b8f0fd7e6b6e4a5f9f5d9e0f43c2a1d7".parse()?;
/// assert_eq!(format!("{one:?}, {two:?}"), "SigningKeys(…), SigningKeys(…)");
/// # Ok::<(), heartbeat::fleet::InvalidKey>(())
/// ```
#[derive(Clone)]
pub struct SigningKeys(Vec<hmac::Key>);

impl fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKeys(…)")
    }
}

/// What is wrong with a key. Holds and shows nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidKey {
    /// There is none.
    None,
    /// One is shorter than 32 characters, or longer than 1,024.
    Length,
    /// There are more than two.
    TooMany,
    /// It is not printable ASCII.
    NotText,
    /// Its file cannot be read.
    Unreadable(io::ErrorKind),
}

impl fmt::Display for InvalidKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("it is empty"),
            Self::Length => write!(f, "a key has {LEAST} characters at least, and {MOST} at most"),
            Self::TooMany => {
                write!(f, "there are {MOST_KEYS} keys at most: the one that signs, and one that was")
            }
            Self::NotText => f.write_str("a key is printable ASCII, as base64 or hexadecimal digits"),
            Self::Unreadable(kind) => write!(f, "it cannot be read: {kind}"),
        }
    }
}

impl std::error::Error for InvalidKey {}

/// One key, or two with white space between them.
impl FromStr for SigningKeys {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let mut keys = Vec::new();
        for key in text.split_ascii_whitespace() {
            if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(InvalidKey::NotText);
            }
            if !(LEAST..=MOST).contains(&key.len()) {
                return Err(InvalidKey::Length);
            }
            keys.push(hmac::Key::new(HMAC_SHA256, key.as_bytes()));
        }
        match keys.len() {
            0 => Err(InvalidKey::None),
            1..=MOST_KEYS => Ok(Self(keys)),
            _ => Err(InvalidKey::TooMany),
        }
    }
}

impl SigningKeys {
    /// What a file holds, as a key is written in the environment.
    pub fn from_file(path: &Path) -> Result<Self, InvalidKey> {
        let mut text = String::new();
        let most = (MOST_KEYS + 1) * (MOST + 1);
        let read = File::open(path)
            .and_then(|file| file.take(u64::try_from(most).unwrap_or(u64::MAX)).read_to_string(&mut text));
        match read {
            Ok(_) => text.parse(),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(InvalidKey::NotText),
            Err(error) => Err(InvalidKey::Unreadable(error.kind())),
        }
    }

    /// The record's line with its signature, as of this moment of the server's clock; `None` where it would be too long with it, or
    /// is no record's line.
    pub(crate) fn sign(&self, line: &[u8], now_ms: u64) -> Option<Vec<u8>> {
        let mut signed = Vec::with_capacity(line.len() + MORE_BYTES);
        signed.extend_from_slice(line.strip_suffix(END)?);
        signed.extend_from_slice(TIME);
        signed.extend_from_slice(now_ms.to_string().as_bytes());
        let mac = hmac::sign(self.0.first()?, &message(&signed));
        signed.extend_from_slice(BEFORE);
        for byte in mac.as_ref() {
            signed.extend([byte >> 4, byte & 0xf].map(|digit| b"0123456789abcdef"[usize::from(digit)]));
        }
        signed.extend_from_slice(AFTER);
        (signed.len() <= MAX_BYTES).then_some(signed)
    }

    /// When this line was signed with one of the keys, by the server's clock. The comparison takes as long wherever the two differ.
    pub(crate) fn verify(&self, line: &[u8]) -> Result<u64, Corrupt> {
        let rest = line.strip_suffix(AFTER).ok_or(Corrupt::Unsigned)?;
        let (rest, digits) = rest.split_at(rest.len().checked_sub(DIGITS).ok_or(Corrupt::Unsigned)?);
        let signed = rest.strip_suffix(BEFORE).ok_or(Corrupt::Unsigned)?;
        let mac = bytes(digits).ok_or(Corrupt::Signature)?;
        let message = message(signed);
        let right = self.0.iter().any(|key| hmac::verify(key, &message, &mac).is_ok());
        if right { moment(signed).ok_or(Corrupt::Signature) } else { Err(Corrupt::Signature) }
    }
}

fn message(signed: &[u8]) -> Vec<u8> {
    [CONTEXT, signed].concat()
}

/// The time that what was signed ends with.
fn moment(signed: &[u8]) -> Option<u64> {
    let digits = signed.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let (before, digits) = signed.split_at(signed.len() - digits);
    if !before.ends_with(TIME) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Lower-case hexadecimal digits as the bytes that they stand for.
fn bytes(digits: &[u8]) -> Option<Vec<u8>> {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    digits.chunks_exact(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}
