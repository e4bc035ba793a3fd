//! A command in a pseudo-terminal, and what a person would see there.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::num::NonZero;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// A terminal with a command in it. The command is ended with it.
pub struct Screen {
    keyboard: File,
    /// Keeps the terminal open after the command has ended, so that it can be looked at.
    terminal: File,
    seen: Arc<Mutex<vt100::Parser>>,
    reader: Option<JoinHandle<()>>,
    process: Child,
}

impl Screen {
    /// Starts the command in a terminal of this size.
    pub fn start(command: &mut Command, columns: u16, rows: u16) -> Self {
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a pty");
        grantpt(&keyboard).expect("granted");
        unlockpt(&keyboard).expect("unlocked");
        let name = ptsname(&keyboard, Vec::new()).expect("its name").into_string().expect("text");
        let terminal = OpenOptions::new().read(true).write(true).open(name).expect("its other end");
        tcsetwinsize(&terminal, size(columns, rows)).expect("its size");
        let end = || terminal.try_clone().expect("a descriptor");
        command.env("TERM", "xterm-256color").stdin(end()).stdout(end()).stderr(end());
        let process = command.spawn().expect("the command starts");
        let keyboard = File::from(keyboard);
        let seen = Arc::new(Mutex::new(vt100::Parser::new(some(rows), some(columns), 0)));
        let (mut output, parser) = (keyboard.try_clone().expect("a descriptor"), Arc::clone(&seen));
        let reader = thread::spawn(move || {
            let mut bytes = [0; 4096];
            // Ends with an error when the last end of the terminal is closed.
            while let Ok(read @ 1..) = output.read(&mut bytes) {
                parser.lock().unwrap_or_else(PoisonError::into_inner).process(&bytes[..read]);
            }
        });
        Self { keyboard, terminal, seen, reader: Some(reader), process }
    }

    /// Looks at the screen as it is now.
    pub fn look<T>(&self, look: impl FnOnce(&vt100::Screen) -> T) -> T {
        look(self.seen.lock().unwrap_or_else(PoisonError::into_inner).screen())
    }

    /// The lines on the screen.
    pub fn text(&self) -> String {
        self.look(vt100::Screen::contents)
    }

    /// Whether anything on it has a colour.
    pub fn is_coloured(&self) -> bool {
        self.look(|screen| {
            let (rows, columns) = screen.size();
            let (rows, columns) = (rows.get(), columns.get());
            let mut places = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
            places.any(|(row, column)| {
                screen.cell(row, column).is_some_and(|cell| cell.fgcolor() != vt100::Color::Default)
            })
        })
    }

    /// Waits until a line on the screen has all these words, and gives it.
    pub fn wait_for(&self, words: &[&str]) -> String {
        let begun = Instant::now();
        loop {
            let text = self.text();
            if let Some(line) = text.lines().find(|line| words.iter().all(|word| line.contains(word))) {
                return line.to_owned();
            }
            assert!(begun.elapsed() < PATIENCE, "no {words:?} on the screen:\n{text}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("keys");
    }

    /// Changes the terminal's size, and tells the command as a terminal would.
    pub fn resize(&self, columns: u16, rows: u16) {
        tcsetwinsize(&self.terminal, size(columns, rows)).expect("its size");
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .screen_mut()
            .set_size(some(rows), some(columns));
        self.signal(Signal::SIGWINCH);
    }

    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.process.id()).expect("a pid");
        kill(Pid::from_raw(pid), signal).expect("the command is there");
    }

    /// Waits for the command's end; the terminal can still be looked at.
    pub fn wait(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().expect("its status") {
                return status;
            }
            assert!(begun.elapsed() < PATIENCE * 3, "still there:\n{}", self.text());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Whether the terminal is as a shell expects it: the normal screen, a cursor, and keys that are echoed and
    /// read line by line.
    pub fn is_restored(&self) -> bool {
        let modes = tcgetattr(&self.terminal).expect("its modes").local_modes;
        // What the command wrote last may not have been read yet.
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(2) {
            if self.look(|screen| !screen.alternate_screen() && !screen.hide_cursor()) {
                return modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG);
            }
            thread::sleep(Duration::from_millis(10));
        }
        false
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Both fail only where the command has already been waited for.
        let _ = self.process.kill();
        let _ = self.process.wait();
        // The reader ends with the process, or with the thread of the test.
        drop(self.reader.take());
    }
}

fn size(columns: u16, rows: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

fn some(length: u16) -> NonZero<u16> {
    NonZero::new(length).expect("a terminal has lines and columns")
}
