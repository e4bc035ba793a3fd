//! The tools whose migrations are files or folders with a version, and whose table holds the versions: sqlx, Diesel and refinery.
//!
//! Their sources are `sqlx_core::migrate::source`, `migrations_internals` and `refinery_core::{runner, util}`.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash as _, Hasher as _};
use std::path::Path;

use sha2::{Digest as _, Sha384};
use siphasher::sip::SipHasher13;

use super::Finding;
use super::files::{Files, Trouble};
use crate::database::Row;

/// Migrations, by version: the checksums that their files may have, where that is known.
pub(super) type Known = BTreeMap<String, Vec<String>>;

/// sqlx's, of one folder: `20260101120000_goods.sql`, `…_goods.up.sql`.
pub(super) fn read_sqlx(files: &mut Files, folder: &Path, known: &mut Known) -> Result<(), Trouble> {
    for name in files.names(folder)? {
        let path = folder.join(&name);
        if let Some(version) = sqlx(&name)
            && !files.is_folder(&path)?
        {
            known.insert(version, vec![sha384(&files.text(&path)?)]);
        }
    }
    Ok(())
}

/// Diesel's, of one folder: `2026-01-01-120000_goods/`, with `up.sql` in it.
pub(super) fn read_diesel(files: &mut Files, folder: &Path, known: &mut Known) -> Result<(), Trouble> {
    for name in files.names(folder)? {
        if let Some(version) = diesel(&name)
            && files.is_file(&folder.join(&name).join("up.sql"))?
        {
            known.insert(version, Vec::new());
        }
    }
    Ok(())
}

/// refinery's, of a folder and those in it: `V1__goods.sql`, `U2__prices.rs`.
pub(super) fn read_refinery(files: &mut Files, folder: &Path, known: &mut Known) -> Result<(), Trouble> {
    for name in files.names(folder)? {
        let path = folder.join(&name);
        if files.is_folder(&path)? {
            read_refinery(files, &path, known)?;
        } else if let Some((version, about)) = refinery(&name) {
            // What a program in Rust makes, only it knows.
            let sums = match name.strip_suffix(".sql") {
                Some(_) => sip(about, version, &files.text(&path)?).to_vec(),
                None => Vec::new(),
            };
            known.insert(version.to_string(), sums);
        }
    }
    Ok(())
}

pub(super) fn sqlx(name: &str) -> Option<String> {
    let (version, rest) = name.split_once('_')?;
    let is_up = rest.strip_suffix(".sql").is_some_and(|stem| stem.strip_suffix(".down").is_none());
    version.parse::<i64>().ok().filter(|_| is_up).map(|version| version.to_string())
}

/// What stands before the first `_`, without `-`.
pub(super) fn diesel(name: &str) -> Option<String> {
    let version = name.split('_').next()?.replace('-', "");
    (!name.starts_with('.') && !version.is_empty()).then_some(version)
}

/// The version, and what follows it.
pub(super) fn refinery(name: &str) -> Option<(i64, &str)> {
    let stem = name.strip_suffix(".sql").or_else(|| name.strip_suffix(".rs"))?;
    let (version, about) = stem.strip_prefix(['V', 'U'])?.split_once("__")?;
    let digits = version.bytes().all(|byte| byte.is_ascii_digit());
    let is_word = !about.is_empty() && about.chars().all(|char| char.is_alphanumeric() || char == '_');
    version.parse().ok().filter(|_| digits && is_word).map(|version| (version, about))
}

fn sha384(text: &str) -> String {
    use std::fmt::Write as _;
    Sha384::digest(text).iter().fold(String::new(), |mut hex, byte| {
        // Writing to a text does not fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// With versions of 32 bits, and as built with the feature `int8-versions`.
fn sip(about: &str, version: i64, sql: &str) -> [String; 2] {
    [true, false].map(|narrow| {
        let mut hasher = SipHasher13::new();
        about.hash(&mut hasher);
        match i32::try_from(version) {
            Ok(version) if narrow => version.hash(&mut hasher),
            _ => version.hash(&mut hasher),
        }
        sql.hash(&mut hasher);
        hasher.finish().to_string()
    })
}

/// What the table says of the migrations of the files: `version`, whether it succeeded, and the checksum, of which Diesel's has the
/// first alone.
pub(super) fn judge(known: &Known, rows: &[Row]) -> Finding {
    let mut finding = Finding::default();
    let mut applied = BTreeSet::new();
    for row in rows {
        let Some(version) = row.get(0) else { continue };
        if matches!(row.get(1), Some("f" | "0")) {
            finding.failed.push(version.to_owned());
        }
        match known.get(version) {
            None => finding.unknown.push(version.to_owned()),
            Some(sums) if is_another(row.get(2), sums) => finding.changed.push(version.to_owned()),
            Some(_) => {}
        }
        applied.insert(version);
    }
    finding.pending = known.keys().filter(|version| !applied.contains(version.as_str())).cloned().collect();
    finding
}

/// Whether a checksum of the table is none of those that a file may have, where both are known.
pub(super) fn is_another(recorded: Option<&str>, sums: &[String]) -> bool {
    recorded.is_some_and(|recorded| !sums.is_empty() && sums.iter().all(|sum| sum != recorded))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_files_name_says_its_version_as_its_tool_reads_it() {
        assert_eq!(sqlx("0001_goods.sql").as_deref(), Some("1"));
        assert_eq!(sqlx("20260101_goods.up.sql").as_deref(), Some("20260101"));
        assert_eq!(
            [sqlx("1_goods.down.sql"), sqlx("x_goods.sql"), sqlx("1.sql"), sqlx("1_goods.md")],
            [const { None }; 4]
        );
        assert_eq!(diesel("2026-01-01-120000_goods").as_deref(), Some("20260101120000"));
        assert_eq!(diesel("00000000000000_diesel_initial_setup").as_deref(), Some("00000000000000"));
        assert_eq!([diesel(".git"), diesel("_x")], [const { None }; 2]);
        assert_eq!(refinery("V01__goods.sql"), Some((1, "goods")));
        assert_eq!(refinery("U2__prices.rs"), Some((2, "prices")));
        assert_eq!(
            [refinery("V1_goods.sql"), refinery("mod.rs"), refinery("V1__a-b.sql"), refinery("V+1__a.sql")],
            [None; 4]
        );
    }

    #[test]
    fn a_checksum_that_is_not_known_is_no_other_one() {
        let sums = ["7".to_owned(), "8".to_owned()];
        assert!(is_another(Some("9"), &sums));
        assert!(!is_another(Some("8"), &sums) && !is_another(None, &sums) && !is_another(Some("9"), &[]));
    }
}
