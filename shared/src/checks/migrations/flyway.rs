//! Flyway's migrations, versioned (`V1.2__goods.sql`) and repeatable (`R__views.sql`), and what its table says of them, row by
//! row.
//!
//! The source of what is read is `org.flywaydb.core.internal`: its names with the prefixes, the separator and the suffix that they
//! have where nobody sets others.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::path::Path;

use super::Finding;
use super::files::{Files, Trouble};
use super::versions::{Known, is_another};
use crate::database::Row;

/// The migrations of a folder and those in it, but for hidden ones.
pub(super) fn read(files: &mut Files, folder: &Path, known: &mut Known) -> Result<(), Trouble> {
    for name in files.names(folder)? {
        let path = folder.join(&name);
        if files.is_folder(&path)? {
            if !name.starts_with('.') {
                read(files, &path, known)?;
            }
        } else if let Some(migration) = migration(&name) {
            let sum = checksum(&files.bytes(&path)?, is_repeatable(&migration));
            known.insert(migration, sum.into_iter().collect());
        }
    }
    Ok(())
}

/// The version of a file, or its name where it has none because it is repeatable.
pub(super) fn migration(name: &str) -> Option<String> {
    let stem = name.strip_suffix(".sql")?;
    if is_repeatable(stem) {
        return Some(name.to_owned());
    }
    normal(stem.strip_prefix('V')?.split_once("__")?.0)
}

fn is_repeatable(name: &str) -> bool {
    name.starts_with("R__")
}

/// A version with its parts as numbers, without those of nothing at the end.
pub(super) fn normal(version: &str) -> Option<String> {
    let digits = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let mut parts: Vec<&str> = version.split(['.', '_']).collect();
    if !parts.iter().all(digits) {
        return None;
    }
    for part in &mut parts {
        *part = part.trim_start_matches('0');
    }
    while parts.last().is_some_and(|part| part.is_empty()) {
        parts.pop();
    }
    let parts: Vec<&str> = parts.into_iter().map(|part| if part.is_empty() { "0" } else { part }).collect();
    Some(if parts.is_empty() { "0".to_owned() } else { parts.join(".") })
}

fn compare(one: &str, other: &str) -> Ordering {
    fn parts(version: &str) -> impl Iterator<Item = (usize, &str)> {
        // Of numbers without a nought before them the longer one is the larger one, and "0" is the least.
        version.split('.').map(|part| (part.len(), part))
    }
    parts(one).cmp(parts(other))
}

/// CRC-32 of the lines without their ends, in UTF-8. None where placeholders are filled in before, or the file is in another encoding.
fn checksum(bytes: &[u8], repeatable: bool) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    if repeatable && text.contains("${") {
        return None;
    }
    let mut crc = u32::MAX;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for byte in text.bytes().filter(|byte| !matches!(byte, b'\n' | b'\r')) {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    Some((!crc).cast_signed().to_string())
}

/// What the table says of the migrations of the files, in the order of its ranks: `version`, `type`, `script`, `checksum`,
/// `success`. An undone or deleted version is not applied; what is not above a baseline is not wanted; a repeatable one is applied
/// again once its file has changed.
pub(super) fn judge(known: &Known, rows: &[Row]) -> Finding {
    let mut finding = Finding::default();
    let mut applied: BTreeMap<String, Option<&str>> = BTreeMap::new();
    let mut baseline: Option<String> = None;
    for row in rows {
        let (kind, script) = (row.get(1).unwrap_or_default(), row.get(2).unwrap_or_default());
        let name = row.get(0).map_or_else(|| script.rsplit('/').next().map(str::to_owned), normal);
        let Some(name) = name else { continue };
        finding.failed.retain(|failed| *failed != name);
        if matches!(row.get(4), Some("f" | "0")) {
            finding.failed.push(name);
        } else if kind.starts_with("UNDO") || kind == "DELETE" {
            applied.remove(&name);
        } else if kind.ends_with("BASELINE") {
            baseline = Some(name);
        } else if kind != "SCHEMA" {
            applied.insert(name, row.get(3));
        }
    }
    let wanted = |name: &str| {
        let below = |baseline: &String| compare(name, baseline) != Ordering::Greater;
        is_repeatable(name) || !baseline.as_ref().is_some_and(below)
    };
    for (name, sums) in known.iter().filter(|(name, _)| wanted(name)) {
        match applied.get(name) {
            None if finding.failed.contains(name) => {}
            Some(sum) if !is_another(*sum, sums) => {}
            Some(_) if !is_repeatable(name) => finding.changed.push(name.clone()),
            _ => finding.pending.push(name.clone()),
        }
    }
    finding.unknown = applied.into_keys().filter(|name| !known.contains_key(name) && wanted(name)).collect();
    finding
}

#[cfg(test)]
mod tests {
    use super::*;

    type Told<'t> = [Option<&'t str>; 5];

    fn of(known: &Known, rows: &[Told<'_>]) -> Finding {
        judge(known, &rows.iter().map(|row| Row::of(row)).collect::<Vec<_>>())
    }

    #[test]
    fn a_files_name_says_its_version_as_flyway_reads_it() {
        assert_eq!(migration("V001.20.0__goods.sql").as_deref(), Some("1.20"));
        assert_eq!(migration("V1_2__goods.sql").as_deref(), Some("1.2"));
        assert_eq!(migration("R__views.sql").as_deref(), Some("R__views.sql"));
        assert_eq!([migration("U1__goods.sql"), migration("V__x.sql")], [const { None }; 2]);
        assert_eq!(compare("1.10", "1.9"), Ordering::Greater);
        assert_eq!(compare("1", "1.1"), Ordering::Less);
    }

    #[test]
    fn a_table_is_read_in_its_order() {
        let known: Known = ["1", "2", "3", "4"].map(|version| (version.to_owned(), Vec::new())).into();
        let row = |version, kind, success| [Some(version), Some(kind), Some("V.sql"), None, Some(success)];
        for kind in ["BASELINE", "SQL_BASELINE"] {
            assert_eq!(of(&known, &[row("2", kind, "t"), row("3", "SQL", "1")]).pending, ["4"]);
        }
        let undone =
            [row("1", "SQL", "t"), row("2", "SQL", "t"), row("2", "UNDO_SQL", "t"), row("3.0", "SQL", "t")];
        assert_eq!(of(&known, &undone).pending, ["2", "4"]);
        let failed = of(&known, &[row("1", "SQL", "t"), row("2", "SQL", "0")]);
        assert_eq!(
            (failed.failed, failed.pending),
            (vec!["2".to_owned()], vec!["3".to_owned(), "4".to_owned()])
        );
        assert_eq!(of(&known, &[row("1", "SQL", "t"), row("9", "SQL", "t")]).unknown, ["9"]);
    }

    #[test]
    fn a_changed_file_has_changed_where_it_is_versioned_and_is_due_again_where_it_is_repeatable() {
        // The CRC-32 that everybody knows.
        assert_eq!(checksum(b"\xef\xbb\xbf1234\r\n56789\n", true).as_deref(), Some("-873187034"));
        assert_eq!(checksum(b"${schema}", true), None);
        assert!(checksum(b"${schema}", false).is_some());
        assert_eq!(checksum(b"caf\xe9", false), None);
        let known: Known = ["1", "R__v.sql"].map(|name| (name.to_owned(), vec!["7".to_owned()])).into();
        let row = |sum| {
            let versioned = [Some("1"), Some("SQL"), Some("V1__g.sql"), Some(sum), Some("t")];
            [versioned, [None, Some("SQL"), Some("sub/R__v.sql"), Some(sum), Some("t")]]
        };
        assert_eq!(of(&known, &row("7")), Finding::default());
        let changed = of(&known, &row("8"));
        assert_eq!((changed.changed, changed.pending), (vec!["1".to_owned()], vec!["R__v.sql".to_owned()]));
    }
}
