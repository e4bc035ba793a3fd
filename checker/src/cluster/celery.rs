//! The source `celery`: Celery's own workers, asked or listened to over their broker.

use std::env;
use std::time::Instant;

use clap::builder::NonEmptyStringValueParser;
use shared::celery::{Broker, Names};
use shared::checks::cluster::celery::{How, Settings};
use shared::checks::cluster::{Answer, Question};

use super::Ask;
use crate::arguments::Unread;

const VARIABLE: &str = "CELERY_BROKER_URL";

/// What only Celery takes.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Celery (--source celery)")]
#[group(skip)]
pub struct Args {
    /// Celery's broker, a Redis or an AMQP broker [default: `$CELERY_BROKER_URL`]
    #[arg(long, value_name = "URL")]
    broker: Option<Unread>,
    /// Celery's `master_name` of `broker_transport_options`, for a broker of `sentinel://`
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    master_name: Option<String>,
    /// Listen to what the workers say of themselves, and send them nothing
    #[arg(long)]
    events: bool,
    /// Celery's `control_exchange` [default: celery]
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    exchange: Option<String>,
    /// Celery's `global_keyprefix`, on Redis
    #[arg(long, value_name = "PREFIX")]
    key_prefix: Option<String>,
}

impl Args {
    /// The first option that is given here: another source knows none of them.
    pub fn given(&self) -> Option<&'static str> {
        let given = [
            ("--broker", self.broker.is_some()),
            ("--master-name", self.master_name.is_some()),
            ("--events", self.events),
            ("--exchange", self.exchange.is_some()),
            ("--key-prefix", self.key_prefix.is_some()),
        ];
        given.into_iter().find_map(|(name, given)| given.then_some(name))
    }

    fn broker(&self) -> Result<Broker, String> {
        let (name, text) = match &self.broker {
            Some(given) => ("--broker", given.text().to_owned()),
            None => (VARIABLE, variable()?),
        };
        Broker::read(&text, self.master_name.as_deref())
            .map_err(|invalid| format!("the URL in {name} cannot be used: {invalid}"))
    }
}

fn variable() -> Result<String, String> {
    match env::var_os(VARIABLE).filter(|text| !text.is_empty()) {
        Some(text) => text.into_string().map_err(|_| format!("the URL in {VARIABLE} is not text")),
        None => Err(format!("which broker? Say it with --broker URL or in {VARIABLE}")),
    }
}

pub fn ask(args: &super::Args) -> Result<Settings, String> {
    if args.redis.is_some() {
        return Err("--redis is where workers beat to; Celery's broker is --broker".to_owned());
    }
    let own = &args.celery;
    let broker = own.broker()?;
    let names = Names::default();
    let names = Names {
        exchange: own.exchange.clone().unwrap_or(names.exchange),
        key_prefix: own.key_prefix.clone().unwrap_or(names.key_prefix),
    };
    let how = if own.events { How::Listen } else { How::Ask };
    let settings = Settings { question: args.question(&broker)?, broker, names, how };
    settings.check()?;
    Ok(settings)
}

impl Ask for Settings {
    fn question(&self) -> &Question {
        &self.question
    }

    fn asked(&self) -> &'static str {
        "the broker"
    }

    fn check_files(&self) -> Result<(), String> {
        self.broker.check_files().map_err(|wrong| wrong.to_string())
    }

    fn answer(&self, until: Instant) -> Answer {
        Self::answer(self, &mut self.celery(), until)
    }
}
