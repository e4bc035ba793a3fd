//! What is asked of a server alone: which one it is among its fellows, how far it is behind, and whether it has room for more.

use std::time::{Duration, Instant};

use heartbeat::duration::Human;

use super::{Role, nonsense};
use crate::check::Failure;
use crate::database::{Connection, Engine};

/// What must hold.
#[derive(Debug)]
pub struct Asks {
    pub role: Option<Role>,
    pub max_lag: Option<Duration>,
    pub min_free: Option<u32>,
    pub min_free_percent: Option<u8>,
}

impl Asks {
    pub async fn ask(&self, connection: &mut Connection, deadline: Instant) -> Result<(), Failure> {
        if let Some(role) = self.role {
            let (is, said) = self.role(connection).await?;
            judge_role(role, is)?;
            if let (Some(limit), Some(replication)) = (self.max_lag, said) {
                self.judge_lag(connection, replication, limit, deadline).await?;
            }
        }
        if self.min_free.is_some() || self.min_free_percent.is_some() {
            let slots = match connection.engine() {
                #[cfg(feature = "mysql")]
                Engine::Mysql => super::mysql::slots(connection).await?,
                #[cfg(feature = "postgres")]
                Engine::Postgres => super::postgres::slots(connection).await?,
                _ => return Err(nonsense()),
            };
            slots.into_iter().try_for_each(|slots| self.judge_slots(slots))?;
        }
        Ok(())
    }

    /// Which one it is, and for a replica how it stands, where that is asked for.
    async fn role(&self, connection: &mut Connection) -> Result<(Role, Option<Replication>), Failure> {
        match connection.engine() {
            #[cfg(feature = "mysql")]
            Engine::Mysql => super::mysql::role(connection, self.role).await,
            #[cfg(feature = "postgres")]
            Engine::Postgres => super::postgres::role(connection).await,
            _ => Err(nonsense()),
        }
    }

    /// A lag beyond the limit is looked at again while there is time: to a replica of a primary that wrote nothing for an hour,
    /// the first new transaction seems an hour late until it is replayed.
    async fn judge_lag(
        &self,
        connection: &mut Connection,
        mut now: Replication,
        limit: Duration,
        deadline: Instant,
    ) -> Result<(), Failure> {
        let first = now;
        let patience = (deadline.saturating_duration_since(Instant::now()) / 2).min(limit).min(LOOKS);
        let patience = Instant::now() + patience;
        loop {
            let Replication::Behind(lag, _) = now else {
                return Err(Failure::failed("replication is stopped"));
            };
            if lag.is_some_and(|lag| lag <= limit) || now.has_reached(first) {
                return Ok(());
            }
            if Instant::now() >= patience || connection.engine() != Engine::Postgres {
                let Some(lag) = lag else {
                    return Err(Failure::unknown("nobody knows how far the replica is behind"));
                };
                let (lag, limit) = (human(lag), human(limit));
                return Err(Failure::failed(format!(
                    "the replica is {lag} behind, where {limit} is allowed"
                )));
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
            now = self.role(connection).await?.1.unwrap_or(Replication::Stopped);
        }
    }

    fn judge_slots(&self, Slots { free, most }: Slots) -> Result<(), Failure> {
        let free = free.max(0);
        if let Some(min) = self.min_free
            && free < i64::from(min)
        {
            return Err(Failure::failed(format!("{free} connections are free, where {min} are needed")));
        }
        if let Some(percent) = self.min_free_percent
            && free.saturating_mul(100) < most.saturating_mul(i64::from(percent))
        {
            let reason = format!("{free} of {most} connections are free, where {percent} % are needed");
            return Err(Failure::failed(reason));
        }
        Ok(())
    }
}

/// For how long a lag is looked at, at most.
const LOOKS: Duration = Duration::from_secs(2);

/// How long between two looks.
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// How a replica stands to its primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replication {
    /// It receives or replays nothing.
    Stopped,
    /// By so much, where it says that; with how far it has received and how far it has replayed, where it says that.
    Behind(Option<Duration>, Option<(i128, i128)>),
}

impl Replication {
    /// Whether it has replayed by now what it had received `then`.
    fn has_reached(self, then: Self) -> bool {
        match (self, then) {
            (Self::Behind(_, Some((_, replayed))), Self::Behind(_, Some((received, _)))) => {
                replayed >= received
            }
            _ => false,
        }
    }
}

/// Connections, by one of the limits that there are to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slots {
    pub free: i64,
    pub most: i64,
}

fn judge_role(wanted: Role, is: Role) -> Result<(), Failure> {
    match (wanted, is) {
        (Role::Primary, Role::Replica) => Err(Failure::failed("it is a replica, not the primary")),
        (Role::Replica, Role::Primary) => Err(Failure::failed("it is the primary, not a replica")),
        _ => Ok(()),
    }
}

fn human(span: Duration) -> Human {
    Human(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_judged_by_number_and_by_share() {
        let asks =
            |min_free, min_free_percent| Asks { role: None, max_lag: None, min_free, min_free_percent };
        let judge = |asks: Asks, free, most| {
            asks.judge_slots(Slots { free, most }).map_err(|failure| failure.to_string())
        };
        assert_eq!(judge(asks(Some(3), None), 3, 97), Ok(()));
        assert_eq!(
            judge(asks(Some(3), None), 2, 97),
            Err("2 connections are free, where 3 are needed".to_owned())
        );
        assert_eq!(judge(asks(None, Some(10)), 10, 100), Ok(()));
        assert_eq!(
            judge(asks(None, Some(10)), 9, 97),
            Err("9 of 97 connections are free, where 10 % are needed".to_owned())
        );
        assert_eq!(
            judge(asks(Some(1), None), -2, 97),
            Err("0 connections are free, where 1 are needed".to_owned())
        );
    }

    #[test]
    fn a_replica_has_caught_up_once_it_replayed_what_it_had_received_at_the_first_look() {
        let at = |received, replayed| {
            Replication::Behind(Some(Duration::from_hours(1)), Some((received, replayed)))
        };
        assert!(at(900, 500).has_reached(at(500, 100)));
        assert!(!at(900, 499).has_reached(at(500, 100)));
        assert!(!Replication::Stopped.has_reached(at(500, 100)));
    }
}
