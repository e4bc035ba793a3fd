//! Whether a program says that all is well, by its exit status. For whatever no other kind knows to ask.
//!
//! The program and everything that it has started end at the deadline, and at its own end everything of its process group.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command as Process};
use tokio::time::timeout;

use crate::check::{Check, Failure};
use crate::hidden::{cut_without_secrets, without_secrets};
use crate::kind::{Contract, Mistake, Settings};
use crate::settings::Word;

/// The most that is kept of what a program writes. The rest is read, and let go.
const KEPT: usize = 4 * 1024;

/// The most that is shown of its line.
const SHOWN: usize = 200;

/// How long after the program's end its last words may take to arrive.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// How many rounds of looking for what a program has started are made: each finds what was started during the one before.
const ROUNDS: usize = 10;

/// The environment variable by which everything that a program has started is known.
const MARK: &str = "CHECKER_COMMAND";

/// Whether a program says that all is well: by its exit status, 0.
///
/// It runs without a shell and without standard input. At its deadline it is killed with everything that it has started; at its
/// own end, what is left of its process group is.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_field_names, reason = "a field is a key of the configuration")]
pub struct Command {
    /// The program and its arguments. A program without a slash is looked for in `PATH`.
    #[schemars(length(min = 1))]
    command: Vec<Word>,
    /// Environment variables, beside those of the checker itself.
    #[serde(default)]
    #[schemars(default = "nothing")]
    environment: BTreeMap<String, Word>,
    /// The folder that it runs in. Without it, the checker's own.
    directory: Option<PathBuf>,
    /// Whether its exit status is that of a monitoring plugin: 0 passes, 1 is a warning, 2 fails, and anything else is unknown.
    /// Without it, anything but 0 fails.
    #[serde(default)]
    plugin: bool,
    /// Whether the first line that it prints is the reason that anybody may read. Without it, that line goes to the log only.
    #[serde(default)]
    expose_output: bool,
}

fn nothing() -> BTreeMap<String, String> {
    BTreeMap::new()
}

impl Settings for Command {
    const KIND: &'static str = "command";
    const EXAMPLE: &'static str =
        "command = [\"/usr/lib/nagios/plugins/check_ntp_time\", \"-H\", \"ntp.internal\"]\nplugin = true";
    const CONTRACT: Contract = Contract::Local;
    type Check = Self;

    fn build(self) -> Result<Self, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        if self.command.first().is_none_or(|program| program.expose().is_empty()) {
            mistakes.push(Mistake::of("command", "the program has no name"));
        }
        if self.command.iter().any(|word| word.expose().contains('\0')) {
            mistakes.push(Mistake::of("command", "it holds a zero byte"));
        }
        let variable = |(name, value): (&String, &Word)| {
            name.is_empty() || name.contains(['=', '\0']) || value.expose().contains('\0')
        };
        if self.environment.iter().any(variable) {
            mistakes.push(Mistake::of(
                "environment",
                "a name is empty or holds `=`, or something holds a zero byte",
            ));
        }
        if mistakes.is_empty() { Ok(self) } else { Err(mistakes) }
    }
}

#[async_trait::async_trait]
impl Check for Command {
    async fn run(&self, _: Instant) -> Result<(), Failure> {
        let mut running =
            self.start().map_err(|error| Failure::unknown("the program cannot be started").because(error))?;
        let told = running.end().await;
        let (status, output, errors) =
            told.map_err(|error| Failure::unknown("the program cannot be waited for").because(error))?;
        self.judge(status, first_line(&output), first_line(&errors))
    }
}

impl Command {
    fn start(&self) -> io::Result<Running> {
        let words: Vec<_> = self.command.iter().map(Word::expose).collect();
        let mark = mark()?;
        let mut process = Process::new(words[0]);
        process.args(&words[1..]).envs(self.environment.iter().map(|(name, value)| (name, value.expose())));
        process.env(MARK, &mark);
        if let Some(directory) = &self.directory {
            process.current_dir(directory);
        }
        process.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = process.process_group(0).kill_on_drop(true).spawn()?;
        let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        Ok(Running { child, group, mark, ended: false })
    }

    fn judge(&self, status: ExitStatus, output: String, errors: String) -> Result<(), Failure> {
        let how = match (status.code(), status.signal()) {
            (Some(code), _) => format!("the program ended with status {code}"),
            (None, signal) => format!("the program was ended by signal {}", signal.unwrap_or_default()),
        };
        let reason = if self.expose_output && !output.is_empty() { output.clone() } else { how };
        let failure = match (self.plugin, status.code()) {
            (_, Some(0)) => return Ok(()),
            (true, Some(1)) => Failure::warning(reason),
            (false, _) | (true, Some(2)) => Failure::failed(reason),
            (true, _) => Failure::unknown(reason),
        };
        let said: Vec<_> = [output, errors].into_iter().filter(|line| !line.is_empty()).collect();
        Err(if said.is_empty() { failure } else { failure.because(Said(said.join("; "))) })
    }
}

/// What a program said.
#[derive(Debug)]
struct Said(String);

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it said: {}", self.0)
    }
}

impl std::error::Error for Said {}

/// A program that runs, with all that it has started. Dropped, all of it ends.
struct Running {
    child: Child,
    group: Option<Pid>,
    mark: String,
    ended: bool,
}

impl Running {
    /// Waits for its end; how it ended, and what it wrote.
    async fn end(&mut self) -> io::Result<(ExitStatus, Vec<u8>, Vec<u8>)> {
        let (mut output, mut errors) = (Vec::new(), Vec::new());
        let (out, err) = (self.child.stdout.take(), self.child.stderr.take());
        let status = {
            let mut reading =
                std::pin::pin!(async { tokio::join!(keep(out, &mut output), keep(err, &mut errors)) });
            let mut waiting = std::pin::pin!(self.child.wait());
            let mut read = false;
            let status = loop {
                tokio::select! {
                    status = &mut waiting => break status?,
                    _ = &mut reading, if !read => read = true,
                }
            };
            end_group(self.group);
            if !read {
                // Something that left the group may hold the pipe open: its words are not waited for.
                drop(timeout(LAST_WORDS, reading).await);
            }
            status
        };
        self.ended = true;
        Ok((status, output, errors))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        end_group(self.group);
        for _ in 0..ROUNDS {
            let marked = marked(&self.mark);
            if marked.is_empty() {
                break;
            }
            for process in marked {
                // It may have ended by itself.
                let _ = kill(process, Signal::SIGKILL);
            }
        }
    }
}

fn end_group(group: Option<Pid>) {
    if let Some(group) = group {
        // There may be nobody left in it.
        let _ = killpg(group, Signal::SIGKILL);
    }
}

/// A word that no other run of a program has.
fn mark() -> io::Result<String> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    Ok(format!("{:032x}", u128::from_ne_bytes(random)))
}

/// The processes that were started with this mark in their environment: what left the group is known by it too.
fn marked(mark: &str) -> Vec<Pid> {
    let wanted = format!("{MARK}={mark}");
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pid = |name: &str| name.parse().ok().map(Pid::from_raw);
    let is_marked = |name: &str| {
        let environment = std::fs::read(format!("/proc/{name}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
    };
    let names = processes.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names.filter_map(|name| pid(&name).filter(|_| is_marked(&name))).collect()
}

/// Reads to the end, and keeps the beginning.
async fn keep(stream: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut stream) = stream else { return };
    let mut buffer = [0; 4_096];
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        let wanted = length.min(KEPT - kept.len());
        kept.extend_from_slice(&buffer[..wanted]);
    }
}

fn first_line(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let text = if output.len() < KEPT {
        without_secrets(&text)
    } else {
        // The last character may have been cut in two, too.
        cut_without_secrets(text.trim_end_matches(char::REPLACEMENT_CHARACTER))
    };
    // A plugin's numbers follow its words.
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().trim();
    let line = line.split('|').next().unwrap_or_default().trim_end();
    line.chars().take(SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;
    use crate::hidden::hide;
    use crate::runner::{Named, TIMED_OUT, ask};
    use crate::status::Status;

    fn command(script: &str, more: &serde_json::Value) -> Command {
        let mut settings = json!({ "command": ["sh", "-c", script] });
        settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        from_value::<Command>(settings).unwrap().build().unwrap()
    }

    async fn run(script: &str, more: serde_json::Value) -> Result<(), Failure> {
        command(script, &more).run(Instant::now() + Duration::from_secs(10)).await
    }

    fn told(answer: Result<(), Failure>) -> (Status, String, String) {
        let failure = answer.unwrap_err();
        let source = std::error::Error::source(&failure).map(ToString::to_string).unwrap_or_default();
        (failure.status(), failure.reason().to_owned(), source)
    }

    #[tokio::test]
    async fn zero_passes_and_everything_else_fails_with_its_words_in_the_log_alone() {
        assert!(run("echo all is well", json!({})).await.is_ok());
        let told = told(run("echo two; echo three >&2; exit 3", json!({})).await);
        assert_eq!(
            told,
            (Status::Fail, "the program ended with status 3".to_owned(), "it said: two; three".to_owned())
        );
        let told = self::told(run("kill -9 $$", json!({})).await);
        assert_eq!((told.0, &*told.1), (Status::Fail, "the program was ended by signal 9"));
    }

    #[tokio::test]
    async fn a_plugins_status_is_what_plugins_say() {
        let plugin = json!({ "plugin": true, "expose_output": true });
        assert!(run("exit 0", plugin.clone()).await.is_ok());
        for (code, status) in
            [(1, Status::Warn), (2, Status::Fail), (3, Status::Unknown), (4, Status::Unknown)]
        {
            let told = told(run(&format!("echo 'DISK - full | a=1'; exit {code}"), plugin.clone()).await);
            assert_eq!((told.0, &*told.1), (status, "DISK - full"));
        }
    }

    #[tokio::test]
    async fn it_gets_its_environment_its_directory_and_no_input() {
        let more = json!({ "environment": { "WORD": "right" }, "directory": "/proc" });
        assert!(run("test $WORD = right && test $PWD = /proc && ! read line", more).await.is_ok());
        let told = told(run("exit 0", json!({ "directory": "/nonexistent" })).await);
        assert_eq!((told.0, &*told.1), (Status::Unknown, "the program cannot be started"));
    }

    #[tokio::test]
    async fn endless_output_is_read_and_not_kept() {
        let told = told(
            run("head -c 50000000 /dev/zero | tr '\\0' a; exit 1", json!({ "expose_output": true })).await,
        );
        assert_eq!((told.0, told.1.len()), (Status::Fail, SHOWN));
    }

    #[test]
    fn no_part_of_a_secret_is_left_where_a_programs_words_are_cut_off() {
        const SECRET: &str = "Qv7\nZv9é|Wv";
        let _hidden = hide([SECRET].into_iter());
        let before = |length: usize| "\n".repeat(length.saturating_sub(1)) + "x";
        let shown = (0..=SHOWN + 1).map(|length| "x".repeat(length));
        for before in shown.chain((KEPT - 2 * SECRET.len()..=KEPT).map(before)) {
            let mut output = format!("{before}{SECRET}").into_bytes();
            output.truncate(KEPT);
            let told = first_line(&output);
            assert!(!told.contains(['Q', 'Z', 'W']), "{told}");
        }
    }

    #[tokio::test]
    async fn at_its_deadline_it_ends_with_all_that_it_has_started() {
        let folder = tempfile::tempdir().unwrap();
        let pids = folder.path().join("pids");
        // A child of its group, one in a session of its own, and one whose parent is gone.
        let script = format!(
            "cd {}; (sleep 100 & echo $! >>pids); setsid sh -c 'echo $$ >>pids; exec sleep 100' & \
             setsid sh -c 'sleep 100 & echo $! >>pids' & sleep 0.3; echo $$ >>pids; sleep 100",
            folder.path().display()
        );
        let check = std::sync::Arc::new(command(&script, &json!({})));
        let named = Named { name: "it".to_owned(), timeout: Duration::from_secs(30), critical: true, check };
        let asking = tokio::spawn(async move { ask(&named, Instant::now() + Duration::from_secs(3)).await });
        let outcome = asking.await.unwrap();
        assert_eq!(outcome.reason.as_deref(), Some(TIMED_OUT));
        let pids = std::fs::read_to_string(pids).unwrap();
        assert_eq!(pids.lines().count(), 4, "{pids}");
        let living = |pid: &&str| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            !stat.is_empty() && !stat.contains(") Z ")
        };
        let begun = Instant::now();
        while pids.lines().any(|pid| living(&pid)) {
            assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", pids.lines().find(living));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn what_it_leaves_behind_does_not_hold_up_its_answer() {
        let begun = Instant::now();
        assert!(run("sleep 100 & exit 0", json!({})).await.is_ok());
        assert!(run("setsid sleep 7 & exit 0", json!({})).await.is_ok());
        assert!(begun.elapsed() < Duration::from_secs(6));
    }

    #[test]
    fn what_cannot_be_a_program_is_a_mistake() {
        for settings in [json!({ "command": [] }), json!({ "command": [""] }), json!({ "command": ["a\0"] })]
        {
            assert!(from_value::<Command>(settings).unwrap().build().is_err());
        }
        let shown = format!("{:?}", command("S3cret", &json!({ "environment": { "A": "S3cret" } })));
        assert!(!shown.contains("S3cret"), "{shown}");
    }
}
