//! `checker version`: what is deployed here, by the configuration's `[service]`.

use super::{ConfigArgs, read};
use crate::exit::Exit;
use crate::stream;

/// Print the deployment's metadata, as /version serves it
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArgs,
}

/// Prints it.
pub fn run(args: &Args) -> Exit {
    match read(&args.config.path()) {
        Ok(configuration) => stream::answer(&format!("{}\n", configuration.service.document()), Exit::Passed),
        Err(wrong) => {
            stream::log(&wrong);
            Exit::Invalid
        }
    }
}
