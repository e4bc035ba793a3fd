//! The tools whose migrations are SQL files with a version: sqlx, Diesel, refinery and Flyway.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use sha2::{Digest as _, Sha384};

use super::files::{Files, Trouble};
use super::{Finding, Tool};
use crate::sql::Row;

/// Migrations, by version: what their files should be, where that is known.
pub(super) type Known = BTreeMap<String, Option<String>>;

/// The migrations of a folder.
pub(super) fn read(files: &mut Files, tool: Tool, folder: &Path, known: &mut Known) -> Result<(), Trouble> {
    for name in files.names(folder)? {
        let path = folder.join(&name);
        let found = match tool {
            Tool::Sqlx => match sqlx(&name) {
                Some(version) if path.is_file() => Some((version, Some(sha384(&files.text(&path)?)))),
                _ => None,
            },
            Tool::Diesel => {
                diesel(&name).filter(|_| path.join("up.sql").is_file()).map(|version| (version, None))
            }
            Tool::Refinery | Tool::Flyway if path.is_dir() => {
                read(files, tool, &path, known)?;
                None
            }
            Tool::Refinery => refinery(&name).map(|version| (version, None)),
            Tool::Flyway => match flyway(&name) {
                Some(version) => Some((version, None)),
                None if name.strip_suffix(".sql").is_some_and(|stem| stem.starts_with("R__")) => {
                    Some((name, checksum(&files.text(&path)?)))
                }
                None => None,
            },
            Tool::Django | Tool::Alembic => None,
        };
        known.extend(found);
    }
    Ok(())
}

/// `20260101120000_goods.sql` or `…_goods.up.sql`, as `sqlx::migrate` resolves it.
fn sqlx(name: &str) -> Option<String> {
    let (version, rest) = name.split_once('_')?;
    let is_up = rest.strip_suffix(".sql").is_some_and(|stem| stem.strip_suffix(".down").is_none());
    version.parse::<i64>().ok().filter(|_| is_up).map(|version| version.to_string())
}

/// `2026-01-01-120000_goods/`, with `up.sql` in it: the version is what stands before the first `_`, without `-`.
fn diesel(name: &str) -> Option<String> {
    let version = name.split('_').next()?.replace('-', "");
    (!name.starts_with('.') && !version.is_empty()).then_some(version)
}

/// `V1__goods.sql`, `U2__prices.rs`.
fn refinery(name: &str) -> Option<String> {
    let stem = name.strip_suffix(".sql").or_else(|| name.strip_suffix(".rs"))?;
    let (version, rest) = stem.strip_prefix(['V', 'U'])?.split_once("__")?;
    version.parse::<u64>().ok().filter(|_| !rest.is_empty()).map(|version| version.to_string())
}

/// `V1.2__goods.sql`: the version with its parts as numbers, without those of nothing at the end.
fn flyway(name: &str) -> Option<String> {
    let (version, _) = name.strip_suffix(".sql")?.strip_prefix('V')?.split_once("__")?;
    normal(version)
}

fn normal(version: &str) -> Option<String> {
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
    let parts = |version: &str| -> Vec<(usize, String)> {
        version.split('.').map(|part| (part.len(), part.to_owned())).collect()
    };
    parts(one).cmp(&parts(other))
}

fn sha384(text: &str) -> String {
    use std::fmt::Write as _;
    Sha384::digest(text).iter().fold(String::new(), |mut hex, byte| {
        // Writing to a text does not fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// Flyway's: CRC-32 of the lines without their ends. None where placeholders would be filled in first.
fn checksum(text: &str) -> Option<String> {
    if text.contains("${") {
        return None;
    }
    let mut crc = u32::MAX;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n");
    for byte in text.bytes().filter(|byte| !matches!(byte, b'\n' | b'\r')) {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    Some((!crc).cast_signed().to_string())
}

/// What the table says of the migrations of the files: `version`, whether it succeeded, and the checksum.
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
            Some(Some(wanted)) if row.get(2).is_some_and(|checksum| checksum != wanted) => {
                finding.changed.push(version.to_owned());
            }
            Some(_) => {}
        }
        applied.insert(version);
    }
    finding.pending = known.keys().filter(|version| !applied.contains(version.as_str())).cloned().collect();
    finding
}

/// The same of Flyway's table, in the order of its ranks: `version`, `type`, `script`, `checksum`, `success`. An undone or
/// deleted version is not applied; what is not above a baseline is not wanted; a repeatable one is applied again once its file has
/// changed.
pub(super) fn judge_flyway(known: &Known, rows: &[Row]) -> Finding {
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
        } else if kind == "BASELINE" {
            baseline = Some(name);
        } else if kind != "SCHEMA" {
            applied.insert(name, row.get(3));
        }
    }
    let wanted = |version: &str| {
        let below = |baseline: &String| compare(version, baseline) != Ordering::Greater;
        version.starts_with("R__") || !baseline.as_ref().is_some_and(below)
    };
    for (name, checksum) in known.iter().filter(|(name, _)| wanted(name)) {
        let again = |of: Option<&str>| checksum.as_deref().is_some_and(|checksum| of != Some(checksum));
        if applied.get(name).copied().is_none_or(again) && !finding.failed.contains(name) {
            finding.pending.push(name.clone());
        }
    }
    finding.unknown = applied.into_keys().filter(|name| !known.contains_key(name) && wanted(name)).collect();
    finding
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(list: &[&[Option<&str>]]) -> Vec<Row> {
        list.iter().map(|row| Row::of(row)).collect()
    }

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
        assert_eq!(refinery("V01__goods.sql").as_deref(), Some("1"));
        assert_eq!(refinery("U2__prices.rs").as_deref(), Some("2"));
        assert_eq!([refinery("V1_goods.sql"), refinery("mod.rs")], [const { None }; 2]);
        assert_eq!(flyway("V001.20.0__goods.sql").as_deref(), Some("1.20"));
        assert_eq!(flyway("V1_2__goods.sql").as_deref(), Some("1.2"));
        assert_eq!([flyway("U1__goods.sql"), flyway("V__x.sql")], [const { None }; 2]);
    }

    #[test]
    fn a_flyway_table_is_read_in_its_order() {
        let known: Known = ["1", "2", "3", "4"].iter().map(|version| ((*version).to_owned(), None)).collect();
        let row = |version, kind, success| [Some(version), Some(kind), Some("V.sql"), None, Some(success)];
        let of = |list: &[[Option<&str>; 5]]| {
            judge_flyway(&known, &list.iter().map(|row| Row::of(row)).collect::<Vec<_>>())
        };
        assert_eq!(of(&[row("2", "BASELINE", "t"), row("3", "SQL", "1")]).pending, ["4"]);
        let undone = of(&[
            row("1", "SQL", "t"),
            row("2", "SQL", "t"),
            row("2", "UNDO_SQL", "t"),
            row("3.0", "SQL", "t"),
        ]);
        assert_eq!(undone.pending, ["2", "4"]);
        let failed = of(&[row("1", "SQL", "t"), row("2", "SQL", "0")]);
        assert_eq!(
            (failed.failed, failed.pending),
            (vec!["2".to_owned()], vec!["3".to_owned(), "4".to_owned()])
        );
        assert_eq!(of(&[row("1", "SQL", "t"), row("9", "SQL", "t")]).unknown, ["9"]);
    }

    #[test]
    fn a_repeatable_migration_is_due_again_once_its_file_has_changed() {
        // The CRC-32 that everybody knows.
        assert_eq!(checksum("1234\r\n56789\n").as_deref(), Some("-873187034"));
        assert_eq!(checksum("${schema}"), None);
        let known = Known::from([("R__v.sql".to_owned(), Some("7".to_owned()))]);
        let row = |checksum| rows(&[&[None, Some("SQL"), Some("sub/R__v.sql"), Some(checksum), Some("t")]]);
        assert_eq!(judge_flyway(&known, &row("7")).pending, [""; 0]);
        assert_eq!(judge_flyway(&known, &row("8")).pending, ["R__v.sql"]);
        assert_eq!(judge_flyway(&known, &[]).pending, ["R__v.sql"]);
    }
}
