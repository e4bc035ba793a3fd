//! Alembic's revisions: a graph, of which the table holds the heads that the database is at.
//!
//! The source of what is read is `alembic.script`. Version folders are read without those in them; revisions without source
//! are none.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::Finding;
use super::files::{Files, Trouble};
use super::graph::Graph;
use super::python::{self, Constant, Unreadable};

/// Revisions, and the labels by which others may name them.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Each with those that it follows and depends on.
    pub revisions: BTreeMap<String, Vec<String>>,
    labels: BTreeMap<String, String>,
}

/// The revisions of a folder of versions.
pub(super) fn read(files: &mut Files, folder: &Path, known: &mut Known) -> Result<(), Trouble> {
    for name in files.names(folder)? {
        if name.strip_suffix(".py").is_none() || name.starts_with(".#") || name.starts_with("__init__") {
            continue;
        }
        let path = folder.join(&name);
        let revision = revision(&files.text(&path)?).map_err(|Unreadable| Trouble::Unreadable(path))?;
        known.labels.extend(revision.labels.into_iter().map(|label| (label, revision.name.clone())));
        known.revisions.insert(revision.name, revision.parents);
    }
    Ok(())
}

/// What is neither one of the revisions that the database is at nor before one. Where it is at one that nobody here knows, what
/// came before that nobody can tell: then that alone is told.
pub(super) fn judge(known: &Known, at: &BTreeSet<String>) -> Result<Finding, Trouble> {
    let mut graph = Graph::default();
    for (name, parents) in &known.revisions {
        graph.add(name);
        for parent in parents {
            graph.link(name, known.labels.get(parent).unwrap_or(parent));
        }
    }
    graph.is_whole()?;
    let (there, unknown): (Vec<&String>, Vec<&String>) = at.iter().partition(|name| graph.contains(name));
    if !unknown.is_empty() {
        return Ok(Finding { unknown: unknown.into_iter().cloned().collect(), ..Finding::default() });
    }
    let applied = graph.up_to(there.into_iter().map(String::as_str));
    let pending = graph.names().filter(|name| !applied.contains(name)).map(str::to_owned).collect();
    Ok(Finding { pending, ..Finding::default() })
}

struct Revision {
    name: String,
    parents: Vec<String>,
    labels: Vec<String>,
}

fn revision(source: &str) -> Result<Revision, Unreadable> {
    let words = ["revision", "down_revision", "depends_on", "branch_labels"];
    let mut said: [Option<Constant>; 4] = Default::default();
    for line in python::lines(source) {
        let line = line?;
        for (word, said) in words.iter().zip(&mut said) {
            match line.assigns(word).filter(|_| line.indent == 0) {
                Some(value) => *said = Some(value?),
                // Anywhere else it may be a function's own.
                None if line.indent == 0 && line.speaks_of(word) => return Err(Unreadable),
                None => {}
            }
        }
    }
    let [name, parents, depends_on, labels] = said.map(|said| texts(said.as_ref()));
    let mut parents = parents?;
    parents.append(&mut depends_on?);
    let name = name?.pop().ok_or(Unreadable)?;
    Ok(Revision { name, parents, labels: labels? })
}

fn texts(value: Option<&Constant>) -> Result<Vec<String>, Unreadable> {
    let Some(value) = value else { return Ok(Vec::new()) };
    Ok(value.texts().ok_or(Unreadable)?.into_iter().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(list: &[(&str, &[&str])]) -> Known {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        let revisions = list.iter().map(|(name, parents)| ((*name).to_owned(), names(parents))).collect();
        Known { revisions, labels: BTreeMap::from([("branch".to_owned(), "m".to_owned())]) }
    }

    #[test]
    fn what_is_before_a_head_is_applied_along_branches_merges_and_dependencies() {
        let known = known(&[
            ("a", &[]),
            ("b", &["a"]),
            ("c", &["a"]),
            ("m", &["b", "c"]),
            ("d", &[]),
            ("e", &["d", "branch"]),
        ]);
        let finding = |at: &[&str]| judge(&known, &at.iter().map(ToString::to_string).collect()).unwrap();
        assert_eq!(finding(&[]).pending, ["a", "b", "c", "d", "e", "m"]);
        assert_eq!(finding(&["b"]).pending, ["c", "d", "e", "m"]);
        assert_eq!(finding(&["m", "d"]).pending, ["e"]);
        assert_eq!(finding(&["e"]), Finding::default());
        let gone = finding(&["gone", "a"]);
        assert_eq!((gone.pending, gone.unknown), (vec![], vec!["gone".to_owned()]));
    }

    #[test]
    fn revisions_that_do_not_fit_together_are_told() {
        for broken in [known(&[("b", &["a"])]), known(&[("a", &["b"]), ("b", &["a"])])] {
            assert!(matches!(judge(&broken, &BTreeSet::new()), Err(Trouble::Broken(_))), "{broken:?}");
        }
    }

    #[test]
    fn a_revision_is_read_as_its_template_writes_it() {
        let source = "'''add goods\n\nRevision ID: b\n'''\nfrom typing import Union\nrevision: str = 'b'\n\
            down_revision: Union[str, Sequence[str], None] = ('a', 'c')\nbranch_labels = None\ndepends_on = 'd'\n\n\n\
            def upgrade() -> None:\n    op.execute(revision)\n";
        let read = revision(source).ok().unwrap();
        assert_eq!(
            (read.name.as_str(), read.parents.join(" ").as_str(), read.labels.len()),
            ("b", "a c d", 0)
        );
        for wrong in ["revision = make()", "down_revision = 'a'", "revision = 'a'\ndown_revision = older()"] {
            assert!(revision(wrong).is_err(), "{wrong}");
        }
    }
}
