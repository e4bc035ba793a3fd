//! The JSON Schema of a configuration: one for the reading of files, made of the types that hold the settings, and made from
//! it the one for editors.
//!
//! They differ in one thing. A file may have `${NAME}` or `{ file = "…" }` in place of a text, which a reading fills in before
//! it looks; an editor must take them as they stand.

use std::sync::LazyLock;

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

pub use super::form::nearest;

use super::form;
use super::tables::{Common, Server, Service};
use crate::checks::KINDS;
use crate::kind::Kind;
use crate::settings::{SHAPE, WORD};

/// What a check's or a subset's name is made of. It is part of paths, of metrics and of lines.
pub const NAME_PATTERN: &str = "^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$";

fn generator() -> SchemaGenerator {
    SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true).into_generator()
}

/// The schema of `[service]`.
pub static SERVICE: LazyLock<Value> = LazyLock::new(|| generator().root_schema_for::<Service>().to_value());

/// The schema of `[server]`.
pub static SERVER: LazyLock<Value> = LazyLock::new(|| generator().root_schema_for::<Server>().to_value());

/// The schema of what every check may set.
pub static COMMON: LazyLock<Value> = LazyLock::new(|| generator().root_schema_for::<Common>().to_value());

/// The schema of a kind's own settings.
pub fn own(kind: &Kind) -> Value {
    kind.schema(&mut generator()).to_value()
}

/// What a kind says of itself.
pub fn about(kind: &Kind) -> String {
    own(kind)["description"].as_str().unwrap_or_default().to_owned()
}

/// One setting, as its schema describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its key.
    pub name: String,
    /// What its value is, in a few words.
    pub form: String,
    /// Whether it must be there.
    pub required: bool,
    /// What stands there where nothing else does, where that is more than nothing.
    pub default: Option<Value>,
    /// What it means.
    pub about: String,
}

impl Setting {
    /// Whether it must be there, and what it is where it is not.
    pub fn need(&self) -> String {
        match &self.default {
            _ if self.required => "required".to_owned(),
            Some(default) => format!("default {default}"),
            None => "optional".to_owned(),
        }
    }
}

/// A kind's own settings, and then those of every check: the required ones first, and behind each those of the tables in it,
/// as `tls.ca` and `queues.NAME.max_messages`.
pub fn settings(kind: &Kind) -> (Vec<Setting>, Vec<Setting>) {
    (list_deep(&own(kind)), list(&COMMON))
}

fn list_deep(schema: &Value) -> Vec<Setting> {
    let with_inner = |setting: Setting| {
        let inner = inner(&schema["properties"][&setting.name], &setting.name);
        [setting].into_iter().chain(inner)
    };
    list(schema).into_iter().flat_map(with_inner).collect()
}

/// The settings of the tables that a value can be or hold. Those that say nothing of themselves are told of by what holds them.
fn inner(schema: &Value, place: &str) -> Vec<Setting> {
    if !schema.is_object() {
        return Vec::new();
    }
    let own = list_deep(schema).into_iter().filter(|setting| !setting.about.is_empty());
    let mut found: Vec<_> =
        own.map(|setting| Setting { name: format!("{place}.{}", setting.name), ..setting }).collect();
    for branches in ["allOf", "anyOf", "oneOf"] {
        let branches = schema[branches].as_array().into_iter().flatten();
        found.extend(branches.flat_map(|branch| inner(branch, place)));
    }
    found.extend(inner(&schema["items"], &format!("{place}[]")));
    found.extend(inner(&schema["additionalProperties"], &format!("{place}.NAME")));
    found
}

/// The settings that a table's schema describes.
pub fn list(schema: &Value) -> Vec<Setting> {
    let required =
        |name: &String| schema["required"].as_array().is_some_and(|all| all.iter().any(|one| one == name));
    let setting = |(name, schema): (&String, &Value)| Setting {
        name: name.clone(),
        form: form::in_short(schema),
        required: required(name),
        default: schema.get("default").filter(|default| !default.is_null()).cloned(),
        about: schema["description"].as_str().unwrap_or_default().to_owned(),
    };
    let mut settings: Vec<_> = schema["properties"].as_object().into_iter().flatten().map(setting).collect();
    settings.sort_by_key(|setting| !setting.required);
    settings
}

/// The schema of a whole check of this kind: its own settings, what every check has, and its type.
pub fn check(kind: &Kind) -> Value {
    let mut schema = own(kind);
    let mut properties = Map::new();
    let about = schema["description"].clone();
    properties.insert("type".to_owned(), json!({ "const": kind.name, "description": about }));
    for part in [&schema["properties"], &COMMON["properties"]] {
        properties.extend(part.as_object().cloned().unwrap_or_default());
    }
    let mut required = vec![json!("type")];
    required.extend(schema["required"].as_array().cloned().unwrap_or_default());
    schema["properties"] = properties.into();
    schema["required"] = required.into();
    schema["additionalProperties"] = false.into();
    schema["title"] = kind.name.into();
    schema
}

/// The schema of a whole file, for editors.
pub fn file() -> Value {
    let mut kinds: Vec<_> = KINDS.iter().map(check).collect();
    let (mut service, mut server) = (SERVICE.clone(), SERVER.clone());
    for schema in kinds.iter_mut().chain([&mut service, &mut server]) {
        open(schema);
    }
    let names: Vec<_> = KINDS.iter().map(|kind| kind.name).collect();
    let definitions: Map<_, _> = KINDS.iter().zip(kinds).map(|(kind, schema)| (key(kind), schema)).collect();
    let choices: Vec<_> =
        KINDS.iter().map(|kind| json!({ "$ref": format!("#/$defs/{}", key(kind)) })).collect();
    let mut document = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "checker.toml",
        "description": "What the command `checker` checks, and how it tells of it.",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "service": service,
            "server": server,
            "subsets": {
                "description": "Lists of checks that are run together. `@name` includes another subset.",
                "type": "object",
                "propertyNames": { "pattern": NAME_PATTERN },
                "additionalProperties": { "type": "array", "minItems": 1, "items": { "type": "string" } },
            },
            "checks": {
                "description": "The checks, each with a name of its own.",
                "type": "object",
                "propertyNames": { "pattern": NAME_PATTERN },
                "additionalProperties": {
                    "type": "object",
                    "required": ["type"],
                    "properties": { "type": { "description": "The kind of check.", "enum": names } },
                    "oneOf": choices,
                },
            },
        },
    });
    let mut all = definitions;
    all.insert("placeholder".to_owned(), json!({
        "description": "Filled in from the environment.", "type": "string", "pattern": r"\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^}]*)?\}",
    }));
    all.insert("secret_file".to_owned(), json!({
        "description": "Read from a file.", "type": "object", "required": ["file"], "additionalProperties": false,
        "properties": { "file": { "description": "The file's path, from the folder of this one.", "type": "string" } },
    }));
    document["$defs"] = all.into();
    document
}

fn key(kind: &Kind) -> String {
    format!("check_{}", kind.name)
}

/// Lets every text of a schema be a placeholder or a secret file, and every number and truth value a placeholder.
fn open(schema: &mut Value) {
    let Some(schema) = schema.as_object_mut() else { return };
    schema.remove("$schema");
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        properties.iter_mut().filter(|(name, _)| *name != "type").for_each(|(_, inner)| open_value(inner));
    }
    if let Some(inner) = schema.get_mut("additionalProperties") {
        open_value(inner);
    }
}

fn open_value(schema: &mut Value) {
    let words = form::words(schema).is_some();
    if !words {
        for branches in ["anyOf", "oneOf", "allOf"] {
            if let Some(branches) = schema.get_mut(branches).and_then(Value::as_array_mut) {
                branches.iter_mut().for_each(open_value);
            }
        }
        if let Some(items) = schema.get_mut("items") {
            open_value(items);
        }
        open(schema);
    }
    let types: Vec<_> = form::types(schema).into_iter().map(str::to_owned).collect();
    let is = |word: &str| types.iter().any(|own| own == word);
    let text = words || is("string");
    if !(text || is("integer") || is("number") || is("boolean")) {
        return;
    }
    let Some(mut own) = schema.as_object().cloned() else { return };
    let mut outer = Map::new();
    for annotation in ["description", "default", "title", SHAPE, WORD] {
        if let Some(value) = own.remove(annotation) {
            outer.insert(annotation.to_owned(), value);
        }
    }
    let mut choices = vec![Value::Object(own), json!({ "$ref": "#/$defs/placeholder" })];
    if text {
        choices.push(json!({ "$ref": "#/$defs/secret_file" }));
    }
    outer.insert("anyOf".to_owned(), choices.into());
    *schema = outer.into();
}
