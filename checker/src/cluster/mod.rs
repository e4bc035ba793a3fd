//! `checker cluster`: all workers of a cluster, judged by what a source tells of them.
//!
//! Arguments in, answer out; the question itself is `shared::checks::cluster`. Here is what all sources share; what one
//! alone takes stands in a file of its own.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::builder::NonEmptyStringValueParser;
use heartbeat::duration::Human;
use nix::unistd::gethostname;
use shared::checks::cluster::{Answer, Policy, Question, Queue, Share};
use shared::checks::worker::{Unknown, Want};

use crate::arguments::{Unread, one_of, timeout};
use crate::exit::Exit;
use crate::format::Format;
use crate::{deadline, stream};

#[cfg(feature = "celery")]
mod celery;
#[cfg(feature = "django-q")]
mod django_q;
mod fleet;

/// How long before the deadline a source is given up, at most: then it can still be said what did not answer.
const MARGIN: Duration = Duration::from_millis(750);

const AFTER_HELP: &str = "\
All policies that are given must hold; each that does not is named. An empty cluster fails, and so does one that
cannot be asked (--unknown). Where --min is not given, it is 1.

Forms of URL: redis://[[USER]:PASSWORD@]HOST[:PORT][/DB], unix:///PATH, redis+sentinel://HOST,HOST/SERVICE,
redis+cluster://HOST,HOST; rediss for TLS, with ?ca=FILE&cert=FILE&key=FILE. A URL with a password belongs into
$HEARTBEAT_REDIS_URL: an argument can be read by everyone on the machine.

With --source django-q, NAME is Q_CLUSTER[\"name\"], the key is in $DJANGO_SECRET_KEY, and the URL is that of the Redis broker
(--redis, $DJANGO_Q_REDIS_URL) or of the Django cache that the stats are in (--cache, $DJANGO_CACHE_URL).

Exit status: 0 passed, 1 failed, 2 invalid arguments, 3 unexpected failure;
with --format nagios: 0 OK, 2 CRITICAL, 3 UNKNOWN.";

/// Who tells of a cluster's workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// The workers, by their beats in Redis.
    Heartbeat,
    /// Celery's workers, over their broker.
    #[cfg(feature = "celery")]
    Celery,
    /// Django-Q2, by its own stats.
    #[cfg(feature = "django-q")]
    DjangoQ,
}

impl Source {
    const ALL: [Self; 1 + cfg!(feature = "celery") as usize + cfg!(feature = "django-q") as usize] = [
        Self::Heartbeat,
        #[cfg(feature = "celery")]
        Self::Celery,
        #[cfg(feature = "django-q")]
        Self::DjangoQ,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Heartbeat => "heartbeat",
            #[cfg(feature = "celery")]
            Self::Celery => shared::checks::cluster::celery::Settings::SOURCE,
            #[cfg(feature = "django-q")]
            Self::DjangoQ => "django-q",
        }
    }
}

/// A question that is ready to be asked of its source.
trait Ask {
    /// What is asked.
    fn question(&self) -> &Question;
    /// Who did not answer, where nobody has in time.
    fn asked(&self) -> &'static str;
    /// What cannot be used of the files that the settings name.
    fn check_files(&self) -> Result<(), String>;
    /// Asks, and judges. Takes no longer than `until`.
    fn answer(&self, until: Instant) -> Answer;
}

/// Judge a cluster by what its workers tell
#[derive(Debug, clap::Args)]
#[command(after_long_help = AFTER_HELP)]
pub struct Args {
    /// The cluster's name
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    name: String,
    /// Who tells of the workers
    #[arg(long, value_name = "SOURCE", default_value = "heartbeat", value_parser = one_of(Source::ALL, Source::as_str))]
    source: Source,
    /// The Redis that the workers beat to [default: `$HEARTBEAT_REDIS_URL`], or Django-Q's broker
    /// [default: `$DJANGO_Q_REDIS_URL`]
    #[arg(long, value_name = "URL")]
    redis: Option<Unread>,
    /// A file with the key that the workers' records are signed with [default: the key in `$HEARTBEAT_KEY`, if any]: then only
    /// those that are rightly signed count
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    key_file: Option<PathBuf>,
    #[cfg(feature = "celery")]
    #[command(flatten)]
    celery: celery::Args,
    /// How many workers must be there at least [default: 1]
    #[arg(long, value_name = "N")]
    min: Option<u64>,
    /// The same as a share of --expected, rounded up
    #[arg(long, value_name = "P", requires = "expected", value_parser = clap::value_parser!(u64).range(1..=100))]
    min_percent: Option<u64>,
    /// How many workers there should be
    #[arg(long, value_name = "N", requires = "min_percent", value_parser = clap::value_parser!(u64).range(1..))]
    expected: Option<u64>,
    /// A queue from which at least N workers take work, one without N; may be given more than once
    #[arg(long = "queue", value_name = "NAME[:N]")]
    queues: Vec<Queue>,
    /// A worker that must be there, by its name; may be given more than once
    #[arg(long, value_name = "WORKER", value_parser = NonEmptyStringValueParser::new())]
    expect: Vec<String>,
    /// How many workers may have gone silent
    #[arg(long, value_name = "N")]
    max_lost: Option<u64>,
    /// Which workers count: those that take work, or all that beat
    #[arg(long = "for", value_name = "WHAT", default_value = "ready", value_parser = one_of(Want::ALL, Want::as_str))]
    want: Want,
    /// What an `unknown` counts for [default: fail]
    #[arg(long, value_name = "STATUS", value_parser = one_of(Unknown::ALL, Unknown::as_str))]
    unknown: Option<Unknown>,
    /// Only workers of this host count; `self` is the host that asks
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    host: Option<String>,
    /// List the workers too, each with its verdict
    #[arg(long)]
    list: bool,
    #[cfg(feature = "django-q")]
    #[command(flatten)]
    django_q: django_q::Args,
    /// How the answer is shown
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
    /// How long the command may take; at its end the answer is `unknown`
    #[arg(long, value_name = "DUR", default_value = "5s", value_parser = timeout)]
    timeout: Duration,
}

/// Asks, and shows the answer.
pub fn run(args: &Args) -> Exit {
    let until = Instant::now() + args.timeout.saturating_sub(MARGIN.min(args.timeout * 3 / 10));
    let ask = match args.ask() {
        Ok(ask) => ask,
        Err(wrong) => return fail(args.format, &wrong, Exit::Invalid),
    };
    if let Err(failure) = set_deadline(args, ask.as_ref()) {
        return fail(args.format, &failure.to_string(), Exit::Unexpected);
    }
    // Behind the deadline, because a file may be a network away.
    if let Err(wrong) = ask.check_files() {
        return fail(args.format, &wrong, Exit::Invalid);
    }
    show(args.format, &ask.answer(until))
}

impl Args {
    fn ask(&self) -> Result<Box<dyn Ask>, String> {
        #[cfg(feature = "celery")]
        self.refuse_celery()?;
        #[cfg(feature = "django-q")]
        self.refuse_django_q()?;
        if self.key_file.is_some() && self.source != Source::Heartbeat {
            return Err("--key-file is for --source heartbeat".to_owned());
        }
        match self.source {
            Source::Heartbeat => Ok(Box::new(fleet::ask(self)?)),
            #[cfg(feature = "celery")]
            Source::Celery => Ok(Box::new(celery::ask(self)?)),
            #[cfg(feature = "django-q")]
            Source::DjangoQ => Ok(Box::new(django_q::ask(self)?)),
        }
    }

    /// An option of Celery's would be of no effect on another source.
    #[cfg(feature = "celery")]
    fn refuse_celery(&self) -> Result<(), String> {
        match self.celery.given() {
            Some(option) if self.source != Source::Celery => Err(format!("{option} is for --source celery")),
            _ => Ok(()),
        }
    }

    /// The same of Django-Q's.
    #[cfg(feature = "django-q")]
    fn refuse_django_q(&self) -> Result<(), String> {
        match self.django_q.given() {
            Some(option) if self.source != Source::DjangoQ => {
                Err(format!("{option} is for --source django-q"))
            }
            _ => Ok(()),
        }
    }

    /// What is asked of the source, which is at `place`: that is shown, and holds no secret.
    fn question(&self, place: impl fmt::Display) -> Result<Question, String> {
        let share = self.min_percent.zip(self.expected);
        let policy = Policy {
            want: self.want,
            min: self.min,
            share: share.map(|(percent, expected)| Share { percent, expected }),
            queues: strictest(&self.queues),
            expect: self.expect.clone(),
            max_lost: self.max_lost,
        };
        let host = self.host.as_deref().map(host).transpose()?;
        let question = Question::new(self.source.as_str(), place, self.name.as_str());
        Ok(Question { policy, host, list: self.list, unknown: self.unknown, ..question })
    }
}

/// Each queue once: of two words about one, the one that asks for more.
fn strictest(queues: &[Queue]) -> Vec<Queue> {
    let mut each: Vec<Queue> = Vec::new();
    for queue in queues {
        match each.iter_mut().find(|known| known.name == queue.name) {
            Some(known) => known.min = known.min.max(queue.min),
            None => each.push(queue.clone()),
        }
    }
    each
}

/// The name of a host, as its workers publish it.
fn host(name: &str) -> Result<String, String> {
    if name != "self" {
        return Ok(name.to_owned());
    }
    let own =
        gethostname().map_err(|errno| format!("--host self: this host does not tell its name: {errno}"))?;
    match own.into_string() {
        Ok(own) if !own.is_empty() => Ok(own),
        _ => Err("--host self: this host has no name".to_owned()),
    }
}

fn set_deadline(args: &Args, ask: &dyn Ask) -> std::io::Result<()> {
    let ms = u64::try_from(args.timeout.as_millis()).unwrap_or(u64::MAX);
    let late = format!("{} told nothing within {}", ask.asked(), Human(ms));
    let late = ask.question().cannot_tell(late, None);
    deadline::set(args.timeout, args.format.cluster(&late), args.format.cluster_exit(&late))
}

fn show(format: Format, answer: &Answer) -> Exit {
    let exit = format.cluster_exit(answer);
    let text = format.cluster(answer);
    deadline::answered(exit);
    stream::answer(&text, exit)
}

/// Ends a command that has no answer.
fn fail(format: Format, what: &str, exit: Exit) -> Exit {
    stream::complain(what);
    stream::answer(&format.failure(what), format.failure_exit(exit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_that_is_named_twice_is_asked_for_once_and_as_strictly_as_ever() {
        let queues: Vec<Queue> = ["a:2", "b", "a:3", "a"].map(|text| text.parse().unwrap()).into();
        let each: Vec<_> = strictest(&queues).into_iter().map(|queue| (queue.name, queue.min)).collect();
        assert_eq!(each, [("a".to_owned(), 3), ("b".to_owned(), 1)]);
    }

    #[test]
    fn self_is_this_host_and_any_other_name_is_itself() {
        assert_eq!(host("web-3"), Ok("web-3".to_owned()));
        let own = host("self").unwrap();
        assert!(!own.is_empty() && own != "self");
    }
}
