//! What the files of Django's migrations say: which there are in a folder, and what each replaces, follows and is followed by.
//!
//! A folder counts that is a package. In it, every module whose name begins with neither `_` nor `~` is a migration; packages in it
//! are none. What a class gets from another one is not seen, and dependencies that the settings decide are passed over.

use std::collections::BTreeSet;
use std::path::Path;

use super::Known;
use crate::checks::migrations::files::{Files, Trouble};
use crate::checks::migrations::python::{self, Constant, Line, Unreadable};

/// What a migration's file says of others, each by its `app.name`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::checks::migrations) struct Migration {
    /// What it was made of.
    pub replaces: Vec<String>,
    /// What it follows.
    pub after: Vec<String>,
    /// What follows it.
    pub before: Vec<String>,
}

/// The migrations of an app.
pub(in crate::checks::migrations) fn read(
    files: &mut Files,
    label: &str,
    folder: &Path,
    known: &mut Known,
) -> Result<(), Trouble> {
    let names = files.names(folder)?;
    if !names.iter().any(|name| module(name) == Some("__init__")) {
        return Ok(());
    }
    let modules: BTreeSet<&str> = names.iter().filter_map(|name| module(name)).collect();
    for name in modules.into_iter().filter(|name| !name.starts_with(['_', '~'])) {
        let source = format!("{name}.py");
        let path = folder.join(&source);
        if !names.contains(&source) {
            // Compiled: it is a migration, and what it says of others only Python knows.
            return Err(Trouble::Unreadable(folder.join(name)));
        }
        let migration = migration(&files.text(&path)?).map_err(|Unreadable| Trouble::Unreadable(path))?;
        known.insert(format!("{label}.{name}"), migration);
    }
    Ok(())
}

/// The module's name, as `inspect.getmodulename` has it.
fn module(file: &str) -> Option<&str> {
    let stem = file.strip_suffix(".py").or_else(|| file.strip_suffix(".pyc"));
    // An extension's name goes on with what it was built for.
    let stem = stem.or_else(|| file.strip_suffix(".so").map(|stem| stem.split('.').next().unwrap_or(stem)));
    stem.filter(|stem| !stem.is_empty() && !stem.contains('.'))
}

/// What a migration's class says of others.
const WORDS: [&str; 3] = ["replaces", "dependencies", "run_before"];

fn migration(source: &str) -> Result<Migration, Unreadable> {
    let mut found: Option<Migration> = None;
    let mut body = None;
    for line in python::lines(source) {
        let line = line?;
        if line.indent == 0 {
            body = None;
            if line.begins_class("Migration") && found.is_none() && !speaks_of_others(&line) {
                found = Some(Migration::default());
                body = Some(None);
            } else if line.begins_class("Migration") || line.begins_with("Migration") {
                return Err(Unreadable);
            }
        } else if let (Some(indent), Some(migration)) = (&mut body, &mut found) {
            let indent = *indent.get_or_insert(line.indent);
            said(&line, indent, migration)?;
        }
    }
    found.ok_or(Unreadable)
}

/// Takes over what a line of the class says, which begins at this place of its line.
fn said(line: &Line, indent: usize, migration: &mut Migration) -> Result<(), Unreadable> {
    let targets = [&mut migration.replaces, &mut migration.after, &mut migration.before];
    for (word, target) in WORDS.into_iter().zip(targets) {
        if let Some(value) = line.assigns(word).filter(|_| line.indent == indent) {
            *target = pairs(&value?, word != "replaces")?;
            return Ok(());
        }
    }
    if speaks_of_others(line) { Err(Unreadable) } else { Ok(()) }
}

fn speaks_of_others(line: &Line) -> bool {
    WORDS.iter().any(|word| line.speaks_of(word))
}

/// The names in a list of apps and names. What the settings decide (`AUTH_USER_MODEL`) is an app's first, whichever that is.
fn pairs(value: &Constant, swappable: bool) -> Result<Vec<String>, Unreadable> {
    let Constant::Many(pairs) = value else { return Err(Unreadable) };
    let is_swappable =
        |one: &&Constant| matches!(one, Constant::Call(name) if name == "swappable_dependency");
    let pair = |one: &Constant| match one {
        Constant::Many(pair) if pair.len() == 2 => {
            let (app, name) = (pair[0].text().ok_or(Unreadable)?, pair[1].text().ok_or(Unreadable)?);
            Ok(format!("{app}.{name}"))
        }
        _ => Err(Unreadable),
    };
    pairs.iter().filter(|one| !(swappable && is_swappable(one))).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(body: &str) -> String {
        format!("from django.db import migrations\n\nclass Migration(migrations.Migration):\n{body}")
    }

    #[test]
    fn what_a_file_says_of_others_is_read() {
        let read = migration(&class(
            "    \"\"\"Words.\"\"\"\n    initial = True\n    replaces = [('a', '0001_i'), (\"a\", \"0002_j\")]\n\n    dependencies = [\n        \
            ('b', '0001_i'),\n        migrations.swappable_dependency(settings.AUTH_USER_MODEL),\n    ]\n    \
            run_before = [['c', '__first__']]\n    operations = [x(replaces='no', dependencies=no)]\n",
        ));
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        let (replaces, after, before) =
            (names(&["a.0001_i", "a.0002_j"]), names(&["b.0001_i"]), names(&["c.__first__"]));
        assert_eq!(read, Ok(Migration { replaces, after, before }));
    }

    #[test]
    fn what_only_python_can_tell_is_told_to_be_unreadable() {
        for computed in [
            "    replaces = OLD\n",
            "    replaces += [('a', 'b')]\n",
            "    if OLD:\n        replaces = [('a', 'b')]\n",
            "    replaces = ['ab']\n",
            "    replaces = [migrations.swappable_dependency(x)]\n",
            "    dependencies = [*OLD]\n",
            "    dependencies = [other(x)]\n",
            "    dependencies = [('a', NAME)]\n",
            "    pass\nMigration.replaces = [('a', 'b')]\n",
            "    pass\nMigration = made(Migration)\n",
            "    pass\nclass Migration(migrations.Migration):\n    pass\n",
        ] {
            assert_eq!(migration(&class(computed)), Err(Unreadable), "{computed}");
        }
        for other in [
            "",
            "Migration = make()",
            "class Migration(x): replaces = [('a', 'b')]",
            "if x:\n    class Migration(y):\n        pass\n",
        ] {
            assert_eq!(migration(other), Err(Unreadable), "{other}");
        }
    }

    #[test]
    fn a_modules_name_is_pythons() {
        for (file, name) in [
            ("0001_initial.py", Some("0001_initial")),
            ("0001_initial.pyc", Some("0001_initial")),
            ("0002_x.cpython-312-x86_64-linux-gnu.so", Some("0002_x")),
            (".#0001_initial.py", None),
            ("0001.backup.py", None),
            ("0001_initial.py~", None),
            ("README.md", None),
        ] {
            assert_eq!(module(file), name, "{file}");
        }
    }
}
