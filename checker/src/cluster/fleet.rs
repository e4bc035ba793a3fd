//! The source `heartbeat`: what the workers themselves have told Redis. No runtime, and one connection.

use std::cell::OnceCell;
use std::path::PathBuf;
use std::time::Instant;

use heartbeat::fleet::SigningKeys;
use shared::checks::cluster::fleet::Settings;
use shared::checks::cluster::{Answer, Question};

use super::{Args, Ask};
use crate::redis;

/// What is asked, and the key that is read behind the deadline.
pub struct Workers {
    settings: Settings,
    key_file: Option<PathBuf>,
    signing: OnceCell<Option<SigningKeys>>,
}

pub fn ask(args: &Args) -> Result<Workers, String> {
    let url = redis::url(args.redis.as_ref())?;
    let question = args.question(&url)?;
    let settings = Settings { url, signing: None, question };
    Ok(Workers { settings, key_file: args.key_file.clone(), signing: OnceCell::new() })
}

impl Ask for Workers {
    fn question(&self) -> &Question {
        &self.settings.question
    }

    fn asked(&self) -> &'static str {
        "Redis"
    }

    fn check_files(&self) -> Result<(), String> {
        let signing = redis::signing(self.key_file.as_deref())?;
        self.signing.get_or_init(|| signing);
        self.settings.url.check_files().map_err(|wrong| wrong.to_string())
    }

    fn answer(&self, until: Instant) -> Answer {
        let signing = self.signing.get().cloned().flatten();
        let settings = Settings { signing, ..self.settings.clone() };
        settings.answer(&mut settings.fleet(), until)
    }
}
