//! What an answer must be.

use std::borrow::Cow;

use regex::bytes::{Regex, RegexBuilder};
use reqwest::Response;
use reqwest::header::{HeaderName, HeaderValue};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize, Serializer};

use super::Http;
use crate::check::Failure;
use crate::kind::Mistake;

/// Statuses, as ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statuses(Vec<(u16, u16)>);

impl Statuses {
    /// Those that say so.
    pub fn success() -> Self {
        Self(vec![(200, 299)])
    }

    /// Whether none is among them.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn contain(&self, status: u16) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&status))
    }
}

/// A number, or a range such as `200-299`.
#[derive(Deserialize)]
#[serde(untagged)]
enum One {
    Number(u16),
    Range(String),
}

impl One {
    fn range(&self) -> Option<(u16, u16)> {
        let (first, last) = match self {
            Self::Number(status) => (*status, *status),
            Self::Range(text) => {
                let (first, last) = text.split_once('-')?;
                (first.parse().ok()?, last.parse().ok()?)
            }
        };
        (100 <= first && first <= last && last <= 599).then_some((first, last))
    }
}

impl<'de> Deserialize<'de> for Statuses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wrong =
            || D::Error::custom("a status is a number from 100 to 599, or a range such as \"200-299\"");
        let list = Vec::<One>::deserialize(deserializer)?;
        list.iter().map(|one| one.range().ok_or_else(wrong)).collect::<Result<_, _>>().map(Self)
    }
}

/// As it would be written.
impl Serialize for Statuses {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|(first, last)| format!("{first}-{last}")))
    }
}

impl JsonSchema for Statuses {
    fn schema_name() -> Cow<'static, str> {
        "Statuses".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "array",
            "items": {
                "anyOf": [
                    { "type": "integer", "minimum": 100, "maximum": 599 },
                    { "type": "string", "pattern": "^[1-5][0-9]{2}-[1-5][0-9]{2}$" },
                ]
            }
        })
    }
}

/// The settings' words for it, made ready.
#[derive(Debug)]
pub struct Expected {
    statuses: Statuses,
    headers: Vec<(HeaderName, HeaderValue)>,
    contains: Option<Regex>,
    matches: Option<Regex>,
}

impl Expected {
    /// What these settings expect, or what is wrong with them.
    pub fn of(settings: &Http) -> Result<Self, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        // A pattern may not take more memory than this, however it is written.
        let compile = |pattern: &str| RegexBuilder::new(pattern).size_limit(1 << 20).build();
        let matches = settings.matches.as_deref().map(compile).transpose();
        if matches.is_err() {
            mistakes.push(Mistake::of("matches", "not a regular expression, or too large a one"));
        }
        let contains = settings.contains.as_deref().map(|text| compile(&regex::escape(text))).transpose();
        if contains.is_err() {
            mistakes.push(Mistake::of("contains", "too long a text"));
        }
        let mut headers = Vec::new();
        for (name, value) in &settings.expect_headers {
            match (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                (Ok(name), Ok(value)) => headers.push((name, value)),
                _ => mistakes.push(Mistake::of("expect_headers", "no header can be so")),
            }
        }
        let (Ok(contains), Ok(matches), true) = (contains, matches, mistakes.is_empty()) else {
            return Err(mistakes);
        };
        Ok(Self { statuses: settings.status.clone(), headers, contains, matches })
    }

    /// Judges what comes before the body.
    pub fn head(&self, answer: &Response) -> Result<(), Failure> {
        let status = answer.status().as_u16();
        if !self.statuses.contain(status) {
            return Err(Failure::failed(format!("the status is {status}")));
        }
        for (name, value) in &self.headers {
            if !answer.headers().get_all(name).iter().any(|has| has == value) {
                return Err(Failure::failed(format!("the header {name} is missing or another")));
            }
        }
        Ok(())
    }

    /// Whether the body is judged.
    pub fn needs_body(&self) -> bool {
        self.contains.is_some() || self.matches.is_some()
    }

    /// Judges the body.
    pub fn body(&self, body: &[u8]) -> Result<(), Failure> {
        if self.contains.as_ref().is_some_and(|text| !text.is_match(body)) {
            return Err(Failure::failed("the body does not contain what it should"));
        }
        if self.matches.as_ref().is_some_and(|pattern| !pattern.is_match(body)) {
            return Err(Failure::failed("the body does not match what it should"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_numbers_and_ranges() {
        let statuses: Statuses = serde_json::from_str(r#"[204, "300-399"]"#).unwrap();
        let passing: Vec<u16> =
            [203, 204, 205, 299, 300, 399, 400].into_iter().filter(|n| statuses.contain(*n)).collect();
        assert_eq!(passing, [204, 300, 399]);
        for wrong in ["[99]", "[600]", r#"["299-200"]"#, r#"["2xx"]"#, "200", "[-1]"] {
            serde_json::from_str::<Statuses>(wrong).expect_err(wrong);
        }
    }

    #[test]
    fn a_body_of_any_bytes_is_searched() {
        let expected = |json: &str| Expected::of(&serde_json::from_str(json).unwrap()).unwrap();
        let contains = expected(r#"{"url": "http://a", "contains": "é"}"#);
        contains.body("\u{0}é".as_bytes()).unwrap();
        contains.body(b"\xff").unwrap_err();
        contains.body(b"").unwrap_err();
        let matches = expected(r#"{"url": "http://a", "matches": "^ok [0-9]+$"}"#);
        matches.body(b"ok 17").unwrap();
        matches.body(b"\xffok 17").unwrap_err();
    }
}
