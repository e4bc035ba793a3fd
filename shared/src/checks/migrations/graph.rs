//! What follows what: migrations by name, each with those that it depends on. Nothing here knows a tool.

use std::collections::{BTreeMap, BTreeSet};

use super::files::Trouble;

/// Migrations, and the order that they demand.
#[derive(Debug, Default)]
pub(super) struct Graph(BTreeMap<String, Node>);

#[derive(Debug, Default)]
struct Node {
    /// Whether it is more than what another one depends on.
    there: bool,
    parents: BTreeSet<String>,
    children: BTreeSet<String>,
}

impl Graph {
    /// Adds one that is there.
    pub(super) fn add(&mut self, name: &str) {
        self.0.entry(name.to_owned()).or_default().there = true;
    }

    /// Lets one follow another one, whether they are there or not.
    pub(super) fn link(&mut self, child: &str, parent: &str) {
        self.0.entry(child.to_owned()).or_default().parents.insert(parent.to_owned());
        self.0.entry(parent.to_owned()).or_default().children.insert(child.to_owned());
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub(super) fn parents(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.get(name).into_iter().flat_map(|node| &node.parents).map(String::as_str)
    }

    pub(super) fn children(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.get(name).into_iter().flat_map(|node| &node.children).map(String::as_str)
    }

    /// Those of these names, and all that come before them.
    pub(super) fn up_to<'a>(&'a self, names: impl IntoIterator<Item = &'a str>) -> BTreeSet<&'a str> {
        let mut found = BTreeSet::new();
        let mut next: Vec<&str> = names.into_iter().collect();
        while let Some(name) = next.pop() {
            if found.insert(name) {
                next.extend(self.parents(name));
            }
        }
        found
    }

    /// Puts one in the place of others: what followed them or came before them now does so of it.
    pub(super) fn replace(&mut self, old: &BTreeSet<String>, new: &str) {
        for name in old {
            let Some(node) = self.0.remove(name) else { continue };
            self.forget(name, &node);
            for child in node.children.difference(old) {
                self.link(child, new);
            }
            for parent in node.parents.difference(old) {
                self.link(new, parent);
            }
        }
    }

    /// Takes one away that stands for others: what followed it now follows the last of those.
    pub(super) fn withdraw(&mut self, new: &str, old: &BTreeSet<String>) {
        let Some(node) = self.0.remove(new) else { return };
        self.forget(new, &node);
        let there: BTreeSet<&String> = old.iter().filter(|name| self.contains(name)).collect();
        let followed: BTreeSet<String> =
            there.iter().flat_map(|name| self.parents(name)).map(str::to_owned).collect();
        let last: Vec<String> = there.into_iter().filter(|name| !followed.contains(*name)).cloned().collect();
        for child in &node.children {
            for parent in &last {
                self.link(child, parent);
            }
        }
    }

    /// Ends what leads to one that is there no more.
    fn forget(&mut self, name: &str, node: &Node) {
        for child in &node.children {
            if let Some(child) = self.0.get_mut(child) {
                child.parents.remove(name);
            }
        }
        for parent in &node.parents {
            if let Some(parent) = self.0.get_mut(parent) {
                parent.children.remove(name);
            }
        }
    }

    /// Whether all are there, and none follows itself.
    pub(super) fn is_whole(&self) -> Result<(), Trouble> {
        if let Some((name, node)) = self.0.iter().find(|(_, node)| !node.there) {
            let who = node.children.first().or(node.parents.first()).map_or("", String::as_str);
            return Err(Trouble::Broken(format!("{who:?} names {name:?}, which is not there")));
        }
        let mut left: BTreeMap<&str, usize> =
            self.0.iter().map(|(name, node)| (name.as_str(), node.parents.len())).collect();
        let mut next: Vec<&str> = self.names().filter(|name| left.get(name) == Some(&0)).collect();
        while let Some(name) = next.pop() {
            left.remove(name);
            for child in self.children(name) {
                if let Some(parents) = left.get_mut(child) {
                    *parents -= 1;
                    if *parents == 0 {
                        next.push(child);
                    }
                }
            }
        }
        match left.keys().next() {
            Some(name) => Err(Trouble::Broken(format!("{name:?} is in a circle, or follows one"))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(links: &[(&str, &str)]) -> Graph {
        let mut graph = Graph::default();
        for (child, parent) in links {
            graph.add(child);
            graph.add(parent);
            graph.link(child, parent);
        }
        graph
    }

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_stands_for_others_takes_and_gives_back_their_place() {
        let links = [("2", "1"), ("3", "2"), ("s", "0"), ("1", "0"), ("4", "s")];
        let mut used = graph(&links);
        used.replace(&set(&["1", "2", "gone"]), "s");
        assert_eq!(used.parents("3").collect::<Vec<_>>(), ["s"]);
        assert_eq!(used.up_to(["3"]), BTreeSet::from(["0", "3", "s"]));
        let mut withdrawn = graph(&links);
        withdrawn.withdraw("s", &set(&["1", "2", "gone"]));
        assert_eq!(withdrawn.parents("4").collect::<Vec<_>>(), ["2"]);
        assert_eq!(withdrawn.children("0").collect::<Vec<_>>(), ["1"]);
        assert!(used.is_whole().is_ok() && withdrawn.is_whole().is_ok());
    }

    #[test]
    fn a_circle_and_what_is_missing_are_told() {
        assert!(graph(&[("2", "1"), ("3", "2"), ("3", "1")]).is_whole().is_ok());
        assert!(matches!(graph(&[("2", "1"), ("1", "2")]).is_whole(), Err(Trouble::Broken(_))));
        assert!(matches!(graph(&[("1", "1")]).is_whole(), Err(Trouble::Broken(_))));
        let mut missing = graph(&[("2", "1")]);
        missing.link("1", "0");
        assert_eq!(missing.is_whole().unwrap_err().to_string(), "\"1\" names \"0\", which is not there");
    }
}
