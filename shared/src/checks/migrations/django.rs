//! Django's migrations: what its loader (`django.db.migrations.loader`) makes of the files and of the table.
//!
//! - A folder counts that is a package. In it, every module whose name begins with neither `_` nor `~` is a migration;
//!   packages in it are none.
//! - A squashed migration (`replaces`) stands for those that it replaces where all or none of them are applied: it is applied
//!   where all are, whatever the table says of itself. Where some are, they are looked at and it is not.
//! - What else `migrate --check` refuses (two leaves in one app, an applied migration whose dependency is not) is not looked at:
//!   the order does not matter to whether one is applied.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::files::{Files, Trouble};
use super::python::{self, Constant, Unreadable};

/// Migrations, by `app.name`, each with those that it replaces.
pub(super) type Known = BTreeMap<String, Vec<String>>;

/// The names that are not applied.
pub(super) fn pending(known: &Known, applied: &BTreeSet<String>) -> Vec<String> {
    let mut state = State {
        known,
        applied: applied.clone(),
        nodes: known.keys().cloned().collect(),
        seen: BTreeSet::new(),
    };
    for name in known.keys() {
        state.replace(name);
    }
    state.nodes.difference(&state.applied).cloned().collect()
}

struct State<'k> {
    known: &'k Known,
    applied: BTreeSet<String>,
    nodes: BTreeSet<String>,
    seen: BTreeSet<String>,
}

impl State<'_> {
    /// Squashed migrations that are squashed again come first, as from Django 6.0 on; earlier ones have no such thing.
    fn replace(&mut self, name: &str) {
        let Some(replaces) = self.known.get(name).filter(|replaces| !replaces.is_empty()) else { return };
        if !self.seen.insert(name.to_owned()) {
            return;
        }
        for inner in replaces {
            self.replace(inner);
        }
        let mut targets = BTreeSet::new();
        self.resolve(name, &mut targets, &mut BTreeSet::new());
        let applied = targets.iter().filter(|target| self.applied.contains(*target)).count();
        if applied == targets.len() {
            self.applied.insert(name.to_owned());
        } else {
            self.applied.remove(name);
        }
        if applied == targets.len() || applied == 0 {
            for replaced in replaces {
                self.nodes.remove(replaced);
            }
        } else {
            self.nodes.remove(name);
        }
    }

    /// What is replaced in the end.
    fn resolve(&self, name: &str, targets: &mut BTreeSet<String>, seen: &mut BTreeSet<String>) {
        if !seen.insert(name.to_owned()) {
            return;
        }
        for inner in self.known.get(name).into_iter().flatten() {
            if self.known.get(inner).is_some_and(|replaces| !replaces.is_empty()) {
                self.resolve(inner, targets, seen);
            } else {
                targets.insert(inner.clone());
            }
        }
    }
}

/// The migrations of an app.
pub(super) fn read(files: &mut Files, label: &str, folder: &Path, known: &mut Known) -> Result<(), Trouble> {
    let names = files.names(folder)?;
    if !names.iter().any(|name| module(name) == Some("__init__")) {
        return Ok(());
    }
    let modules: BTreeSet<&str> = names.iter().filter_map(|name| module(name)).collect();
    for name in modules.into_iter().filter(|name| !name.starts_with(['_', '~'])) {
        let source = format!("{name}.py");
        let path = folder.join(&source);
        if !names.contains(&source) {
            // Compiled: it is a migration, and what it replaces only Python knows.
            return Err(Trouble::Unreadable(folder.join(name)));
        }
        let replaces = replaces(&files.text(&path)?).map_err(|Unreadable| Trouble::Unreadable(path))?;
        known.insert(format!("{label}.{name}"), replaces);
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

/// What the class `Migration` of this file replaces.
fn replaces(source: &str) -> Result<Vec<String>, Unreadable> {
    let lines = python::lines(source)?;
    let class =
        lines.iter().position(|line| line.indent == 0 && line.begins_class("Migration")).ok_or(Unreadable)?;
    let body: Vec<_> = lines[class + 1..].iter().take_while(|line| line.indent > 0).collect();
    let level = body.first().map_or(0, |line| line.indent);
    let mut found = Vec::new();
    for line in &body {
        match line.assigns("replaces").filter(|_| line.indent == level) {
            Some(value) => found = pairs(&value?)?,
            None if line.speaks_of("replaces") => return Err(Unreadable),
            None => {}
        }
    }
    let elsewhere = lines.iter().filter(|line| line.speaks_of("Migration") && line.speaks_of("replaces"));
    let in_one_line = lines[class].speaks_of("replaces");
    if elsewhere.count() > 0 || in_one_line { Err(Unreadable) } else { Ok(found) }
}

fn pairs(value: &Constant) -> Result<Vec<String>, Unreadable> {
    let Constant::Many(pairs) = value else { return Err(Unreadable) };
    pairs
        .iter()
        .map(|pair| match pair {
            Constant::Many(pair) if pair.len() == 2 => {
                let (app, name) = (pair[0].text().ok_or(Unreadable)?, pair[1].text().ok_or(Unreadable)?);
                Ok(format!("{app}.{name}"))
            }
            _ => Err(Unreadable),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(list: &[(&str, &[&str])]) -> Known {
        list.iter()
            .map(|(name, replaces)| ((*name).to_owned(), replaces.iter().map(ToString::to_string).collect()))
            .collect()
    }

    fn left(known: &Known, applied: &[&str]) -> Vec<String> {
        pending(known, &applied.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_squashed_migration_counts_for_what_it_replaces() {
        let squashed = known(&[("a.1", &[]), ("a.2", &[]), ("a.s", &["a.1", "a.2"]), ("a.3", &[])]);
        assert_eq!(left(&squashed, &[]), ["a.3", "a.s"]);
        assert_eq!(left(&squashed, &["a.1"]), ["a.2", "a.3"]);
        assert_eq!(left(&squashed, &["a.1", "a.2", "a.3"]), [""; 0]);
        // What the table says of the squashed one itself does not count.
        assert_eq!(left(&squashed, &["a.s"]), ["a.3", "a.s"]);
        let alone = known(&[("a.s", &["a.1", "a.2"])]);
        assert_eq!(left(&alone, &["a.1", "a.2"]), [""; 0]);
        assert_eq!(left(&alone, &["a.1"]), [""; 0]);
    }

    #[test]
    fn a_squashed_migration_that_is_squashed_again_counts_for_all_and_a_circle_ends() {
        let twice = known(&[
            ("a.s", &["a.1", "a.2"]),
            ("a.t", &["a.s", "a.3"]),
            ("a.1", &[]),
            ("a.2", &[]),
            ("a.3", &[]),
        ]);
        assert_eq!(left(&twice, &["a.1", "a.2", "a.3"]), [""; 0]);
        assert_eq!(left(&twice, &[]), ["a.t"]);
        assert_eq!(left(&twice, &["a.1", "a.2"]), ["a.3"]);
        left(&known(&[("a.s", &["a.t"]), ("a.t", &["a.s"])]), &[]);
    }

    #[test]
    fn what_a_file_replaces_is_read_or_told_to_be_unreadable() {
        let class = |body: &str| {
            format!("from django.db import migrations\n\nclass Migration(migrations.Migration):\n{body}")
        };
        assert_eq!(replaces(&class("    initial = True\n    operations = [x(replaces='no')]\n")), Ok(vec![]));
        assert_eq!(
            replaces(&class("    replaces = [('a', '0001_i'), (\"a\", \"0002_j\")]\n")),
            Ok(vec!["a.0001_i".to_owned(), "a.0002_j".to_owned()])
        );
        for computed in [
            "    replaces = OLD\n",
            "    replaces += [('a', 'b')]\n",
            "    if OLD:\n        replaces = [('a', 'b')]\n",
            "    replaces = ['ab']\n",
        ] {
            assert_eq!(replaces(&class(computed)), Err(Unreadable), "{computed}");
        }
        assert_eq!(replaces(&(class("    pass\n") + "Migration.replaces = [('a', 'b')]\n")), Err(Unreadable));
        assert_eq!(replaces("Migration = make()"), Err(Unreadable));
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
