//! Alembic's revisions: a graph, of which the table holds the heads that the database is at.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::files::{Files, Trouble};
use super::python::{self, Unreadable};

/// Revisions, each with those that it follows and depends on.
pub(super) type Known = BTreeMap<String, Vec<String>>;

/// The revisions of a folder of versions.
pub(super) fn read(files: &mut Files, folder: &Path, known: &mut Known) -> Result<(), Trouble> {
    let mut labels = BTreeMap::new();
    let first: BTreeSet<String> = known.keys().cloned().collect();
    for name in files.names(folder)? {
        let stem =
            name.strip_suffix(".py").filter(|stem| !stem.starts_with(".#") && !stem.starts_with("__init__"));
        if stem.is_none() {
            continue;
        }
        let path = folder.join(&name);
        let revision = revision(&files.text(&path)?).map_err(|Unreadable| Trouble::Unreadable(path))?;
        labels.extend(revision.labels.into_iter().map(|label| (label, revision.name.clone())));
        known.insert(revision.name, revision.parents);
    }
    // Who depends on a branch's label depends on the revision that has it.
    for (_, parents) in known.iter_mut().filter(|(name, _)| !first.contains(*name)) {
        for parent in parents {
            if let Some(revision) = labels.get(parent) {
                parent.clone_from(revision);
            }
        }
    }
    Ok(())
}

/// The revisions that are neither one of those the database is at nor before one. Nothing where it is at one that no file has:
/// what came before that nobody can tell.
pub(super) fn pending(known: &Known, at: &BTreeSet<String>) -> Option<Vec<String>> {
    if !at.iter().all(|revision| known.contains_key(revision)) {
        return None;
    }
    let mut applied = BTreeSet::new();
    let mut next: Vec<&String> = at.iter().collect();
    while let Some(revision) = next.pop() {
        if applied.insert(revision) {
            next.extend(known.get(revision).into_iter().flatten());
        }
    }
    Some(known.keys().filter(|revision| !applied.contains(revision)).cloned().collect())
}

struct Revision {
    name: String,
    parents: Vec<String>,
    labels: Vec<String>,
}

fn revision(source: &str) -> Result<Revision, Unreadable> {
    let lines = python::lines(source)?;
    let texts = |name: &str| {
        let given = lines.iter().filter(|line| line.indent == 0).find_map(|line| line.assigns(name));
        match given {
            Some(value) => Ok(value?.texts().ok_or(Unreadable)?.into_iter().map(str::to_owned).collect()),
            None if lines.iter().any(|line| line.indent == 0 && line.speaks_of(name)) => Err(Unreadable),
            None => Ok::<Vec<String>, _>(Vec::new()),
        }
    };
    let mut parents = texts("down_revision")?;
    parents.extend(texts("depends_on")?);
    let name = texts("revision")?.pop().ok_or(Unreadable)?;
    Ok(Revision { name, parents, labels: texts("branch_labels")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_before_a_head_is_applied_along_branches_merges_and_dependencies() {
        let known = Known::from(
            [
                ("a", vec![]),
                ("b", vec!["a"]),
                ("c", vec!["a"]),
                ("m", vec!["b", "c"]),
                ("d", vec![]),
                ("e", vec!["d", "m"]),
            ]
            .map(|(name, parents)| (name.to_owned(), parents.into_iter().map(str::to_owned).collect())),
        );
        let left = |at: &[&str]| pending(&known, &at.iter().map(ToString::to_string).collect());
        let names = |names: &[&str]| Some(names.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(left(&[]), names(&["a", "b", "c", "d", "e", "m"]));
        assert_eq!(left(&["b"]), names(&["c", "d", "e", "m"]));
        assert_eq!(left(&["m", "d"]), names(&["e"]));
        assert_eq!(left(&["e"]), names(&[]));
        assert_eq!(left(&["gone"]), None);
    }

    #[test]
    fn a_revision_is_read_as_its_template_writes_it() {
        let source = "'''add goods\n\nRevision ID: b\n'''\nfrom typing import Union\nrevision: str = 'b'\n\
            down_revision: Union[str, Sequence[str], None] = ('a', 'c')\nbranch_labels = None\ndepends_on = 'd'\n";
        let read = revision(source).ok().unwrap();
        assert_eq!(
            (read.name.as_str(), read.parents.join(" ").as_str(), read.labels.len()),
            ("b", "a c d", 0)
        );
        assert!(revision("revision = make()").is_err());
        assert!(revision("down_revision = 'a'").is_err());
    }
}
