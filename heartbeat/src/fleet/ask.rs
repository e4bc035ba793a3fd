//! What is asked of a server, packed for its way, and what the server says to it.

use std::fmt;

use redis::{Cmd, ServerError, ServerErrorKind, Value, cmd};

use super::error::{Error, ErrorKind, Printable};
use super::url::Host;

/// A Lua script and its SHA-1.
pub struct Script {
    code: &'static str,
    hash: String,
    once: bool,
}

impl Script {
    pub fn new(code: &'static str) -> Self {
        Self { code, hash: redis::Script::new(code).get_hash().to_owned(), once: false }
    }

    /// Always sent whole: for what is asked once, and perhaps without a chance to hear that it is not known.
    pub fn once(code: &'static str) -> Self {
        Self { once: true, ..Self::new(code) }
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Script({})", self.hash)
    }
}

/// One thing to ask: a command, or a script with its keys and arguments.
pub enum Ask<'a> {
    Command(Cmd),
    Script { script: &'a Script, keys: Vec<Vec<u8>>, arguments: Vec<Vec<u8>> },
}

/// How scripts are sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// By their hashes, which the server knows.
    Known,
    /// Whole, each the first time: the server knows it from then on.
    New,
}

impl Ask<'_> {
    fn script(&self) -> Option<&Script> {
        match self {
            Self::Command(_) => None,
            Self::Script { script, .. } => Some(script),
        }
    }

    fn pack(&self, whole: bool, bytes: &mut Vec<u8>) {
        match self {
            Self::Command(command) => command.write_packed_command(bytes),
            Self::Script { script, keys, arguments } => {
                let whole = whole || script.once;
                let mut command = if whole { cmd("EVAL") } else { cmd("EVALSHA") };
                if whole {
                    command.arg(script.code);
                } else {
                    command.arg(script.hash.as_str());
                }
                command.arg(keys.len());
                for argument in keys.iter().chain(arguments) {
                    command.arg(argument.as_slice());
                }
                command.write_packed_command(bytes);
            }
        }
    }
}

/// Questions on their way, one after another, and where each ends.
#[derive(Default)]
pub struct Packed {
    pub bytes: Vec<u8>,
    pub ends: Vec<usize>,
}

/// Packs one question after another.
pub fn pack_all<'a>(questions: impl IntoIterator<Item = &'a Ask<'a>>, sent: Sent) -> Packed {
    let mut packed = Packed::default();
    let mut told: Vec<&str> = Vec::new();
    for question in questions {
        let hash = question.script().map(|script| script.hash.as_str());
        let new = hash.is_some_and(|hash| sent == Sent::New && !told.contains(&hash));
        told.extend(hash.filter(|_| new));
        question.pack(new, &mut packed.bytes);
        packed.ends.push(packed.bytes.len());
    }
    packed
}

/// What a server said to one question.
pub type Answer = Result<Value, Refusal>;

/// An error that a server answered with.
#[derive(Clone, Debug)]
pub struct Refusal {
    pub code: String,
    details: String,
    kind: Option<ServerErrorKind>,
}

impl Refusal {
    pub fn of(error: &ServerError) -> Self {
        Self {
            code: error.code().to_owned(),
            details: error.details().unwrap_or_default().to_owned(),
            kind: error.kind(),
        }
    }

    /// As an error that came from `place`.
    pub fn at(&self, place: &str) -> Error {
        // Where in a script it happened is for nobody.
        let details = match self.details.rsplit_once(" script: ") {
            Some((details, place)) if place.contains("on @user_script") => details,
            _ => &self.details,
        };
        // Of a denial within a script the code says nothing; the words are those of Redis 7.0, and of Valkey.
        let denied = matches!(self.code.as_str(), "NOPERM" | "NOAUTH" | "WRONGPASS")
            || details.starts_with("The user executing the script can't")
            || details.starts_with("ACL failure in script");
        let kind = if denied { ErrorKind::Denied } else { ErrorKind::Server };
        let text = Printable(details);
        let hint = match self.kind {
            Some(ServerErrorKind::Moved) => " (a Redis Cluster: its URL is redis+cluster://)",
            _ => "",
        };
        let text = format!("{place}: {} {text}{hint}", Printable(&self.code));
        Error::new(kind, text).with_code(&self.code)
    }

    /// Whether the server does not know a script by its hash.
    pub fn is_of_no_script(&self) -> bool {
        self.kind == Some(ServerErrorKind::NoScript)
    }

    /// Whether the keys are on another node.
    pub fn is_moved(&self) -> bool {
        self.kind == Some(ServerErrorKind::Moved)
    }

    /// Whether the keys may be on another node already.
    pub fn is_asked_aside(&self) -> bool {
        self.kind == Some(ServerErrorKind::Ask)
    }

    /// Whether another node is the one to ask now, or this one once it is connected to anew.
    pub fn is_stale(&self) -> bool {
        matches!(self.kind, Some(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown))
            || matches!(self.code.as_str(), "NOAUTH")
    }

    /// Where a MOVED or ASK points to; a nameless host is the one that said so.
    pub fn target(&self, from: Option<&Host>) -> Option<Host> {
        let (_, address) = self.details.split_once(' ')?;
        let (name, port) = address.rsplit_once(':')?;
        let name = if name.is_empty() { &from?.name } else { name };
        if name == "?" {
            return None;
        }
        Some(Host { name: name.trim_matches(['[', ']']).to_owned(), port: port.parse().ok()? })
    }
}

/// A string in an answer.
pub fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        Value::Okay => Some("OK"),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
