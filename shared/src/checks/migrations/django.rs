//! Django's migrations: what `migrate --check` makes of the files and of the table, without Python.
//!
//! - A squashed migration (`replaces`) stands for those that it replaces where all or none of them are applied: it is applied
//!   where all are, whatever the table says of itself. Where some are, they are looked at and it is not.
//! - Not applied is what would be applied on the way to the last migrations of the apps. Several last ones of one app, and an
//!   applied one that follows one that is not, are refused by Django, and so they are here.
//!
//! The source of all this is `django.db.migrations` (loader, graph, executor) as of Django 6.0, which in what 5.2 can do is the
//! same. What a migration depends on in an app that nobody told us of is passed over. What the files say is read in the file below.

mod source;

use std::collections::{BTreeMap, BTreeSet};

use super::Finding;
use super::files::Trouble;
use super::graph::Graph;

pub(super) use self::source::{Migration, read};

/// How deep squashed migrations may stand in others.
const MOST_SQUASHES: u8 = 50;

/// Migrations, by `app.name`.
pub(super) type Known = BTreeMap<String, Migration>;

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
        let old = replaces.iter().cloned().collect();
        if applied == targets.len() || applied == 0 {
            self.graph.replace(&old, name);
        } else {
            self.graph.withdraw(name, &old);
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
}
