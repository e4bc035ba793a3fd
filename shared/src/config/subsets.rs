//! Subsets: named lists of checks, which may include others as `@name`.

use std::collections::{HashMap, HashSet};

use super::checks::is_name;
use super::form::{Reader, nearest};
use super::node::{Datum, Node, Table};
use super::problem::Code;

/// A subset as it stands in the file.
#[derive(Clone, Debug)]
pub struct Subset {
    /// Its name.
    pub name: String,
    entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    at: usize,
    names: Names,
}

#[derive(Clone, Debug)]
enum Names {
    Check(String),
    Subset(String),
}

/// Reads the table. Whether what they name is there is told by [`link`], once all of it is known.
pub fn read(table: &Table, reader: &mut Reader<'_>) -> Vec<Subset> {
    let mut subsets = Vec::new();
    for (key, node) in table {
        if !is_name(&key.name) {
            super::checks::bad_name(reader, key, "subset");
        }
        if let Some(entries) = entries(node, &key.name, reader) {
            subsets.push(Subset { name: key.name.clone(), entries });
        }
    }
    subsets
}

fn entries(node: &Node, name: &str, reader: &mut Reader<'_>) -> Option<Vec<Entry>> {
    let Datum::List(list) = &node.datum else {
        let what = format!("`subsets.{name}` must be a list of checks, and is {}", node.datum.word());
        reader.found.add(node.at, Code::WrongType, what);
        return None;
    };
    if list.is_empty() {
        reader.found.add(node.at, Code::EmptySubset, format!("the subset `{name}` lists no check"));
    }
    let text = serde_json::json!({ "type": "string" });
    let mut entries = Vec::new();
    for (number, item) in list.iter().enumerate() {
        let Some(word) = reader.value(item, &text, &format!("subsets.{name}[{number}]")) else { continue };
        let word = word.as_str().unwrap_or_default();
        let names = match word.strip_prefix('@') {
            Some(subset) => Names::Subset(subset.to_owned()),
            None => Names::Check(word.to_owned()),
        };
        entries.push(Entry { at: item.at, names });
    }
    Some(entries)
}

/// Tells what the subsets name that is not there, and where they go in circles.
pub fn link(subsets: &[Subset], all_subsets: &[&str], checks: &[&str], reader: &mut Reader<'_>) {
    let known_subsets: HashSet<_> = all_subsets.iter().copied().collect();
    let known_checks: HashSet<_> = checks.iter().copied().collect();
    for subset in subsets {
        for Entry { at, names } in &subset.entries {
            match names {
                Names::Check(name) if !known_checks.contains(&**name) => {
                    let near = if known_subsets.contains(&**name) {
                        format!("did you mean the subset `@{name}`?")
                    } else {
                        nearest(name, checks.iter().copied())
                    };
                    reader.found.add(
                        *at,
                        Code::UnknownCheck,
                        format!("there is no check `{}`; {near}", shown(name)),
                    );
                }
                Names::Subset(name) if !known_subsets.contains(&**name) => {
                    let near = nearest(name, all_subsets.iter().copied());
                    reader.found.add(
                        *at,
                        Code::UnknownSubset,
                        format!("there is no subset `{}`; {near}", shown(name)),
                    );
                }
                Names::Check(_) | Names::Subset(_) => {}
            }
        }
    }
    circles(subsets, reader);
}

fn shown(name: &str) -> String {
    name.escape_debug().to_string()
}

/// Follows every include once. Each one that leads back to where its own way came through is told.
fn circles(subsets: &[Subset], reader: &mut Reader<'_>) {
    let by_name: HashMap<_, _> = subsets.iter().map(|subset| (&*subset.name, subset)).collect();
    let mut done = HashSet::new();
    for start in subsets {
        // The way to here: each subset with how many of its entries have been followed.
        let mut way = vec![(start, 0)];
        let mut passed = HashSet::from([&*start.name]);
        while let Some((subset, followed)) = way.last_mut() {
            let subset = *subset;
            let Some(entry) = subset.entries.get(*followed).filter(|_| !done.contains(&*subset.name)) else {
                done.insert(&*subset.name);
                passed.remove(&*subset.name);
                way.pop();
                continue;
            };
            *followed += 1;
            let Names::Subset(name) = &entry.names else { continue };
            let Some(next) = by_name.get(&**name) else { continue };
            if passed.insert(&*next.name) {
                way.push((next, 0));
                continue;
            }
            let begin = way.iter().position(|(passed, _)| passed.name == *name).unwrap_or_default();
            let names = way[begin..].iter().map(|(passed, _)| format!("`{}`", passed.name));
            let circle: Vec<_> = names.chain([format!("`{name}`")]).collect();
            let what = format!("subsets include each other in a circle: {}", circle.join(" → "));
            reader.found.add(entry.at, Code::Circle, what);
        }
    }
}

/// The names of the checks of a subset, with those that it includes, in the order of its list and each once.
pub fn flatten<'s>(subsets: &'s [Subset], name: &str) -> Option<Vec<&'s str>> {
    let by_name: HashMap<_, _> = subsets.iter().map(|subset| (&*subset.name, subset)).collect();
    let (mut checks, mut seen, mut included) = (Vec::new(), HashSet::new(), HashSet::from([name.to_owned()]));
    let mut way = vec![by_name.get(name)?.entries.iter()];
    while let Some(entries) = way.last_mut() {
        match entries.next().map(|entry| &entry.names) {
            None => drop(way.pop()),
            Some(Names::Check(check)) if seen.insert(&**check) => checks.push(&**check),
            Some(Names::Subset(subset)) if included.insert(subset.clone()) => {
                way.extend(by_name.get(&**subset).map(|subset| subset.entries.iter()));
            }
            Some(Names::Check(_) | Names::Subset(_)) => {}
        }
    }
    Some(checks)
}

/// The names of the checks that the subsets list themselves.
pub fn listed(subsets: &[Subset]) -> HashSet<&str> {
    let entries = subsets.iter().flat_map(|subset| &subset.entries);
    entries
        .filter_map(|entry| if let Names::Check(name) = &entry.names { Some(&**name) } else { None })
        .collect()
}
