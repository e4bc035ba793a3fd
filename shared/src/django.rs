//! How Django names what it caches: the table of a cache in a database, and the keys in it.
//!
//! What is stored under a key, and what is asked, is the concern of who asks.

use std::fmt;

/// The name of a table, which cannot end the quotes that it stands in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table(String);

impl Table {
    /// None where no table is called so that need not be quoted within its quotes.
    pub fn parse(name: &str) -> Option<Self> {
        let fits = !name.is_empty() && name.len() <= 128;
        let plain = |character: char| character.is_alphanumeric() || "_-.$ ".contains(character);
        (fits && name.chars().all(plain)).then(|| Self(name.to_owned()))
    }
}

/// As it stands between quotes.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a cache's keys begin: its `KEY_PREFIX` and `VERSION`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheKeys {
    /// Default: nothing.
    pub prefix: String,
    /// Default: 1.
    pub version: u64,
}

impl Default for CacheKeys {
    fn default() -> Self {
        Self { prefix: String::new(), version: 1 }
    }
}

impl CacheKeys {
    /// What Django makes of a key.
    pub fn key(&self, key: &str) -> String {
        format!("{}:{}:{key}", self.prefix, self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_name_that_ends_no_quotes() {
        for name in ["django_cache", "Q cache", "größe", "shop.cache"] {
            assert_eq!(Table::parse(name).map(|table| table.to_string()), Some(name.to_owned()));
        }
        for name in ["", "a\"b", "a`b", "a'b", "a;b", "a\0b", "a\\b", &"a".repeat(129)] {
            assert_eq!(Table::parse(name), None, "{name}");
        }
    }
}
