//! Django's migrations: what `migrate --check` makes of the files and of the table, without Python.
//!
//! - A folder counts that is a package. In it, every module whose name begins with neither `_` nor `~` is a migration;
//!   packages in it are none.
//! - A squashed migration (`replaces`) stands for those that it replaces where all or none of them are applied: it is applied
//!   where all are, whatever the table says of itself. Where some are, they are looked at and it is not.
//! - Not applied is what would be applied on the way to the last migrations of the apps. Several last ones of one app, and an
//!   applied one that follows one that is not, are refused by Django, and so they are here.
//!
//! The source of all this is `django.db.migrations` (loader, graph, executor) as of Django 6.0, which in what 5.2 can do is the
//! same. What a migration depends on in an app that nobody told us of is passed over, and so are swappable dependencies.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::Finding;
use super::files::{Files, Trouble};
use super::graph::Graph;
use super::python::{self, Constant, Line, Unreadable};

/// How deep squashed migrations may stand in others.
const MOST_SQUASHES: u8 = 50;

/// Migrations, by `app.name`.
pub(super) type Known = BTreeMap<String, Migration>;

/// What a migration's file says of others, each by its `app.name`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Migration {
    /// What it was made of.
    pub replaces: Vec<String>,
    /// What it follows.
    pub after: Vec<String>,
    /// What follows it.
    pub before: Vec<String>,
}

/// What the table means for the files. `listed` are those whose order nobody has told.
pub(super) fn judge(known: &Known, recorded: &BTreeSet<String>, listed: bool) -> Result<Finding, Trouble> {
    let replaced: BTreeSet<&String> = known.values().flat_map(|migration| &migration.replaces).collect();
    let apps: BTreeSet<&str> = known.keys().map(|name| app(name)).collect();
    let mut state = State {
        known,
        recorded,
        graph: graph(known, &apps),
        applied: recorded.clone(),
        heights: BTreeMap::new(),
        replaced: BTreeSet::new(),
    };
    for name in known.keys() {
        state.replace(name, 0)?;
    }
    state.graph.is_whole()?;
    let last = state.last();
    let is_unknown =
        |name: &&String| apps.contains(app(name)) && !known.contains_key(*name) && !replaced.contains(name);
    Ok(Finding {
        pending: state.pending(&last),
        early: state.early(),
        rivals: if listed { Vec::new() } else { rivals(&last) },
        unknown: recorded.iter().filter(is_unknown).cloned().collect(),
        ..Finding::default()
    })
}

/// The app's label.
fn app(name: &str) -> &str {
    name.split_once('.').map_or(name, |(app, _)| app)
}

/// The migrations in the order that the files demand, before any is replaced.
fn graph(known: &Known, apps: &BTreeSet<&str>) -> Graph {
    let mut graph = Graph::default();
    for name in known.keys() {
        graph.add(name);
    }
    // The first and the last of an app are those by its own order.
    for (name, migration) in known {
        let own = migration.after.iter().filter(|other| app(other) == app(name));
        for parent in own.filter(|parent| !parent.ends_with(".__first__")) {
            graph.link(name, parent);
        }
    }
    for (name, migration) in known {
        let foreign = |other: &&String| app(other) != app(name) && apps.contains(app(other));
        for parent in migration.after.iter().filter(foreign) {
            if let Some(parent) = meant(&graph, parent, name) {
                graph.link(name, &parent);
            }
        }
        for child in migration.before.iter().filter(|other| apps.contains(app(other))) {
            if let Some(child) = meant(&graph, child, name) {
                graph.link(&child, name);
            }
        }
    }
    graph
}

/// What `__first__` and `__latest__` mean, which of the own app mean nothing.
fn meant(graph: &Graph, name: &str, by: &str) -> Option<String> {
    let is_own = |other: &&str| app(other) == app(name);
    let mut own = graph.names().filter(is_own).filter(|_| app(name) != app(by));
    match name.split_once('.') {
        Some((_, "__first__")) => own.find(|one| !graph.parents(one).any(|parent| is_own(&parent))),
        Some((_, "__latest__")) => own.find(|one| !graph.children(one).any(|child| is_own(&child))),
        _ => Some(name),
    }
    .map(str::to_owned)
}

/// Of several last migrations of one app all.
fn rivals(last: &[String]) -> Vec<String> {
    let mut by_app: BTreeMap<&str, Vec<&String>> = BTreeMap::new();
    for name in last {
        by_app.entry(app(name)).or_default().push(name);
    }
    by_app.into_values().filter(|names| names.len() > 1).flatten().cloned().collect()
}

struct State<'k> {
    known: &'k Known,
    /// What the table says.
    recorded: &'k BTreeSet<String>,
    graph: Graph,
    /// What it means.
    applied: BTreeSet<String>,
    /// Squashed migrations, each with how many stand in each other there; nothing while that is looked at.
    heights: BTreeMap<&'k str, Option<u8>>,
    /// Squashed migrations whose work was done by those that they replace.
    replaced: BTreeSet<&'k str>,
}

impl<'k> State<'k> {
    fn squashed(&self, name: &str) -> Option<(&'k String, &'k [String])> {
        let (name, migration) = self.known.get_key_value(name)?;
        (!migration.replaces.is_empty()).then_some((name, &migration.replaces))
    }

    /// Puts a squashed migration in the place of those that it replaces, or takes it away. Those in it come first. Says how
    /// many stand in each other.
    fn replace(&mut self, name: &str, depth: u8) -> Result<u8, Trouble> {
        let Some((name, replaces)) = self.squashed(name) else { return Ok(0) };
        match self.heights.insert(name, None) {
            Some(Some(height)) => {
                self.heights.insert(name, Some(height));
                return Ok(height);
            }
            Some(None) => return Err(Trouble::Broken(format!("{name:?} replaces itself"))),
            None => {}
        }
        let mut height = 0;
        for inner in replaces.iter().filter(|_| depth < MOST_SQUASHES) {
            height = height.max(self.replace(inner, depth + 1)?);
        }
        if depth >= MOST_SQUASHES || height >= MOST_SQUASHES {
            return Err(Trouble::Broken(format!("{name:?} is squashed too often")));
        }
        self.heights.insert(name, Some(height + 1));
        self.settle(name, replaces);
        Ok(height + 1)
    }

    /// The same of one, when those in it are settled.
    fn settle(&mut self, name: &'k String, replaces: &'k [String]) {
        if replaces.iter().all(|one| self.recorded.contains(one) || self.replaced.contains(one.as_str())) {
            self.replaced.insert(name);
        }
        let mut targets = BTreeSet::new();
        self.resolve(replaces, &mut targets, &mut BTreeSet::new());
        let applied = targets.iter().filter(|target| self.applied.contains(**target)).count();
        if applied == targets.len() {
            self.applied.insert(name.clone());
        } else {
            self.applied.remove(name);
        }
        let replaced = replaces.iter().cloned().collect();
        if applied == targets.len() || applied == 0 {
            self.graph.replace(&replaced, name);
        } else {
            self.graph.withdraw(name, &replaced);
        }
    }

    /// What is replaced in the end.
    fn resolve(&self, replaces: &'k [String], targets: &mut BTreeSet<&'k str>, seen: &mut BTreeSet<&'k str>) {
        for name in replaces {
            match self.squashed(name) {
                Some((name, inner)) if seen.insert(name) => self.resolve(inner, targets, seen),
                Some(_) => {}
                None => _ = targets.insert(name),
            }
        }
    }

    /// Those that no other of their app follows.
    fn last(&self) -> Vec<String> {
        let is_last = |name: &&str| !self.graph.children(name).any(|child| app(child) == app(name));
        self.graph.names().filter(is_last).map(str::to_owned).collect()
    }

    /// What is not applied on the way to those.
    fn pending(&self, last: &[String]) -> Vec<String> {
        let targets = last.iter().filter(|name| !self.applied.contains(*name)).map(String::as_str);
        let way = self.graph.up_to(targets).into_iter();
        way.filter(|name| !self.applied.contains(*name)).map(str::to_owned).collect()
    }

    /// What is recorded and follows one that is not.
    fn early(&self) -> Vec<String> {
        let is_there = |name: &str| self.recorded.contains(name) || self.replaced.contains(name);
        let is_early = |name: &&String| !self.graph.parents(name).all(is_there);
        self.recorded.iter().filter(is_early).cloned().collect()
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

    /// A migration: what it is called, what it follows, what it replaces.
    type Told<'t> = (&'t str, &'t [&'t str], &'t [&'t str]);

    fn known(list: &[Told<'_>]) -> Known {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        let migration = |after: &[&str], replaces: &[&str]| Migration {
            after: names(after),
            replaces: names(replaces),
            ..Migration::default()
        };
        list.iter().map(|(name, after, replaces)| ((*name).to_owned(), migration(after, replaces))).collect()
    }

    fn finding(known: &Known, recorded: &[&str]) -> Finding {
        judge(known, &recorded.iter().map(ToString::to_string).collect(), false).expect("a whole graph")
    }

    fn left(known: &Known, recorded: &[&str]) -> Vec<String> {
        finding(known, recorded).pending
    }

    #[test]
    fn a_squashed_migration_counts_for_what_it_replaces() {
        let squashed = known(&[
            ("a.1", &[], &[]),
            ("a.2", &["a.1"], &[]),
            ("a.s", &[], &["a.1", "a.2"]),
            ("a.3", &["a.2"], &[]),
        ]);
        assert_eq!(left(&squashed, &[]), ["a.3", "a.s"]);
        assert_eq!(left(&squashed, &["a.1"]), ["a.2", "a.3"]);
        assert_eq!(finding(&squashed, &["a.1", "a.2", "a.3"]), Finding::default());
        // What the table says of the squashed one itself does not count.
        assert_eq!(left(&squashed, &["a.s"]), ["a.3", "a.s"]);
        let alone = known(&[("a.s", &[], &["a.1", "a.2"])]);
        assert_eq!(finding(&alone, &["a.1", "a.2"]), Finding::default());
        assert_eq!(left(&alone, &["a.1"]), [""; 0]);
    }

    #[test]
    fn a_squashed_migration_that_is_squashed_again_counts_for_all_and_a_circle_is_told() {
        let twice = known(&[
            ("a.1", &[], &[]),
            ("a.2", &["a.1"], &[]),
            ("a.s", &[], &["a.1", "a.2"]),
            ("a.3", &["a.s"], &[]),
            ("a.t", &[], &["a.s", "a.3"]),
        ]);
        assert_eq!(finding(&twice, &["a.1", "a.2", "a.3"]), Finding::default());
        assert_eq!(left(&twice, &[]), ["a.t"]);
        assert_eq!(left(&twice, &["a.1", "a.2"]), ["a.3"]);
        let circle = known(&[("a.s", &[], &["a.t"]), ("a.t", &[], &["a.s"])]);
        assert!(matches!(judge(&circle, &BTreeSet::new(), false), Err(Trouble::Broken(_))));
        for step in [1, -1] {
            let name = |n: i32| format!("a.{n:05}");
            let deep: Known = (1..9_999)
                .flat_map(|n| known(&[(&name(n), &[], &[&name(n + step), &name(n + step)])]))
                .collect();
            assert!(matches!(judge(&deep, &BTreeSet::new(), false), Err(Trouble::Broken(_))));
        }
    }

    #[test]
    fn two_ends_of_one_app_and_an_applied_one_after_one_that_is_not_are_told() {
        let apart = known(&[
            ("a.1", &[], &[]),
            ("a.2", &["a.1"], &[]),
            ("a.3", &["a.1"], &[]),
            ("b.1", &["a.2"], &[]),
        ]);
        let all = finding(&apart, &["a.1", "a.2", "a.3", "b.1"]);
        assert_eq!((all.rivals, all.pending), (vec!["a.2".to_owned(), "a.3".to_owned()], vec![]));
        let line = known(&[("a.1", &[], &[]), ("a.2", &["a.1"], &[])]);
        let early = finding(&line, &["a.2", "a.gone", "b.gone"]);
        assert_eq!((early.early, early.unknown), (vec!["a.2".to_owned()], vec!["a.gone".to_owned()]));
        let first =
            known(&[("a.1", &["b.__first__"], &[]), ("b.1", &["c.1"], &[]), ("b.2", &["b.1", "a.1"], &[])]);
        assert_eq!(left(&first, &[]), ["a.1", "b.1", "b.2"]);
    }

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
