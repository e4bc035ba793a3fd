//! One broadcast and the replies to it: which are still awaited, and for how long. No clock is read and nothing is sent
//! here.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::message::{self, pong};
use super::{Error, Method, unique};

/// The most workers whose replies are kept.
const MOST_WORKERS: usize = 100_000;

/// The most bytes of replies that are kept. A worker's name and those of its queues have about 100.
const MOST_KEPT: usize = 64 << 20;

/// How long to wait for one reply more, once what is asked for holds: four times the longest wait so far, between these.
const SHORTEST_SETTLE: Duration = Duration::from_millis(50);
const LONGEST_SETTLE: Duration = Duration::from_millis(500);

/// What the workers replied.
#[derive(Clone, Debug, Default)]
pub struct Replies {
    /// What each one replied.
    pub workers: BTreeMap<String, Replied>,
    /// How many workers the broker has handed the question to, where it tells.
    pub listening: Option<u64>,
}

/// What one worker replied; `None` for what it has not replied to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replied {
    /// To `ping`: or why that is no pong.
    pub pong: Option<Result<(), String>>,
    /// To `active_queues`: their names, or why there are none.
    pub queues: Option<Result<Vec<String>, String>>,
    /// When its first reply came, counted from the question.
    pub after: Duration,
}

impl Replies {
    /// How many workers were handed the question and have not replied to all of it.
    pub fn awaited(&self, methods: &[Method]) -> Option<u64> {
        // First: where it is not known, nobody is counted at each reply.
        let listening = self.listening?;
        let replied = self.workers.values().filter(|worker| worker.is_complete(methods)).count();
        Some(listening.saturating_sub(u64::try_from(replied).unwrap_or(u64::MAX)))
    }
}

impl Replied {
    fn is_complete(&self, methods: &[Method]) -> bool {
        methods.iter().all(|method| match method {
            Method::Ping => self.pong.is_some(),
            Method::ActiveQueues => self.queues.is_some(),
        })
    }
}

/// A broadcast that is under way.
pub struct Round<'a> {
    /// Each question with its ticket, by which a reply to it is known.
    pub tickets: Vec<(Method, String)>,
    methods: Vec<Method>,
    replies: Replies,
    /// How many bytes the replies hold, at the least.
    kept: usize,
    enough: &'a mut dyn FnMut(&Replies) -> bool,
    is_enough: bool,
    begun: Option<Instant>,
    last: Option<Instant>,
}

impl<'a> Round<'a> {
    pub fn new(methods: &[Method], enough: &'a mut dyn FnMut(&Replies) -> bool) -> Result<Self, Error> {
        let tickets = methods.iter().map(|method| Ok((*method, unique()?))).collect::<Result<_, Error>>()?;
        Ok(Self {
            tickets,
            methods: methods.to_vec(),
            replies: Replies::default(),
            kept: 0,
            enough,
            is_enough: false,
            begun: None,
            last: None,
        })
    }

    /// The questions are out.
    pub fn sent(&mut self, now: Instant, listening: Option<u64>) {
        self.begun = Some(now);
        self.replies.listening = listening;
        self.is_enough = (self.enough)(&self.replies);
    }

    /// Takes what may be a reply. What answers another question, or is none at all, is left out.
    pub fn take(&mut self, ticket: Option<&str>, body: &[u8], now: Instant) {
        let asked = self.tickets.iter().find(|(_, known)| Some(known.as_str()) == ticket);
        let Some((method, _)) = asked else { return };
        let Some((name, answer)) = message::reply(body) else { return };
        if self.replies.workers.len() >= MOST_WORKERS && !self.replies.workers.contains_key(&name) {
            return;
        }
        if self.is_full() {
            return;
        }
        let after = self.begun.map_or(Duration::ZERO, |begun| now.saturating_duration_since(begun));
        self.kept += name.len();
        let worker = self.replies.workers.entry(name).or_insert(Replied { after, ..Replied::default() });
        match method {
            Method::Ping => worker.pong = Some(pong(&answer)),
            Method::ActiveQueues => {
                let queues = message::queues(&answer);
                self.kept +=
                    queues.iter().flatten().map(|name| size_of::<String>() + name.len()).sum::<usize>();
                worker.queues = Some(queues);
            }
        }
        self.last = Some(now);
    }

    /// Whether there were more replies than are kept: then it is not known what the workers are.
    pub fn is_full(&self) -> bool {
        self.kept >= MOST_KEPT
    }

    /// All that has come by now has been taken: whether it is enough is looked at anew.
    pub fn settle(&mut self) {
        self.is_enough = (self.enough)(&self.replies);
    }

    /// Whether all have replied, where it is known how many they are.
    pub fn is_complete(&self) -> bool {
        self.replies.awaited(&self.methods) == Some(0)
    }

    /// How long to wait for more; `None` where nothing more is awaited.
    pub fn wait(&self, until: Instant) -> Option<Instant> {
        if self.is_full() || self.is_complete() {
            return None;
        }
        let (Some(begun), true) = (self.begun, self.is_enough) else { return Some(until) };
        let last = self.last.unwrap_or(begun);
        let settle = (last.saturating_duration_since(begun) * 4).clamp(SHORTEST_SETTLE, LONGEST_SETTLE);
        Some(until.min(last + settle))
    }

    pub fn end(self) -> Replies {
        self.replies
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(begun: Instant, ms: u64) -> Instant {
        begun + Duration::from_millis(ms)
    }

    fn reply(round: &mut Round<'_>, worker: &str, now: Instant) {
        for (method, ticket) in round.tickets.clone() {
            let answer = match method {
                Method::Ping => r#"{"ok":"pong"}"#,
                Method::ActiveQueues => r#"[{"name":"mail"}]"#,
            };
            round.take(Some(&ticket), format!(r#"{{"{worker}":{answer}}}"#).as_bytes(), now);
        }
        round.settle();
    }

    #[test]
    fn where_it_is_known_how_many_listen_it_ends_with_the_last_reply() {
        let (now, mut never) = (Instant::now(), |_: &Replies| false);
        let mut round = Round::new(&[Method::Ping, Method::ActiveQueues], &mut never).unwrap();
        round.sent(now, Some(2));
        reply(&mut round, "w1@h", at(now, 1));
        assert_eq!(round.wait(at(now, 900)), Some(at(now, 900)));
        reply(&mut round, "w2@h", at(now, 2));
        assert_eq!(round.wait(at(now, 900)), None);
        assert_eq!(round.end().workers.len(), 2);
    }

    #[test]
    fn nobody_is_waited_for_where_nobody_listens() {
        let (now, mut never) = (Instant::now(), |_: &Replies| false);
        let mut round = Round::new(&[Method::Ping], &mut never).unwrap();
        round.sent(now, Some(0));
        assert_eq!(round.wait(at(now, 900)), None);
    }

    #[test]
    fn half_a_reply_is_not_all_of_it() {
        let (now, mut never) = (Instant::now(), |_: &Replies| false);
        let mut round = Round::new(&[Method::Ping, Method::ActiveQueues], &mut never).unwrap();
        round.sent(now, Some(1));
        let ticket = round.tickets[0].1.clone();
        round.take(Some(&ticket), br#"{"w1@h":{"ok":"pong"}}"#, at(now, 1));
        assert!(round.wait(at(now, 900)).is_some());
    }

    #[test]
    fn once_it_is_enough_a_short_silence_ends_it_and_before_that_only_the_deadline() {
        let now = Instant::now();
        let mut two = |replies: &Replies| replies.workers.len() >= 2;
        let mut round = Round::new(&[Method::Ping], &mut two).unwrap();
        round.sent(now, None);
        let until = at(now, 9_000);
        reply(&mut round, "w1@h", at(now, 3));
        assert_eq!(round.wait(until), Some(until));
        reply(&mut round, "w2@h", at(now, 5));
        assert_eq!(round.wait(until), Some(at(now, 55)));
        reply(&mut round, "w3@h", at(now, 40));
        assert_eq!(round.wait(until), Some(at(now, 200)));
        reply(&mut round, "w4@h", at(now, 400));
        assert_eq!(round.wait(until), Some(at(now, 900)));
        assert_eq!(round.wait(at(now, 450)), Some(at(now, 450)));
    }

    #[test]
    fn of_replies_without_end_only_so_much_is_kept() {
        let (now, mut never) = (Instant::now(), |_: &Replies| false);
        let mut round = Round::new(&[Method::ActiveQueues], &mut never).unwrap();
        let ticket = round.tickets[0].1.clone();
        let queues = vec![format!(r#"{{"name":"{}"}}"#, "q".repeat(200)); 1_000].join(",");
        for worker in 0..302 {
            let body = format!(r#"{{"w{worker}@h":[{queues}]}}"#);
            assert_eq!(round.is_full(), worker * 224_000 >= MOST_KEPT, "{worker}");
            round.take(Some(&ticket), body.as_bytes(), now);
        }
        assert!(round.is_full() && round.end().workers.len() == 300);
    }

    #[test]
    fn a_reply_to_another_question_is_none() {
        let (now, mut never) = (Instant::now(), |_: &Replies| false);
        let mut round = Round::new(&[Method::Ping], &mut never).unwrap();
        round.sent(now, None);
        for ticket in [None, Some(""), Some("00000000000000000000000000000000")] {
            round.take(ticket, br#"{"w1@h":{"ok":"pong"}}"#, now);
        }
        assert!(round.end().workers.is_empty());
    }
}
