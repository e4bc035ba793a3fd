//! `checker http`: one question to a URL, for a probe in an image that has no other client.
//!
//! Arguments in, report out; the question itself is the kind `http`, and the run that of `checker run`.

use std::env;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueHint;
use clap::builder::NonEmptyStringValueParser;
use serde_json::{Value, json};
use shared::checks::http::Http;
use shared::config::{credentials_of_urls, secret_file};
use shared::hidden;
use shared::kind::{Kind, Refused};
use shared::runner::{Named, Warnings};
use shared::settings::Url;

use crate::arguments::{Unread, timeout};
use crate::exit::Exit;
use crate::format::Format;
use crate::run::{self, Run};

/// Where the token is, unless the arguments say it.
const VARIABLE: &str = "PROBE_TOKEN";

/// What `checker serve` knows a token by.
const TOKEN: &str = "X-Probe-Token";

const AFTER_HELP: &str = "\
The URL is http://HOST[:PORT]/PATH or https://…; an IPv6 address stands in brackets. Redirects are not followed, and proxies that
the environment names are not used. A token belongs into $PROBE_TOKEN or a file: an argument can be read by everyone on the
machine. Of the URL, scheme, host and port are shown at most.

Exit status: 0 the status is the expected one, 1 it is not, or there was no answer, 2 invalid arguments, 3 unexpected failure;
with --format nagios: 0 OK, 2 CRITICAL, 3 UNKNOWN.";

/// Ask a URL whether it answers as it should
#[derive(Debug, clap::Args)]
#[command(after_long_help = AFTER_HELP)]
pub struct Args {
    /// What is asked, such as `http://127.0.0.1:8080/readyz`
    #[arg(value_hint = ValueHint::Url)]
    url: Unread,
    /// The status that passes
    #[arg(long, value_name = "STATUS", default_value = "200", value_parser = clap::value_parser!(u16).range(100..=599))]
    expect: u16,
    /// The host that is told to have been asked (`X-Forwarded-Host`)
    #[arg(long, value_name = "HOST", value_parser = NonEmptyStringValueParser::new())]
    forwarded_host: Option<String>,
    /// The scheme by which it is told to have been asked (`X-Forwarded-Proto`), such as `https`
    #[arg(long, value_name = "PROTO", value_parser = NonEmptyStringValueParser::new())]
    forwarded_proto: Option<String>,
    /// What is sent as `X-Probe-Token` [default: `$PROBE_TOKEN`]
    #[arg(long, value_name = "TOKEN")]
    token: Option<Unread>,
    /// A file with that
    #[arg(long, value_name = "FILE", conflicts_with = "token", value_hint = ValueHint::FilePath)]
    token_file: Option<PathBuf>,
    /// The Unix socket to ask over, in place of the URL's host
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    unix_socket: Option<PathBuf>,
    /// Certificates (PEM) of the authorities to trust, in place of the system's
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    ca: Option<PathBuf>,
    /// This side's certificate chain (PEM), for a server that asks for one
    #[arg(long, value_name = "FILE", requires = "key", value_hint = ValueHint::FilePath)]
    cert: Option<PathBuf>,
    /// The private key (PEM) to --cert
    #[arg(long, value_name = "FILE", requires = "cert", value_hint = ValueHint::FilePath)]
    key: Option<PathBuf>,
    /// How the report is shown
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
    /// How long the command may take; what has not answered by then has timed out
    #[arg(long, value_name = "DUR", default_value = "5s", value_parser = timeout)]
    timeout: Duration,
}

/// Asks, and shows the report.
pub fn run(args: &Args) -> Exit {
    let place = match args.place() {
        Ok(place) => place,
        Err(wrong) => return run::fail(args.format, &wrong, Exit::Invalid),
    };
    let Args { format, timeout, .. } = args;
    Run { name: &place, warnings: Warnings::Pass, format: *format, timeout: *timeout }.of(|| args.read())
}

impl Args {
    /// What may be shown of what is asked.
    fn place(&self) -> Result<String, String> {
        let url: Url = serde_json::from_value(self.url.text().into())
            .map_err(|invalid| format!("the URL cannot be used: {invalid}"))?;
        let unix = self.unix_socket.as_ref().map(|path| format!("unix:{}", path.display()));
        Ok(unix.unwrap_or_else(|| url.to_string()))
    }

    fn read(&self) -> Result<Vec<Arc<Named>>, String> {
        let token = self.token()?;
        let credentials = credentials_of_urls(self.url.text());
        hidden::hide(token.as_deref().into_iter().chain(credentials.iter().map(String::as_str))).for_good();
        let check = Kind::of::<Http>().build(self.settings(token)?).map_err(|refused| told(&refused))?;
        Ok(vec![Arc::new(Named {
            name: "http".to_owned(),
            timeout: self.timeout,
            critical: true,
            check: check.into(),
        })])
    }

    /// The settings of the kind.
    fn settings(&self, token: Option<String>) -> Result<Value, String> {
        let Self { forwarded_host, forwarded_proto, unix_socket, ca, cert, key, .. } = self;
        let headers = [
            ("X-Forwarded-Host", forwarded_host.clone()),
            ("X-Forwarded-Proto", forwarded_proto.clone()),
            (TOKEN, token),
        ];
        let headers: Value =
            headers.into_iter().filter_map(|(name, value)| Some((name, Value::from(value?)))).collect();
        let path = |option: &str, path: &Option<PathBuf>| {
            serde_json::to_value(path).map_err(|_| format!("the path in {option} is not text"))
        };
        Ok(json!({
            "url": self.url.text(),
            "status": [self.expect],
            "headers": headers,
            "redirects": 0,
            "unix_socket": path("--unix-socket", unix_socket)?,
            "tls": { "ca": path("--ca", ca)?, "cert": path("--cert", cert)?, "key": path("--key", key)? },
        }))
    }

    fn token(&self) -> Result<Option<String>, String> {
        if let Some(path) = &self.token_file {
            return secret_file(path).map(Some);
        }
        if let Some(given) = &self.token {
            return Ok(Some(given.text().to_owned()));
        }
        match env::var_os(VARIABLE).filter(|text| !text.is_empty()) {
            Some(text) => {
                text.into_string().map(Some).map_err(|_| format!("the token in {VARIABLE} is not text"))
            }
            None => Ok(None),
        }
    }
}

/// Why there is nothing to be asked, in the words of the arguments.
fn told(refused: &Refused) -> String {
    let Refused::Sense(mistakes) = refused else { return "the arguments make no question".to_owned() };
    let told = mistakes.iter().map(|mistake| match mistake.key {
        Some("headers") => {
            "the token, --forwarded-host or --forwarded-proto holds what no header can".to_owned()
        }
        _ => mistake.what.clone().into_owned(),
    });
    told.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn what_is_secret_in_the_url_and_the_token_are_hidden() {
        let url = "http://me:Hid%64en-1@127.0.0.1/?api_key=Hidden-2&page=shown";
        let command = Command::parse_from(["http", url, "--token", "Hidden-3"]);
        assert_eq!(command.args.read().map(|checks| checks.len()), Ok(1));
        let told = hidden::without_secrets("Hid%64en-1 Hidden-1 Hidden-2 Hidden-3 me shown");
        assert_eq!(told, "… … … … me shown");
    }
}
