//! What a provider tells in a feed of RSS or Atom: each recent entry is a warning.
//!
//! The feed is looked at in the background. What cannot be told is `unknown`, because a feed that does not answer says
//! nothing of whom it is about.

pub(crate) mod entries;

use std::time::{Duration, Instant};

use heartbeat::duration::Human;
use schemars::JsonSchema;
use serde::Deserialize;

use self::entries::Entry;
use super::upstream::date::{self, Unix, age};
use super::upstream::document::Document;
use super::upstream::providers::{Channel, Named};
use super::upstream::{Looking, count, listed};
use crate::check::{Check, Failure, Refresh};
use crate::kind::{Contract, Mistake, Settings};
use crate::settings::{Span, Url};

/// How far clocks may differ: an entry that is dated later than that tells of what is to come, such as maintenance.
const AHEAD: Unix = 600;

/// The recent entries of a provider's feed (RSS or Atom): each is a warning, as is one without a date. Looked at in the
/// background.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Feed {
    /// A provider that is known by name; or else `url`.
    provider: Option<Named<Channel>>,
    /// With `aws`, which has a feed for each: the service, such as `ec2`.
    service: Option<String>,
    /// With `aws`: the region, such as `eu-central-1`. Services that are of no region have none.
    region: Option<String>,
    /// The address of any other feed.
    url: Option<Url>,
    /// How long an entry is recent. The latest of its dates counts, except what is still to come.
    #[serde(default = "max_age")]
    max_age: Span,
    #[serde(flatten)]
    looking: Looking,
}

fn max_age() -> Span {
    Span(Duration::from_hours(8))
}

impl Settings for Feed {
    const KIND: &'static str = "feed";
    const EXAMPLE: &'static str = "provider = \"aws\"\nservice = \"ec2\"\nregion = \"eu-central-1\"";
    const CONTRACT: Contract = Contract::Peer("url = \"http://user:S3cret@{peer}/S3cret\"");
    const MORE_CONTRACTS: &'static [&'static str] = &["url = \"https://user:S3cret@{peer}/S3cret\""];
    type Check = FeedCheck;

    fn build(self) -> Result<FeedCheck, Vec<Mistake>> {
        let mut mistakes = self.looking.mistakes(self.url.as_ref());
        let refresh = self.looking.refresh();
        let address = self.address(&mut mistakes);
        match address {
            Some(url) if mistakes.is_empty() => {
                let feed = Document::new(url, self.looking.proxy, self.looking.tls);
                Ok(FeedCheck { feed, max_age: self.max_age.0, refresh })
            }
            _ => Err(mistakes),
        }
    }
}

impl Feed {
    fn address(&self, mistakes: &mut Vec<Mistake>) -> Option<Url> {
        let mut wrong = |key, what: &'static str| mistakes.push(Mistake::of(key, what));
        let template = match (&self.provider, &self.url) {
            (Some(Named(channel)), None) => channel.url,
            (None, Some(_)) => "",
            _ => {
                mistakes.push(Mistake::together("either `provider` or `url` says whose feed it is"));
                return None;
            }
        };
        let places = [("service", &self.service), ("region", &self.region)];
        if !template.contains(Channel::SERVICE) {
            for (key, _) in places.iter().filter(|(_, place)| place.is_some()) {
                wrong(key, "only `provider = \"aws\"` has feeds of services and regions");
            }
            return self.url.clone().or_else(|| url::Url::parse(template).ok().map(Url::from));
        }
        for (key, _) in places.iter().filter(|(_, place)| place.as_deref().is_some_and(|it| !is_word(it))) {
            wrong(key, "it consists of small letters, digits and `-`");
        }
        let Some(service) = &self.service else {
            wrong("service", "`aws` has a feed for each service, and none for all");
            return None;
        };
        let place =
            self.region.as_ref().map_or_else(|| service.clone(), |region| format!("{service}-{region}"));
        url::Url::parse(&template.replace(Channel::SERVICE, &place)).ok().map(Url::from)
    }
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

/// Reads a feed.
#[derive(Debug)]
pub struct FeedCheck {
    feed: Document<Vec<Entry>>,
    max_age: Duration,
    refresh: Refresh,
}

#[async_trait::async_trait]
impl Check for FeedCheck {
    async fn run(&self, deadline: Instant) -> Result<(), Failure> {
        let read = |bytes: &[u8]| {
            entries::read(bytes)
                .map_err(|wrong| Failure::unknown("the answer is no feed of RSS or Atom").because(wrong))
        };
        let entries = self.feed.fetch(deadline, read).await?;
        judge(&entries, self.max_age, date::now())
    }

    fn refresh(&self) -> Option<Refresh> {
        Some(self.refresh)
    }
}

/// When an entry counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    At(Unix),
    Undated,
}

/// When an entry is of, where it tells of now: neither old nor still to come.
fn recent(entry: &Entry, max_age: Duration, now: Unix) -> Option<When> {
    if entry.dates.is_empty() {
        return Some(When::Undated);
    }
    let oldest = now.saturating_sub(Unix::try_from(max_age.as_secs()).unwrap_or(Unix::MAX));
    let latest = entry.dates.iter().copied().filter(|date| *date <= now.saturating_add(AHEAD)).max()?;
    (latest > oldest).then_some(When::At(latest))
}

fn judge(entries: &[Entry], max_age: Duration, now: Unix) -> Result<(), Failure> {
    let recent: Vec<_> =
        entries.iter().filter_map(|entry| Some((recent(entry, max_age, now)?, entry))).collect();
    if recent.is_empty() {
        return Ok(());
    }
    let undated = recent.iter().filter(|(when, _)| *when == When::Undated).count();
    let dates = recent.iter().filter_map(|(when, _)| match when {
        When::At(date) => Some(*date),
        When::Undated => None,
    });
    let span = Human(u64::try_from(max_age.as_millis()).unwrap_or(u64::MAX));
    let mut told = Vec::new();
    if let Some(latest) = dates.max() {
        let entries = count(recent.len() - undated, "entry", "entries");
        told.push(format!("{entries} of the last {span}, the latest {} old", age(now, latest)));
    }
    if undated > 0 {
        told.push(format!("{} without a date", count(undated, "entry", "entries")));
    }
    let titles = listed(recent.iter().map(|(_, entry)| entry.title.as_str()));
    Err(Failure::warning(told.join(", and ")).because(titles))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings(json: serde_json::Value) -> Feed {
        serde_json::from_value(json).unwrap()
    }

    fn mistakes(json: serde_json::Value) -> Vec<Option<&'static str>> {
        settings(json)
            .build()
            .map_or_else(|all| all.into_iter().map(|mistake| mistake.key).collect(), |_| Vec::new())
    }

    #[test]
    fn senseless_settings_are_mistakes() {
        for good in [
            json!({ "provider": "azure" }),
            json!({ "url": "http://a/feed" }),
            json!({ "provider": "aws", "service": "ec2" }),
        ] {
            assert_eq!(mistakes(good), []);
        }
        assert_eq!(mistakes(json!({})), [None]);
        assert_eq!(mistakes(json!({ "provider": "azure", "url": "https://a/" })), [None]);
        assert_eq!(mistakes(json!({ "provider": "aws", "region": "x" })), [Some("service")]);
        let outside = json!({ "provider": "azure", "service": "ec2", "region": "x" });
        assert_eq!(mistakes(outside), ["service", "region"].map(Some));
        let path = json!({ "provider": "aws", "service": "../ec2", "region": "" });
        assert_eq!(mistakes(path), ["service", "region"].map(Some));
        let wrong = json!({ "url": "ftp://a", "every": "1h", "proxy": "ftp://a" });
        assert_eq!(mistakes(wrong), ["url", "proxy", "max_stale"].map(Some));
    }

    #[test]
    fn aws_has_a_feed_for_each_service_and_region() {
        let address = |json| settings(json).address(&mut Vec::new()).unwrap().expose().to_string();
        let both = json!({ "provider": "aws", "service": "ec2", "region": "eu-central-1" });
        assert_eq!(address(both), "https://status.aws.amazon.com/rss/ec2-eu-central-1.rss");
        let global = json!({ "provider": "aws", "service": "route53" });
        assert_eq!(address(global), "https://status.aws.amazon.com/rss/route53.rss");
    }

    const NOW: Unix = 1_700_000_000;
    const HOUR: Unix = 3_600;

    fn told(dates: &[&[Unix]]) -> Option<String> {
        let entry = |dates: &&[Unix]| Entry { title: "an incident".to_owned(), dates: dates.to_vec() };
        let entries: Vec<_> = dates.iter().map(entry).collect();
        judge(&entries, Duration::from_hours(8), NOW).err().map(|failure| failure.to_string())
    }

    #[test]
    fn entries_count_while_they_are_recent_or_where_they_have_no_date() {
        assert_eq!(told(&[]), None);
        assert_eq!(told(&[&[NOW - 8 * HOUR]]), None);
        let just = "1 entry of the last 8 h, the latest 7.9 h old";
        assert_eq!(told(&[&[NOW - 8 * HOUR + 200]]).as_deref(), Some(just));
        assert_eq!(told(&[&[]]).as_deref(), Some("1 entry without a date"));
        let mixed = "2 entries of the last 8 h, the latest 12 min old, and 2 entries without a date";
        assert_eq!(told(&[&[NOW - 720], &[], &[NOW - HOUR], &[], &[0]]).as_deref(), Some(mixed));
    }

    #[test]
    fn the_latest_date_of_an_entry_counts_except_what_is_to_come() {
        assert!(told(&[&[NOW - 100 * HOUR, NOW - HOUR]]).is_some());
        assert_eq!(told(&[&[NOW + 5 * HOUR]]), None);
        assert_eq!(told(&[&[NOW - 100 * HOUR, NOW + 5 * HOUR]]), None);
        assert!(told(&[&[NOW - HOUR, NOW + 5 * HOUR]]).is_some());
        // The provider's clock is not this one.
        assert!(told(&[&[NOW + 60]]).is_some());
        assert_eq!(told(&[&[Unix::MIN, Unix::MAX]]), None);
    }
}
