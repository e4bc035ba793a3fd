//! The demo's worker processes and their temporary folder: started, broken, and never left behind.

use std::fs;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::kill;
use nix::unistd::Pid;
use tempfile::TempDir;

use super::script::{self, Fault};

/// What no record looks like.
const GARBAGE: &str = "Lorem ipsum dolor sit amet\n";

/// The workers, in processes of their own. Dropped, they are killed and their folder is removed.
#[derive(Debug)]
pub struct Crew {
    members: Vec<Member>,
    /// After the members: dropped when nobody writes there any more.
    folder: TempDir,
}

/// One worker's process.
#[derive(Debug)]
pub struct Member {
    /// The worker's name.
    pub name: &'static str,
    /// Its beat file.
    pub file: PathBuf,
    process: Child,
}

impl Crew {
    /// Starts one process for each name. Each dies with the thread that calls this.
    pub fn start(names: &[&'static str]) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("checker-demo.").tempdir()?;
        let mut crew = Self { members: Vec::new(), folder };
        for name in names {
            let member = Member::start(name, crew.folder.path())?;
            crew.members.push(member);
        }
        Ok(crew)
    }

    /// All of them.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Does to one of them what the script says.
    pub fn strike(&mut self, name: &str, fault: Fault) -> io::Result<()> {
        match self.members.iter_mut().find(|member| member.name == name) {
            Some(member) => member.suffer(fault),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

impl Member {
    fn start(name: &'static str, folder: &Path) -> io::Result<Self> {
        let file = folder.join(name);
        let mut command = Command::new("/proc/self/exe");
        command.arg0("checker").args(["demo-worker", "--die-with-parent", "--cluster", "demo"]);
        command.args(["--worker", name, "--queue", "demo"]);
        command.args(["--interval", script::INTERVAL, "--promise", script::PROMISE]);
        if name == "stuck" {
            command.args(["--loop-budget", script::LOOP_BUDGET]);
        }
        command.arg("--file").arg(&file);
        // The demo's own environment does not change what its workers promise.
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("HEARTBEAT_") {
                command.env_remove(variable);
            }
        }
        // Ctrl-C is for the demo, which then ends its workers itself.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null());
        Ok(Self { name, file, process: command.spawn()? })
    }

    fn suffer(&mut self, fault: Fault) -> io::Result<()> {
        match fault {
            Fault::Nothing => Ok(()),
            Fault::Signal(signal) => Ok(kill(self.pid(), signal)?),
            Fault::Say(line) => self.say(line),
            Fault::Overwrite => fs::write(&self.file, GARBAGE),
        }
    }

    fn pid(&self) -> Pid {
        // A process id always fits.
        Pid::from_raw(i32::try_from(self.process.id()).unwrap_or(i32::MAX))
    }

    fn say(&mut self, line: &str) -> io::Result<()> {
        match &mut self.process.stdin {
            Some(input) => writeln!(input, "{line}"),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // Both fail only where the process has already been waited for.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
