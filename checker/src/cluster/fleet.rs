//! The source `heartbeat`: what the workers themselves have told Redis. No runtime, and one connection.

use std::time::Instant;

use shared::checks::cluster::fleet::Settings;
use shared::checks::cluster::{Answer, Question};

use super::{Args, Ask};
use crate::redis;

pub fn ask(args: &Args) -> Result<Settings, String> {
    let url = redis::url(args.redis.as_ref())?;
    let question = args.question(&url)?;
    Ok(Settings { url, question })
}

impl Ask for Settings {
    fn question(&self) -> &Question {
        &self.question
    }

    fn asked(&self) -> &'static str {
        "Redis"
    }

    fn check_files(&self) -> Result<(), String> {
        self.url.check_files().map_err(|wrong| wrong.to_string())
    }

    fn answer(&self, until: Instant) -> Answer {
        Self::answer(self, &mut self.fleet(), until)
    }
}
