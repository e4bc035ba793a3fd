//! What MySQL and MariaDB say of themselves. How a replica stands they tell only to who may ask that (`REPLICATION CLIENT`,
//! MariaDB's `SLAVE MONITOR`).

use std::time::Duration;

use super::server::{Replication, Slots};
use super::{Role, nonsense};
use crate::check::Failure;
use crate::database::{Connection, Row, Trouble, What};

/// The primary is who takes writes: that is what `read_only` says, which every failover sets. A replica is who follows
/// another one.
pub(super) async fn role(
    connection: &mut Connection,
    wanted: Option<Role>,
) -> Result<(Role, Option<Replication>), Failure> {
    if wanted == Some(Role::Primary) {
        let role = if is_read_only(connection).await? { Role::Replica } else { Role::Primary };
        return Ok((role, None));
    }
    let channels = channels(connection).await?;
    match channels.iter().map(replication).reduce(worst) {
        Some(replication) => Ok((Role::Replica, Some(replication))),
        None => Ok((Role::Primary, None)),
    }
}

async fn is_read_only(connection: &mut Connection) -> Result<bool, Failure> {
    match connection.row("SELECT @@global.read_only").await?.get(0) {
        // MariaDB 12 has words for how much is refused.
        Some("0" | "OFF") => Ok(false),
        Some(_) => Ok(true),
        None => Err(nonsense()),
    }
}

/// Everything that it follows. The words have changed: MariaDB tells of all with `ALL`, MySQL without, and from 8.4 on it
/// knows only the new word.
async fn channels(connection: &mut Connection) -> Result<Vec<Row>, Trouble> {
    let version = connection.row("SELECT version()").await?;
    if version.get(0).is_some_and(|version| version.contains("MariaDB")) {
        return connection.rows("SHOW ALL SLAVES STATUS").await;
    }
    match connection.rows("SHOW REPLICA STATUS").await {
        Err(trouble) if trouble.what == What::Query => connection.rows("SHOW SLAVE STATUS").await,
        answer => answer,
    }
}

fn replication(channel: &Row) -> Replication {
    let runs = |names: &[&str]| channel.named(names) == Some("Yes");
    if !runs(&["Replica_IO_Running", "Slave_IO_Running"])
        || !runs(&["Replica_SQL_Running", "Slave_SQL_Running"])
    {
        return Replication::Stopped;
    }
    let seconds = channel.named(&["Seconds_Behind_Source", "Seconds_Behind_Master"]);
    Replication::Behind(seconds.and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs), None)
}

fn worst(one: Replication, other: Replication) -> Replication {
    match (one, other) {
        (Replication::Behind(a, _), Replication::Behind(b, _)) => {
            Replication::Behind(a.zip(b).map(|(a, b)| a.max(b)), None)
        }
        _ => Replication::Stopped,
    }
}

pub(super) async fn slots(connection: &mut Connection) -> Result<Vec<Slots>, Failure> {
    let limits = connection.row("SELECT @@global.max_connections, @@session.max_user_connections").await?;
    let used = connection.row("SHOW GLOBAL STATUS LIKE 'Threads_connected'").await?;
    let (Some(most), Some(mine), Some(used)) = (limits.number(0), limits.number(1), used.number(1)) else {
        return Err(nonsense());
    };
    let mut slots = vec![Slots { free: most.saturating_sub(used), most }];
    if mine > 0 {
        // Everybody sees their own.
        let own = "SELECT count(*) FROM information_schema.processlist WHERE user = substring_index(user(), '@', 1)";
        let used = connection.row(own).await?.number(0).ok_or_else(nonsense)?;
        slots.push(Slots { free: mine.saturating_sub(used), most: mine });
    }
    Ok(slots)
}

/// A temporary table can be made, and written to, on a server that takes no writes: so that is asked first, also of who may
/// write all the same. It is made once a connection, because some servers write that to their binary log.
pub(super) async fn write(connection: &mut Connection) -> Result<(), Failure> {
    if is_read_only(connection).await? {
        return Err(Trouble::new(What::ReadOnly, "read_only is set").into());
    }
    let statements = "CREATE TEMPORARY TABLE IF NOT EXISTS checker_write (probe INT); \
        START TRANSACTION READ WRITE; INSERT INTO checker_write VALUES (1); ROLLBACK";
    connection.rows(statements).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_channels_the_worst_counts() {
        let behind = |seconds| Replication::Behind(Some(Duration::from_secs(seconds)), None);
        let unknown = Replication::Behind(None, None);
        assert_eq!(worst(behind(3), behind(9)), behind(9));
        assert_eq!(worst(behind(3), Replication::Stopped), Replication::Stopped);
        assert_eq!(worst(unknown, behind(3)), unknown);
    }
}
