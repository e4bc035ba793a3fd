//! Reads a value by the JSON Schema that describes it, and tells everything in which it differs, each thing at its place.
//!
//! Placeholders and secret files are filled in on the way, because it is the schema that says where a text stands. What is
//! told is made of the schema's words and of keys; never of values, any of which may be a secret.

use std::cell::RefCell;

use serde_json::{Map, Number, Value};

use super::credentials;
use super::node::{Datum, Node, Table, get};
use super::problem::{Code, Found};
use super::surroundings::{Surroundings, has_placeholder};
use crate::settings::{SHAPE, Secret, Shape, WORD};

/// The most known names that are listed where none is near.
const MOST_LISTED: usize = 12;

/// What a reading works with and collects.
pub struct Reader<'a> {
    pub surroundings: Surroundings<'a>,
    pub found: Found,
    /// Every secret that was read, and the credentials of every URL.
    pub secrets: Vec<Secret>,
}

/// A table that was read as far as it is right.
pub struct Partial {
    /// What is right.
    pub value: Map<String, Value>,
    /// The keys that stand there and are wrong, or that are missing.
    pub wrong: Vec<String>,
}

impl Reader<'_> {
    /// The table as its schema describes it. `name` is what the table is called in what is told.
    pub fn table(&mut self, table: &Table, at: usize, schema: &Value, name: &str) -> Partial {
        let mut partial = Partial { value: Map::new(), wrong: Vec::new() };
        let known: Vec<&str> =
            schema["properties"].as_object().into_iter().flat_map(Map::keys).map(String::as_str).collect();
        for (key, node) in table {
            let path = join(name, &key.name);
            let inner = match schema["properties"].get(&key.name) {
                Some(inner) => inner,
                None if schema["additionalProperties"] == false => {
                    let near = nearest(&key.name, known.iter().copied());
                    self.found.add(key.at, Code::UnknownKey, format!("`{path}` is no known key; {near}"));
                    continue;
                }
                None => &schema["additionalProperties"],
            };
            match self.value(node, inner, &path) {
                Some(value) => {
                    if is_word(inner) && credentials::is_named(&key.name) {
                        self.keep(value.as_str().unwrap_or_default());
                    }
                    partial.value.insert(key.name.clone(), value);
                }
                None => partial.wrong.push(key.name.clone()),
            }
        }
        for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if get(table, required).is_none() {
                let path = join(name, required);
                let expected = expected(&schema["properties"][required]);
                self.found.add(at, Code::MissingKey, format!("`{path}` is missing: {expected}"));
                partial.wrong.push(required.to_owned());
            }
        }
        partial
    }

    /// The value as its schema describes it; nothing where something is wrong with it, which has been told.
    pub fn value(&mut self, node: &Node, schema: &Value, name: &str) -> Option<Value> {
        if let Some([only]) = schema["allOf"].as_array().map(Vec::as_slice) {
            return self.value(node, only, name);
        }
        if words(schema).is_some() {
            return self.text(node, schema, name).map(Value::from);
        }
        if let Some(branches) = schema["anyOf"].as_array().or(schema["oneOf"].as_array()) {
            return self.one_of(node, branches, schema, name);
        }
        let types = types(schema);
        let is = |word: &str| types.is_empty() || types.contains(&word);
        match &node.datum {
            Datum::Table(table) if is("object") => {
                let before = self.found.len();
                let partial = self.table(table, node.at, schema, name);
                (self.found.len() == before).then_some(Value::Object(partial.value))
            }
            Datum::Table(table) if is("string") && secret_file(table).is_some() => {
                self.text(node, schema, name).map(Value::from)
            }
            Datum::List(list) if is("array") => self.list(list, node.at, schema, name),
            Datum::Text(_) if is("string") => self.text(node, schema, name).map(Value::from),
            Datum::Text(text) if has_placeholder(text) => self.filled(node, text, schema, name),
            Datum::Boolean(value) if is("boolean") => Some(Value::from(*value)),
            Datum::Integer(number) if is("integer") || is("number") => {
                self.number(node, number.map(Number::from), schema, name)
            }
            Datum::Float(number) if is("number") => {
                self.number(node, Number::from_f64(*number), schema, name)
            }
            _ => self.wrong_type(node, schema, name),
        }
    }

    /// The first branch that the value is right for; else what is wrong with it as the one that it looks like.
    fn one_of(&mut self, node: &Node, branches: &[Value], whole: &Value, name: &str) -> Option<Value> {
        let mut looks_like = None;
        for branch in branches.iter().filter(|branch| branch["type"] != "null") {
            let mut trial =
                Reader { surroundings: self.surroundings, found: Found::default(), secrets: Vec::new() };
            let value = trial.value(node, branch, name);
            if value.is_some() {
                self.secrets.append(&mut trial.secrets);
                return value;
            }
            if !trial.found.is_only(Code::WrongType, node.at) {
                looks_like.get_or_insert(trial.found);
            }
        }
        if let Some(found) = looks_like {
            self.found.append(found);
            return None;
        }
        self.wrong_type(node, whole, name)
    }

    fn list(&mut self, list: &[Node], at: usize, schema: &Value, name: &str) -> Option<Value> {
        let before = self.found.len();
        let item =
            |(number, node): (usize, &Node)| self.value(node, &schema["items"], &format!("{name}[{number}]"));
        let values: Vec<_> = list.iter().enumerate().filter_map(item).collect();
        let most =
            schema["maxItems"].as_u64().and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
        let least = schema["minItems"].as_u64().and_then(|least| usize::try_from(least).ok()).unwrap_or(0);
        if list.len() < least || list.len() > most {
            let most = if most == usize::MAX { String::new() } else { format!(" and {most} at most") };
            self.found.add(at, Code::BadValue, format!("`{name}` must have {least} entries at least{most}"));
        }
        (self.found.len() == before).then_some(Value::Array(values))
    }

    /// A text as it is meant: from a file, or with its placeholders filled in, and held to its schema.
    fn text(&mut self, node: &Node, schema: &Value, name: &str) -> Option<String> {
        let text = self.raw(node, schema, name)?;
        if let Some(shape) = shape(schema) {
            self.keep_secret(shape, is_word(schema), &text);
            if let Datum::Text(written) = &node.datum
                && is_word(schema)
            {
                self.keep_variables(written);
            }
            if let Some(why) = shape.refuses(&text) {
                self.found.add(node.at, code(shape), format!("`{name}`: {why}"));
                return None;
            }
        }
        if let Some(words) = words(schema).filter(|words| !words.contains(&&*text)) {
            let choices = listed(&words);
            let near = near(&text, words.iter().copied()).filter(|_| !has_placeholder(&text));
            let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            self.found.add(node.at, Code::BadValue, format!("`{name}` must be one of {choices}{near}"));
            return None;
        }
        let length = u64::try_from(text.chars().count()).unwrap_or(u64::MAX);
        let least = schema["minLength"].as_u64().unwrap_or(0);
        let most = schema["maxLength"].as_u64().unwrap_or(u64::MAX);
        if length < least || length > most {
            let what = match least {
                1 if length == 0 => format!("`{name}` must not be empty"),
                _ => format!(
                    "`{name}` must be {}",
                    range("a text of", Some(least), (most < u64::MAX).then_some(most), "characters")
                ),
            };
            self.found.add(node.at, Code::BadValue, what);
            return None;
        }
        Some(text)
    }

    fn raw(&mut self, node: &Node, schema: &Value, name: &str) -> Option<String> {
        match &node.datum {
            Datum::Text(text) => self.fill(node.at, text),
            Datum::Table(table) => {
                let Some((at, path)) = secret_file(table) else { return self.wrong_type(node, schema, name) };
                let path = self.fill(at, path)?;
                let secret = self.surroundings.secret(&path);
                let told =
                    secret.map_err(|why| self.found.add(at, Code::BadSecretFile, format!("`{name}`: {why}")));
                let text = told.ok()?;
                self.keep(&text);
                Some(text)
            }
            _ => self.wrong_type(node, schema, name),
        }
    }

    fn wrong_type<T>(&mut self, node: &Node, schema: &Value, name: &str) -> Option<T> {
        let what = format!("`{name}` must be {}, and is {}", expected(schema), node.datum.word());
        self.found.add(node.at, Code::WrongType, what);
        None
    }

    fn fill(&mut self, at: usize, text: &str) -> Option<String> {
        let filled = self.surroundings.fill(text);
        filled.map_err(|wrong| wrong.into_iter().for_each(|(code, what)| self.found.add(at, code, what))).ok()
    }

    /// A number or a truth value that comes out of the environment, which knows texts only.
    fn filled(&mut self, node: &Node, text: &str, schema: &Value, name: &str) -> Option<Value> {
        let filled = self.fill(node.at, text)?;
        let datum = match filled.trim() {
            "true" => Datum::Boolean(true),
            "false" => Datum::Boolean(false),
            number => match (number.parse(), number.parse()) {
                (Ok(whole), _) => Datum::Integer(Some(whole)),
                (_, Ok(float)) => Datum::Float(float),
                _ => {
                    let what = format!(
                        "`{name}` must be {}, and the environment makes it something else",
                        expected(schema)
                    );
                    self.found.add(node.at, Code::BadValue, what);
                    return None;
                }
            },
        };
        self.value(&Node { at: node.at, datum }, schema, name)
    }

    fn number(&mut self, node: &Node, number: Option<Number>, schema: &Value, name: &str) -> Option<Value> {
        let (least, most) = bounds(schema);
        let fits = |number: &Number| {
            let value = number.as_f64().unwrap_or(f64::NAN);
            least.is_none_or(|least| value >= least) && most.is_none_or(|most| value <= most)
        };
        let number = number.filter(fits);
        if number.is_none() {
            self.found.add(node.at, Code::BadValue, format!("`{name}` must be {}", expected(schema)));
        }
        number.map(Value::Number)
    }

    fn keep_secret(&mut self, shape: Shape, is_word: bool, text: &str) {
        if !matches!(shape, Shape::Secret | Shape::Url) {
            return;
        }
        let credentials = credentials::of_urls(text);
        // Of a URL without credentials everybody may read.
        let is_secret = !credentials::is_url(text) || !credentials.is_empty();
        if shape == Shape::Secret && !is_word && is_secret {
            self.keep(text);
        }
        for credential in &credentials {
            self.keep(credential);
        }
    }

    /// Keeps what each variable of a text stands for.
    fn keep_variables(&mut self, text: &str) {
        let values = RefCell::new(Vec::new());
        let variable = |name: &str| {
            let value = (self.surroundings.variable)(name);
            values.borrow_mut().extend(value.clone().and_then(Result::ok));
            value
        };
        // What is wrong with it was told when the text was read.
        drop(Surroundings { variable: &variable, ..self.surroundings }.fill(text));
        for value in values.into_inner() {
            self.keep(&value);
        }
    }

    pub fn keep(&mut self, secret: &str) {
        if !secret.is_empty() {
            self.secrets.push(secret.to_owned().into());
        }
    }
}

/// The path of `{ file = "…" }`, and where it stands.
fn secret_file(table: &Table) -> Option<(usize, &str)> {
    match &table[..] {
        [(key, Node { at, datum: Datum::Text(path) })] if key.name == "file" => Some((*at, path)),
        _ => None,
    }
}

fn join(name: &str, key: &str) -> String {
    let plain = !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-'));
    let key = if plain { key.to_owned() } else { format!("{key:?}") };
    if name.is_empty() { key } else { format!("{name}.{key}") }
}

fn code(shape: Shape) -> Code {
    match shape {
        Shape::Duration => Code::BadDuration,
        Shape::Url => Code::BadUrl,
        Shape::Network => Code::BadNetwork,
        Shape::Listen | Shape::Secret | Shape::Size => Code::BadValue,
    }
}

/// The shape of a text.
pub fn shape(schema: &Value) -> Option<Shape> {
    let word = schema[SHAPE].as_str()?;
    Shape::ALL.into_iter().find(|shape| shape.as_str() == word)
}

/// Whether a text is a [`crate::settings::Word`].
fn is_word(schema: &Value) -> bool {
    schema[WORD] == true
}

/// The words that a text can be, where it can be only one of a few.
pub fn words(schema: &Value) -> Option<Vec<&str>> {
    if let Some(word) = schema["const"].as_str() {
        return Some(vec![word]);
    }
    if let Some(all) = schema["enum"].as_array() {
        return Some(all.iter().filter_map(Value::as_str).collect());
    }
    let branches = schema["oneOf"].as_array().or(schema["anyOf"].as_array())?;
    let branches: Vec<_> = branches.iter().filter(|branch| branch["type"] != "null").collect();
    let all: Option<Vec<_>> = branches.iter().map(|branch| words(branch)).collect();
    all.map(|all| all.concat()).filter(|all| !all.is_empty())
}

/// The types that a value can have, without `null`, which TOML has not.
pub fn types(schema: &Value) -> Vec<&str> {
    match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => {
            several.iter().filter_map(Value::as_str).filter(|word| *word != "null").collect()
        }
        _ => Vec::new(),
    }
}

/// The least and the most that a number can be. A format says it where no bound does.
#[expect(clippy::cast_precision_loss, reason = "nobody sets a bound that an `f64` does not hold")]
fn bounds(schema: &Value) -> (Option<f64>, Option<f64>) {
    let (least, most) = match schema["format"].as_str() {
        Some("uint32") => (Some(0.0), Some(f64::from(u32::MAX))),
        Some("int32") => (Some(f64::from(i32::MIN)), Some(f64::from(i32::MAX))),
        Some("uint64" | "uint") => (Some(0.0), Some(i64::MAX as f64)),
        _ => (None, None),
    };
    (schema["minimum"].as_f64().or(least), schema["maximum"].as_f64().or(most))
}

/// What a value must be, for a sentence.
pub fn expected(schema: &Value) -> String {
    if let Some([only]) = schema["allOf"].as_array().map(Vec::as_slice) {
        return expected(only);
    }
    if let Some(words) = words(schema) {
        return format!("one of {}", listed(&words));
    }
    if let Some(shape) = shape(schema) {
        return shape.expected().to_owned();
    }
    if let Some(branches) = schema["anyOf"].as_array().or(schema["oneOf"].as_array()) {
        let all: Vec<_> = branches.iter().filter(|branch| branch["type"] != "null").map(expected).collect();
        return all.join(", or ");
    }
    let types = types(schema);
    types.iter().map(|word| type_in_words(word, schema)).collect::<Vec<_>>().join(", or ")
}

/// What a value is, in a few words for a list of settings.
pub fn in_short(schema: &Value) -> String {
    if let Some([only]) = schema["allOf"].as_array().map(Vec::as_slice) {
        return in_short(only);
    }
    if let Some(words) = words(schema) {
        return words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(" or ");
    }
    if let Some(shape) = shape(schema) {
        return shape.as_str().to_owned();
    }
    if let Some(branches) = schema["anyOf"].as_array().or(schema["oneOf"].as_array()) {
        let all: Vec<_> = branches.iter().filter(|branch| branch["type"] != "null").map(in_short).collect();
        return all.join(" or ");
    }
    let in_short = |word: &&str| match *word {
        "array" => format!("list of {}", in_short(&schema["items"])),
        "object" if schema["additionalProperties"].is_object() => {
            format!("table of {}", in_short(&schema["additionalProperties"]))
        }
        "object" if schema["properties"].is_object() => {
            let keys = schema["properties"].as_object().into_iter().flat_map(Map::keys);
            format!("`{{ {} }}`", keys.map(String::as_str).collect::<Vec<_>>().join(", "))
        }
        word => type_in_words(word, schema).trim_start_matches("a ").to_owned(),
    };
    types(schema).iter().map(in_short).collect::<Vec<_>>().join(" or ")
}

fn type_in_words(word: &str, schema: &Value) -> String {
    let number = |what: &str| {
        let (least, most) = bounds(schema);
        let most = most.filter(|most| *most < f64::from(u32::MAX));
        range(what, least, most, "")
    };
    match word {
        "string" => "a text".to_owned(),
        "integer" => number("a whole number"),
        "number" => number("a number"),
        "boolean" => "true or false".to_owned(),
        "array" => format!("a list, each entry {}", expected(&schema["items"])),
        _ => "a table".to_owned(),
    }
}

fn range<T: std::fmt::Display>(what: &str, least: Option<T>, most: Option<T>, unit: &str) -> String {
    let text = match (least, most) {
        (Some(least), Some(most)) => format!("{what} from {least} to {most} {unit}"),
        (Some(least), None) => format!("{what}, {least} {unit} at least"),
        (None, Some(most)) => format!("{what}, {most} {unit} at most"),
        (None, None) => what.to_owned(),
    };
    text.replace("  ", " ").trim_end().to_owned()
}

fn listed(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

/// The known name that somebody who wrote `name` most likely meant.
fn near<'k>(name: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let distance = |other: &str| strsim::damerau_levenshtein(name, other);
    let begins = |other: &str| name.len() > 2 && (other.starts_with(name) || name.starts_with(other));
    let nearest = known.min_by_key(|other| (!begins(other), distance(other)))?;
    let longer = name.chars().count().max(nearest.chars().count());
    (begins(nearest) || distance(nearest) < longer.min(longer / 3 + 2)).then_some(nearest)
}

/// The known name that was most likely meant, or which ones there are, as the end of a sentence.
pub fn nearest<'k>(name: &str, known: impl Iterator<Item = &'k str> + Clone) -> String {
    if let Some(near) = near(name, known.clone()) {
        return format!("did you mean `{near}`?");
    }
    let all: Vec<_> = known.clone().take(MOST_LISTED).collect();
    match (all.len(), known.count()) {
        (0, _) => "there are none".to_owned(),
        (shown, all_of) if all_of > shown => {
            format!("there are {} and {} more", listed(&all), all_of - shown)
        }
        _ => format!("there are {}", listed(&all)),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use crate::config::node;

    fn read(text: &str, schema: &Value) -> Result<Value, Vec<String>> {
        let set = |name: &str| (name == "NUMBER").then(|| Ok("7".to_owned()));
        let surroundings = Surroundings { variable: &set, folder: Path::new("/") };
        let mut reader = Reader { surroundings, found: Found::default(), secrets: Vec::new() };
        let table = node::read(text, &mut reader.found);
        let partial = reader.table(&table, 0, schema, "");
        let problems = reader.found.into_problems(text);
        if problems.is_empty() {
            Ok(partial.value.into())
        } else {
            Err(problems.iter().map(ToString::to_string).collect())
        }
    }

    fn all() -> Value {
        json!({ "additionalProperties": false, "required": ["name"], "properties": {
            "name": { "type": "string", "minLength": 1 },
            "count": { "type": ["integer", "null"], "minimum": 1, "maximum": 9 },
            "share": { "type": "number" },
            "on": { "type": "boolean" },
            "word": { "oneOf": [{ "const": "live", "type": "string" }, { "const": "ready", "type": "string" }] },
            "list": { "type": "array", "items": { "type": "string" } },
            "queues": { "type": "object", "additionalProperties": { "type": "integer", "format": "uint32", "minimum": 0 } },
            "either": { "anyOf": [{ "type": "integer" }, { "type": "object", "additionalProperties": false, "properties": { "a": { "type": "boolean" } } }] },
            "inner": { "anyOf": [{ "type": "object", "additionalProperties": false, "required": ["b"], "properties": { "b": { "type": "string" } } }, { "type": "null" }] },
        } })
    }

    #[test]
    fn what_is_right_is_read_as_it_stands() {
        let text = "name = 'n'\ncount = 3\nshare = 1\non = false\nword = 'ready'\nlist = ['a']\nqueues = { mail = 1 }\neither = 1\n[inner]\nb = '$${'";
        let read = read(text, &all()).unwrap();
        let expected = json!({ "name": "n", "count": 3, "share": 1, "on": false, "word": "ready", "list": ["a"], "queues": { "mail": 1 }, "either": 1, "inner": { "b": "${" } });
        assert_eq!(read, expected);
        assert_eq!(
            self::read("name = 'n'\ncount = '${NUMBER}'\non = '${ON:-true}'", &all()).unwrap(),
            json!({ "name": "n", "count": 7, "on": true })
        );
    }

    #[test]
    fn everything_that_is_wrong_is_told_in_one_go_and_no_value_with_it() {
        let text = "count = 10\nshare = 'S3cret'\non = 1\nword = 'S3cret'\nlist = [1, 'a', 2020-01-01]\nqueues = { mail = -1, pdf = 'S3cret' }\neither = { a = 'S3cret' }\ninner = { c = 'S3cret' }\nnmae = 'S3cret'\n";
        let told = read(text, &all()).unwrap_err();
        let expected = [
            "1:1: C005: `name` is missing: a text",
            "1:9: C007: `count` must be a whole number from 1 to 9",
            "2:9: C006: `share` must be a number, and is a text",
            "3:6: C006: `on` must be true or false, and is a whole number",
            "4:8: C007: `word` must be one of `live`, `ready`",
            "5:9: C006: `list[0]` must be a text, and is a whole number",
            "5:17: C006: `list[2]` must be a text, and is a date",
            "6:19: C007: `queues.mail` must be a whole number, 0 at least",
            "6:29: C006: `queues.pdf` must be a whole number, 0 at least, and is a text",
            "7:16: C006: `either.a` must be true or false, and is a text",
            "8:1: C005: `inner.b` is missing: a text",
            "8:11: C004: `inner.c` is no known key; there are `b`",
            "9:1: C004: `nmae` is no known key; did you mean `name`?",
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn the_nearest_name_is_one_that_was_likely_meant() {
        let known = || ["timeout", "critical", "url", "max_age"].into_iter();
        for (name, near) in [
            ("tiemout", "timeout"),
            ("ur", "url"),
            ("Url", "url"),
            ("maxage", "max_age"),
            ("crit", "critical"),
        ] {
            assert_eq!(super::near(name, known()), Some(near), "{name}");
        }
        for name in ["", "x", "password", "zzz"] {
            assert_eq!(super::near(name, known()), None, "{name}");
        }
    }
}
