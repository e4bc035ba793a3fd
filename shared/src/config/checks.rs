//! `[checks.NAME]`: the tables of checks, each read by its kind's schema and made into a check.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::form::{Partial, Reader, expected, nearest};
use super::node::{Datum, Key, Node, Table, get};
use super::problem::Code;
use super::schema;
use super::tables::Common;
use crate::check::Check;
use crate::checks::KINDS;
use crate::kind::{Kind, Mistake, Refused};
use crate::runner::Named;
use crate::settings::{Secret, Span};

/// A check of a configuration.
#[derive(Clone, Debug)]
pub struct Configured {
    /// The check with its name, for a run.
    pub named: Arc<Named>,
    /// Its kind's word.
    pub kind: &'static str,
    /// What every check may set.
    pub common: Common,
    settings: Secret,
}

impl Configured {
    /// Whether it is the same check, with all that it is set to, as one of another reading.
    pub fn is_the_same_as(&self, other: &Self) -> bool {
        self.named.name == other.named.name
            && self.kind == other.kind
            && self.common == other.common
            && self.settings == other.settings
    }
}

/// Reads the table. A check with a mistake is none.
pub fn read(table: &Table, reader: &mut Reader<'_>) -> Vec<Configured> {
    let mut checks = Vec::new();
    for (key, node) in table {
        if !is_name(&key.name) {
            bad_name(reader, key, "check");
        }
        checks.extend(check(key, node, reader));
    }
    checks
}

/// Whether a check or a subset can have this name.
pub fn is_name(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    name.len() <= 64
        && name.bytes().all(inner)
        && name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
}

pub fn bad_name(reader: &mut Reader<'_>, key: &Key, of: &str) {
    let what = format!(
        "`{}` cannot be the name of a {of}: 64 letters, digits, `_`, `.` and `-` at most, the first a letter or digit",
        key.name.escape_debug()
    );
    reader.found.add(key.at, Code::BadName, what);
}

fn check(key: &Key, node: &Node, reader: &mut Reader<'_>) -> Option<Configured> {
    let name = format!("checks.{}", key.name.escape_debug());
    let Datum::Table(table) = &node.datum else {
        let what = format!("`{name}` must be a table, and is {}", node.datum.word());
        reader.found.add(node.at, Code::WrongType, what);
        return None;
    };
    let Some(kind) = kind(table, key.at, &name, reader) else {
        read_common(table, &name, reader);
        return None;
    };
    let schema = schema::check(kind);
    let mut partial = reader.table(table, key.at, &schema, &name);
    let mut common = Map::new();
    for shared in schema::COMMON["properties"].as_object().into_iter().flat_map(Map::keys) {
        common.extend(partial.value.remove_entry(shared));
    }
    partial.value.remove("type");
    let common = common_of(common, table, &name, reader);
    let settings = Value::from(partial.value.clone()).to_string().into();
    let check = build(kind, partial, &schema, &Written { table, at: key.at, name: &name }, reader)?;
    let Common { timeout: Span(timeout), critical, .. } = common;
    let named = Named { name: key.name.clone(), timeout, critical, check };
    Some(Configured { named: Arc::new(named), kind: kind.name, common, settings })
}

/// The kind that a table is of.
fn kind(table: &Table, at: usize, name: &str, reader: &mut Reader<'_>) -> Option<&'static Kind> {
    let kinds = || KINDS.iter().map(|kind| kind.name);
    let Some(node) = get(table, "type") else {
        let words = json!({ "enum": kinds().collect::<Vec<_>>() });
        reader.found.add(at, Code::MissingKey, format!("`{name}.type` is missing: {}", expected(&words)));
        return None;
    };
    let Datum::Text(word) = &node.datum else {
        let what = format!("`{name}.type` must be a kind of check, and is {}", node.datum.word());
        reader.found.add(node.at, Code::WrongType, what);
        return None;
    };
    let kind = KINDS.iter().find(|kind| kind.name == word);
    if kind.is_none() {
        let near = nearest(word, kinds());
        reader.found.add(node.at, Code::UnknownKind, format!("`{name}.type` is no kind of check; {near}"));
    }
    kind
}

/// What every check may set, of a table whose other keys nobody can judge.
fn read_common(table: &Table, name: &str, reader: &mut Reader<'_>) {
    let known = |key: &Key| schema::COMMON["properties"].get(&key.name).is_some();
    let shared: Table = table.iter().filter(|(key, _)| known(key)).cloned().collect();
    let Partial { value, .. } = reader.table(&shared, 0, &schema::COMMON, name);
    common_of(value, table, name, reader);
}

fn common_of(value: Map<String, Value>, table: &Table, name: &str, reader: &mut Reader<'_>) -> Common {
    // What is left after the schema fits.
    let common: Common = serde_json::from_value(value.into()).unwrap_or_default();
    if common.timeout.0.is_zero() {
        let at = get(table, "timeout").map_or(0, |node| node.at);
        reader.found.add(at, Code::BadDuration, format!("`{name}.timeout`: a timeout is 1ms at least"));
    }
    common
}

/// A check's table, where it stands, and what it is called.
struct Written<'a> {
    table: &'a Table,
    at: usize,
    name: &'a str,
}

/// Makes the check. Where settings are wrong, it is tried without them, to find what else is.
fn build(
    kind: &Kind,
    partial: Partial,
    schema: &Value,
    written: &Written<'_>,
    reader: &mut Reader<'_>,
) -> Option<Arc<dyn Check>> {
    let Partial { mut value, mut wrong } = partial;
    let before = reader.found.len();
    let required =
        |key: &str| schema["required"].as_array().is_some_and(|all| all.iter().any(|name| name == key));
    loop {
        if wrong.iter().any(|key| required(key)) {
            return None;
        }
        match kind.build(value.clone().into()) {
            Ok(check) => return (wrong.is_empty() && reader.found.len() == before).then(|| check.into()),
            Err(Refused::Sense(mistakes)) => {
                let news = mistakes.iter().filter(|mistake| !follows(mistake, &wrong));
                news.for_each(|mistake| tell(mistake, written, reader));
                return None;
            }
            Err(Refused::Form { path, why: _ }) => {
                let key = path.split(['.', '[']).next().unwrap_or_default().to_owned();
                let expected = expected(&schema["properties"][&key]);
                let at = get(written.table, &key).map_or(written.at, |node| node.at);
                let of = if path.is_empty() {
                    written.name.to_owned()
                } else {
                    format!("{}.{path}", written.name)
                };
                let what = format!("`{of}` must be {expected} of the form that its description gives");
                reader.found.add(at, Code::BadValue, what);
                value.remove(&key)?;
                wrong.push(key);
            }
        }
    }
}

/// Whether a mistake may only be the consequence of others: of settings that were left out because they are wrong.
fn follows(mistake: &Mistake, wrong: &[String]) -> bool {
    let named = |key: &String| {
        mistake.what.split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|word| word == key)
    };
    !wrong.is_empty()
        && (mistake.key.is_none() || wrong.iter().any(|key| mistake.key == Some(key) || named(key)))
}

fn tell(mistake: &Mistake, written: &Written<'_>, reader: &mut Reader<'_>) {
    let Written { table, at, name } = written;
    match mistake.key {
        Some(key) => {
            let at = get(table, key).map_or(*at, |node| node.at);
            reader.found.add(at, Code::BadValue, format!("`{name}.{key}`: {}", mistake.what));
        }
        None => reader.found.add(*at, Code::NoSense, format!("`{name}`: {}", mistake.what)),
    }
}
