//! The tables of README.md that are made from the code: the codes of mistakes, the settings of the file's tables, the kinds of
//! check, the features of the crate. `UPDATE_README=1 cargo test -p shared --test readme` writes them anew.

#![cfg(feature = "run")]
#![expect(clippy::unwrap_used, reason = "all of this is a test")]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::Value;
use shared::checks::KINDS;
use shared::config::Code;
use shared::config::schema::{self, Setting};

fn codes() -> String {
    let mut text = String::from("| code | |\n|---|---|\n");
    for code in Code::ALL {
        writeln!(text, "| {code} | {} |", code.title()).unwrap();
    }
    text
}

/// From the lines of `Cargo.toml` that begin with `##`: what a feature adds stands above it.
fn features() -> String {
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    let (mut text, mut about) = (String::from("| feature | |\n|---|---|\n"), String::new());
    for line in manifest.lines() {
        if let Some(words) = line.strip_prefix("## ") {
            about = if about.is_empty() { words.to_owned() } else { format!("{about} {words}") };
        } else if !about.is_empty() {
            let (name, _) = line.split_once(" = ").unwrap();
            writeln!(text, "| `{name}` | {} |", cell(&std::mem::take(&mut about))).unwrap();
        }
    }
    text
}

fn cell(text: &str) -> String {
    text.replace("\n\n", " ").replace('\n', " ").replace('|', "\\|")
}

fn settings(settings: &[Setting]) -> String {
    let mut text = String::from("| key | value | | |\n|---|---|---|---|\n");
    for setting in settings {
        let need = match &setting.default {
            Some(default) if !setting.required => format!("default `{default}`"),
            _ => setting.need(),
        };
        writeln!(
            text,
            "| `{}` | {} | {need} | {} |",
            setting.name,
            cell(&setting.form),
            cell(&setting.about)
        )
        .unwrap();
    }
    text
}

fn tables() -> String {
    let access = &schema::SERVER["properties"]["access"];
    let server: Vec<_> =
        schema::list(&schema::SERVER).into_iter().filter(|setting| setting.name != "access").collect();
    format!(
        "`[service]`: what is deployed here.\n\n{}\n`[server]`: how answers are served over HTTP.\n\n{}\n`[server.access]`: who may ask.\n\n{}\n`[checks.NAME]`, beside `type` and the settings of its kind:\n\n{}",
        settings(&schema::list(&schema::SERVICE)),
        settings(&server),
        settings(&schema::list(access)),
        settings(&schema::list(&schema::COMMON)),
    )
}

fn kinds() -> String {
    let mut text = String::new();
    for kind in KINDS {
        let about = schema::about(kind);
        let example = format!("[checks.NAME]\ntype = \"{}\"\n{}", kind.name, kind.example.trim_end());
        write!(text, "### `{}`\n\n{about}\n\n", kind.name).unwrap();
        write!(text, "{}\n```toml\n{example}\n```\n\n", settings(&schema::settings(kind).0)).unwrap();
    }
    text.trim_end().to_owned() + "\n"
}

#[test]
fn the_tables_of_the_readme_are_those_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let page = fs::read_to_string(&path).unwrap();
    let mut wanted = page.clone();
    let made = [("codes", codes()), ("tables", tables()), ("kinds", kinds()), ("features", features())];
    for (name, made) in made {
        let (begin, end) =
            (format!("<!-- {name}: made from the code -->\n"), format!("<!-- end of {name} -->\n"));
        let from = wanted.find(&begin).unwrap_or_else(|| panic!("no {begin}")) + begin.len();
        let to = wanted.find(&end).unwrap_or_else(|| panic!("no {end}"));
        wanted.replace_range(from..to, &format!("\n{made}\n"));
    }
    if std::env::var_os("UPDATE_README").is_some() {
        fs::write(&path, &wanted).unwrap();
    } else {
        assert!(
            page == wanted,
            "shared/README.md is stale: UPDATE_README=1 cargo test -p shared --test readme"
        );
    }
}

/// The keys of all tables that a schema describes.
fn keys(schema: &Value) -> Vec<&str> {
    let inner: Vec<_> = match schema {
        Value::Object(parts) => parts.values().flat_map(keys).collect(),
        Value::Array(parts) => parts.iter().flat_map(keys).collect(),
        _ => Vec::new(),
    };
    let own = schema["properties"].as_object().into_iter().flatten().map(|(key, _)| key.as_str());
    own.chain(inner).collect()
}

/// What stands as code in the first two columns of a table's row.
fn names(row: &str) -> impl Iterator<Item = &str> {
    let columns = row.split('|').skip(1).take(2);
    let code = columns.flat_map(|column| column.split('`').skip(1).step_by(2));
    code.flat_map(|code| code.split(|c: char| !(c.is_alphanumeric() || c == '_')))
}

#[test]
fn every_key_of_every_kind_stands_in_its_section_however_deep_it_is() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    for kind in KINDS {
        let (_, section) = page.split_once(&format!("\n### `{}`\n", kind.name)).unwrap();
        let (section, _) = section.split_once("\n```toml\n").unwrap();
        let schema = schema::own(kind);
        for key in keys(&schema) {
            let stands = section.lines().flat_map(names).any(|name| name == key);
            assert!(stands, "{}: no `{key}`", kind.name);
        }
    }
}
