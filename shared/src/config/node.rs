//! A TOML document as a tree in which every key and value knows where it stands.

use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use super::problem::{Code, Found};

/// A value, and where it begins.
#[derive(Clone, Debug)]
pub struct Node {
    /// The byte of the text. Of a table with a header of its own, its name's in there.
    pub at: usize,
    /// The value.
    pub datum: Datum,
}

/// What a value is.
#[derive(Clone, Debug)]
pub enum Datum {
    Text(String),
    /// None where it does not fit.
    Integer(Option<i64>),
    Float(f64),
    Boolean(bool),
    Date,
    List(Vec<Node>),
    Table(Table),
}

/// Keys with their values, in the order of the text.
pub type Table = Vec<(Key, Node)>;

/// A key, and where it stands.
#[derive(Clone, Debug)]
pub struct Key {
    pub name: String,
    pub at: usize,
}

/// Reads a text. Where it is not TOML, its first error is told: what follows may be its consequence.
pub fn read(text: &str, found: &mut Found) -> Table {
    match DeTable::parse(text) {
        Ok(document) => table(document.into_inner()),
        Err(error) => {
            let at = error.span().map_or(0, |span| span.start);
            // Only the first line: some errors go on with the text.
            let what = error.message().lines().next().unwrap_or_default();
            found.add(at, Code::Syntax, format!("not TOML: {what}"));
            Table::new()
        }
    }
}

fn table(entries: DeTable<'_>) -> Table {
    let entry = |(key, value): (Spanned<_>, Spanned<DeValue<'_>>)| {
        let at = key.span().start;
        let name = key.into_inner();
        let mut node = node(value);
        if matches!(node.datum, Datum::Table(_)) {
            node.at = at;
        }
        (Key { name: String::from(name), at }, node)
    };
    let mut table: Table = entries.into_iter().map(entry).collect();
    table.sort_by_key(|(key, _)| key.at);
    table
}

fn node(value: Spanned<DeValue<'_>>) -> Node {
    let at = value.span().start;
    let datum = match value.into_inner() {
        DeValue::String(text) => Datum::Text(text.into_owned()),
        DeValue::Integer(number) => Datum::Integer(integer(&number)),
        DeValue::Float(number) => Datum::Float(number.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(is) => Datum::Boolean(is),
        DeValue::Datetime(_) => Datum::Date,
        DeValue::Array(list) => Datum::List(list.into_iter().map(node).collect()),
        DeValue::Table(entries) => Datum::Table(table(entries)),
    };
    Node { at, datum }
}

fn integer(number: &DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

impl Datum {
    /// What it is, for a sentence.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Text(_) => "a text",
            Self::Integer(_) => "a whole number",
            Self::Float(_) => "a number with a point",
            Self::Boolean(_) => "true or false",
            Self::Date => "a date",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }

    pub fn table(&self) -> Option<&Table> {
        if let Self::Table(table) = self { Some(table) } else { None }
    }
}

/// The value of a key.
pub fn get<'t>(table: &'t Table, name: &str) -> Option<&'t Node> {
    table.iter().find(|(key, _)| key.name == name).map(|(_, node)| node)
}
