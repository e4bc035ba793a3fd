//! What `INFO` and its like answer: lines of a name, a colon and a value.

use redis::Value;

use crate::redis::text;

/// Such an answer.
pub struct Info<'a>(&'a str);

impl<'a> Info<'a> {
    /// `None` where it is no text.
    pub fn read(value: &'a Value) -> Option<Self> {
        match value {
            // RESP3 says that it is for people.
            Value::VerbatimString { text, .. } => Some(Self(text)),
            value => text(value).map(Self),
        }
    }

    fn entries(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0.lines().filter_map(|line| line.split_once(':'))
    }

    /// The value of this name.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.entries().find_map(|(found, value)| (found == name).then_some(value))
    }

    /// The same as a number that is not negative.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.parse().ok()
    }

    /// The replicas that follow this server, each by how many seconds ago it was last heard of.
    pub fn replicas(&self) -> impl Iterator<Item = u64> {
        let is_one = |name: &str| {
            let digits = name.strip_prefix("slave").or_else(|| name.strip_prefix("replica"));
            digits
                .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
        };
        self.entries().filter(move |(name, _)| is_one(name)).filter_map(|(_, value)| {
            let part = |wanted: &str| {
                value.split(',').filter_map(|part| part.split_once('=')).find(|(name, _)| *name == wanted)
            };
            let online = part("state")?.1 == "online";
            part("lag")?.1.parse().ok().filter(|_| online)
        })
    }
}
