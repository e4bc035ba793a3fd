//! What PostgreSQL says of itself, from version 10 on, to a role that has no right but to connect.

use std::time::Duration;

use super::server::{Replication, Slots};
use super::{Role, nonsense};
use crate::check::Failure;
use crate::database::{Connection, Row, Trouble};

/// With nothing received, replayed or timed where that was not yet: a position is the number of bytes from the beginning.
const ROLE: &str = "SELECT pg_is_in_recovery(), \
    CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() - '0/0' END, \
    CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() - '0/0' END, \
    CASE WHEN pg_is_in_recovery() THEN \
        (extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) * 1000)::bigint END, \
    EXISTS (SELECT FROM pg_stat_wal_receiver)";

pub(super) async fn role(connection: &mut Connection) -> Result<(Role, Option<Replication>), Failure> {
    let row = connection.row(ROLE).await?;
    match row.get(0) {
        Some("f") => Ok((Role::Primary, None)),
        Some("t") => Ok((Role::Replica, Some(replication(&row)))),
        _ => Err(nonsense()),
    }
}

/// The server's own measure, the age of the last transaction that was replayed, grows while there is nothing to replay; so
/// where all that was received is replayed, there is no lag. But only while something is received at all.
fn replication(row: &Row) -> Replication {
    let position = |index| row.get(index).and_then(|text| text.parse::<i128>().ok());
    let (received, replayed, connected) = (position(1), position(2), row.get(4) == Some("t"));
    match (received, replayed) {
        (Some(_), _) if !connected => Replication::Stopped,
        (Some(received), Some(replayed)) if replayed >= received => {
            Replication::Behind(Some(Duration::ZERO), None)
        }
        (received, replayed) => {
            let age = row.number(3).map(|age| Duration::from_millis(age.try_into().unwrap_or(0)));
            Replication::Behind(age, received.zip(replayed))
        }
    }
}

/// Per limit: how many there may be, and how many there are. No limit is -1. Who may see only itself in
/// `pg_stat_activity` sees all rows of others, with a backend's type left out.
const SLOTS: &str = "WITH client AS (SELECT usesysid, datid FROM pg_stat_activity \
        WHERE usesysid IS NOT NULL AND datid IS NOT NULL AND coalesce(backend_type, 'client backend') = 'client backend'), \
    me AS (SELECT oid, rolconnlimit, rolsuper FROM pg_roles WHERE rolname = session_user), \
    here AS (SELECT oid, datconnlimit FROM pg_database WHERE datname = current_database()) \
    SELECT current_setting('max_connections')::int \
        - CASE WHEN me.rolsuper THEN 0 ELSE current_setting('superuser_reserved_connections')::int END \
        - CASE WHEN me.rolsuper OR (SELECT bool_or(pg_has_role(session_user, oid, 'usage')) FROM pg_roles \
            WHERE rolname = 'pg_use_reserved_connections') \
            THEN 0 ELSE coalesce(current_setting('reserved_connections', true), '0')::int END, \
        (SELECT count(*) FROM client), \
        CASE WHEN me.rolsuper THEN -1 ELSE me.rolconnlimit END, (SELECT count(*) FROM client WHERE usesysid = me.oid), \
        CASE WHEN me.rolsuper THEN -1 ELSE here.datconnlimit END, (SELECT count(*) FROM client WHERE datid = here.oid) \
    FROM me, here";

pub(super) async fn slots(connection: &mut Connection) -> Result<Vec<Slots>, Failure> {
    let row = connection.row(SLOTS).await?;
    let limit = |index| {
        let (most, used) = row.number(index).zip(row.number(index + 1))?;
        Some((most >= 0).then_some(Slots { free: most.saturating_sub(used), most }))
    };
    let limits = [0, 2, 4].map(limit);
    if limits.contains(&None) {
        Err(nonsense())
    } else {
        Ok(limits.into_iter().flatten().flatten().collect())
    }
}

/// A table that is made and filled, and was never there. Nothing is said about read or write in `BEGIN`, so that it fails where
/// the service's own would.
pub(super) async fn write(connection: &mut Connection) -> Result<(), Trouble> {
    let statements = "BEGIN; CREATE TEMPORARY TABLE checker_write (probe integer) ON COMMIT DROP; \
        INSERT INTO checker_write VALUES (1); ROLLBACK";
    connection.rows(statements).await.map(drop)
}
