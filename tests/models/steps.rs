//! The stage: system calls that wait for their turn, and who has it.
//!
//! Each function here that has a name of libc's is found before libc's own by all that is linked into this program, and does
//! the same by the kernel's number. What is no actor's, and what has nothing to do with the folder, passes at once.

use std::cell::Cell;
use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::ffi::CStr;
use std::fs;
use std::hash::{Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};

use libc::{c_char, c_int, c_long, c_void, mode_t, off_t, size_t, ssize_t, timespec};

/// What may come next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// This actor makes its step.
    Go(usize),
    /// It is killed before it.
    Kill(usize),
}

/// A promise of the system's that is not kept, to see that a play notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// A lease is had, and keeps nobody out.
    Lease,
    /// So is a lock.
    Lock,
    /// A file that is renamed over another is for a moment not there.
    Rename,
    /// Who lives seems gone.
    Process,
}

/// A moment at which nobody is in a step.
pub struct Moment {
    pub choices: Vec<Choice>,
    steps: Vec<String>,
    told: u64,
}

impl Moment {
    /// This moment, of all that differ in what may follow.
    pub fn key(&self, state_of_folder: u64) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.told, state_of_folder).hash(&mut hasher);
        hasher.finish()
    }

    pub fn tell(&self, choice: Choice) -> String {
        match choice {
            Choice::Go(actor) => format!("{actor}: {}", self.steps[actor]),
            Choice::Kill(actor) => format!("{actor} is killed before: {}", self.steps[actor]),
        }
    }
}

#[derive(Default)]
struct Actor {
    /// The step that it waits for; none while it runs.
    step: Option<String>,
    done: bool,
    dead: bool,
    /// It is in the middle of a call that a kill does not divide.
    within: bool,
    /// Until how many steps have been made, where it sleeps.
    sleeps_until: u64,
    /// Of every step so far, what it was told.
    told: DefaultHasher,
    /// Its descriptors of the folder and of what is in it.
    open: Vec<c_int>,
}

#[derive(Default)]
struct State {
    actors: Vec<Actor>,
    turn: Option<usize>,
    steps: u64,
}

pub struct Stage {
    folder: PathBuf,
    pids: Vec<u32>,
    full: bool,
    mortal: Option<usize>,
    broken: Option<Broken>,
    state: Mutex<State>,
    changed: Condvar,
}

thread_local!(static ACTOR: Cell<Option<(*const Stage, usize)>> = const { Cell::new(None) });

/// What was written to each file, by its inode: to look into one could break a lease.
static WRITTEN: LazyLock<Mutex<HashMap<u64, u64>>> = LazyLock::new(Mutex::default);

fn written() -> MutexGuard<'static, HashMap<u64, u64>> {
    WRITTEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Stands for a file's content.
pub fn content(path: &Path) -> Option<u64> {
    let inode = fs::symlink_metadata(path).ok()?.ino();
    written().get(&inode).copied()
}

impl Stage {
    pub fn new(
        folder: &Path,
        pids: Vec<u32>,
        full: bool,
        mortal: Option<usize>,
        broken: Option<Broken>,
    ) -> Arc<Self> {
        written().clear();
        let state = State { actors: pids.iter().map(|_| Actor::default()).collect(), ..State::default() };
        let folder = folder.to_owned();
        Arc::new(Self {
            folder,
            pids,
            full,
            mortal,
            broken,
            state: Mutex::new(state),
            changed: Condvar::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the actors go on one by one until all are done; whether one was killed.
    pub fn direct(&self, choose: &mut dyn FnMut(&Moment) -> Choice) -> bool {
        loop {
            let state = self.state();
            let still =
                |state: &mut State| state.actors.iter().any(|actor| !actor.done && actor.step.is_none());
            let mut state = self.changed.wait_while(state, still).unwrap_or_else(PoisonError::into_inner);
            if state.actors.iter().all(|actor| actor.done) {
                return state.actors.iter().any(|actor| actor.dead);
            }
            let moment = self.moment(&state);
            drop(state);
            let choice = choose(&moment);
            state = self.state();
            state.steps += 1;
            match choice {
                Choice::Go(number) => state.turn = Some(number),
                Choice::Kill(number) => {
                    let actor = &mut state.actors[number];
                    actor.dead = true;
                    actor.open.drain(..).for_each(close_as_the_kernel_does);
                }
            }
            // It runs from now on.
            let (Choice::Go(number) | Choice::Kill(number)) = choice;
            state.actors[number].step = None;
            self.changed.notify_all();
        }
    }

    fn moment(&self, state: &State) -> Moment {
        let waiting = || state.actors.iter().enumerate().filter(|(_, actor)| !actor.done);
        let awake: Vec<_> = waiting()
            .filter(|(_, actor)| actor.sleeps_until <= state.steps)
            .map(|(number, _)| number)
            .collect();
        // When all sleep, time passes.
        let able = if awake.is_empty() { waiting().map(|(number, _)| number).collect() } else { awake };
        let mortal = self.mortal.map(|number| (number, &state.actors[number]));
        let mortal =
            mortal.filter(|(_, actor)| !actor.done && !actor.dead && !actor.within).map(|(number, _)| number);
        let mut hasher = DefaultHasher::new();
        for (number, actor) in state.actors.iter().enumerate() {
            (actor.told.finish(), &actor.step, actor.done, actor.dead, able.contains(&number))
                .hash(&mut hasher);
        }
        Moment {
            choices: able.into_iter().map(Choice::Go).chain(mortal.map(Choice::Kill)).collect(),
            steps: state.actors.iter().map(|actor| actor.step.clone().unwrap_or_default()).collect(),
            told: hasher.finish(),
        }
    }

    /// Waits for this actor's turn; whether it still lives then.
    fn step(&self, number: usize, what: String, sleeps: bool) -> bool {
        let mut state = self.state();
        if state.actors[number].dead {
            return false;
        }
        let made = state.steps;
        let actor = &mut state.actors[number];
        actor.step = Some(what);
        actor.sleeps_until = if sleeps { made + 1 } else { 0 };
        self.changed.notify_all();
        let waits = |state: &mut State| state.turn != Some(number) && !state.actors[number].dead;
        let mut state = self.changed.wait_while(state, waits).unwrap_or_else(PoisonError::into_inner);
        if state.actors[number].dead {
            return false;
        }
        state.turn = None;
        true
    }

    /// What the actor is told by its step.
    fn tell(&self, number: usize, answer: impl Hash) {
        answer.hash(&mut self.state().actors[number].told);
    }

    fn has_open(&self, number: usize, file: c_int) -> bool {
        self.state().actors[number].open.contains(&file)
    }

    fn lives(&self, pid: u32) -> bool {
        self.broken != Some(Broken::Process)
            && self
                .pids
                .iter()
                .position(|other| *other == pid)
                .is_some_and(|number| !self.state().actors[number].dead)
    }
}

/// Runs this as an actor of the stage.
pub fn as_actor<T>(stage: &Arc<Stage>, number: usize, play: impl FnOnce() -> T) -> T {
    ACTOR.set(Some((Arc::as_ptr(stage), number)));
    let outcome = play();
    ACTOR.set(None);
    stage.state().actors[number].done = true;
    stage.changed.notify_all();
    outcome
}

/// The stage that this thread is on, and as whom.
fn actor() -> Option<(&'static Stage, usize)> {
    // SAFETY: `as_actor` borrows the stage for as long as the pointer stands.
    ACTOR.get().map(|(stage, number)| (unsafe { &*stage }, number))
}

fn failed(errno: c_int) -> c_long {
    // SAFETY: the address of this thread's own.
    unsafe { *libc::__errno_location() = errno };
    -1
}

fn errno() -> c_int {
    // SAFETY: as above.
    unsafe { *libc::__errno_location() }
}

/// What was open is closed, and its number is taken by something harmless until its owner closes it.
fn close_as_the_kernel_does(file: c_int) {
    // SAFETY: numbers and a text; nobody else uses the descriptor now.
    unsafe {
        let nothing = libc::syscall(
            libc::SYS_openat,
            libc::AT_FDCWD,
            c"/dev/null".as_ptr(),
            libc::O_RDWR | libc::O_CLOEXEC,
            0,
        );
        libc::syscall(libc::SYS_dup3, nothing, file, libc::O_CLOEXEC);
        libc::syscall(libc::SYS_close, nothing);
    }
}

/// A step with a name in the folder: `call` does it, and how it went is what the actor is told.
fn named(path: *const c_char, what: &str, call: impl FnOnce() -> c_long) -> c_long {
    // SAFETY: whoever calls libc's function gives a text that ends.
    let text = unsafe { CStr::from_ptr(path) }.to_string_lossy();
    let Some((stage, number)) = actor() else { return call() };
    if let Some(pid) = text.strip_prefix("/proc/5").and_then(|rest| rest.strip_suffix("/stat")) {
        return look_at_process(stage, number, format!("5{pid}").parse().unwrap_or(0));
    }
    let Ok(name) = Path::new(&*text).strip_prefix(&stage.folder) else { return call() };
    if !stage.step(number, format!("{what} {}", name.display()), false) {
        return failed(libc::EIO);
    }
    let seen = content(Path::new(&*text));
    let answer = call();
    let error = errno();
    stage.tell(number, (what, name, answer < 0, if answer < 0 { error } else { 0 }, seen));
    failed_as(answer, error)
}

fn failed_as(answer: c_long, error: c_int) -> c_long {
    if answer < 0 { failed(error) } else { answer }
}

/// A process of the play: there is a worker where it has not been killed.
fn look_at_process(stage: &Stage, number: usize, pid: u32) -> c_long {
    if !stage.step(number, format!("look at process {pid}"), false) {
        return failed(libc::EIO);
    }
    let lives = stage.lives(pid);
    stage.tell(number, ("process", pid, lives));
    if !lives {
        return failed(libc::ENOENT);
    }
    let stat = format!("{pid} (worker) S{} 1 0 7", " 0".repeat(16));
    // SAFETY: a text, a number and bytes that are there.
    unsafe {
        let file = libc::syscall(libc::SYS_memfd_create, c"stat".as_ptr(), libc::MFD_CLOEXEC);
        libc::syscall(libc::SYS_pwrite64, file, stat.as_ptr(), stat.len(), 0);
        file
    }
}

/// A step with what is open: `call` does it, and the actor is told its answer, and what `read` finds then.
fn with_open(
    file: c_int,
    what: &str,
    call: impl FnOnce() -> c_long,
    read: impl FnOnce(c_long) -> u64,
) -> c_long {
    let Some((stage, number)) = actor().filter(|(stage, number)| stage.has_open(*number, file)) else {
        return call();
    };
    if !stage.step(number, what.to_owned(), false) {
        // It is closed, and something harmless has its number.
        return call();
    }
    let answer = call();
    let error = errno();
    let error = if answer < 0 { error } else { 0 };
    stage.tell(number, (what, answer, error, read(answer)));
    failed_as(answer, error)
}

fn opened(file: c_long, flags: c_int) -> c_int {
    let number = c_int::try_from(file).unwrap_or(-1);
    if let (0.., Some((stage, actor))) = (number, actor()) {
        let of_folder = fs::read_link(format!("/proc/self/fd/{number}"))
            .is_ok_and(|path| path.starts_with(&stage.folder));
        if of_folder {
            stage.state().actors[actor].open.push(number);
            if flags & libc::O_CREAT != 0 {
                written().insert(inode(number), 0);
            }
        }
    }
    number
}

fn inode(file: c_int) -> u64 {
    fs::metadata(format!("/proc/self/fd/{file}")).map_or(0, |metadata| metadata.ino())
}

fn note_written(file: c_int, bytes: *const c_void, length: size_t) {
    if actor().is_some_and(|(stage, number)| stage.has_open(number, file)) {
        let mut hasher = DefaultHasher::new();
        // SAFETY: the kernel has just read them.
        unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), length) }.hash(&mut hasher);
        written().insert(inode(file), hasher.finish());
    }
}

fn hash_of(bytes: *const c_void, length: c_long) -> u64 {
    let mut hasher = DefaultHasher::new();
    if let Ok(length) = usize::try_from(length) {
        // SAFETY: the kernel has just written so many.
        unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), length) }.hash(&mut hasher);
    }
    hasher.finish()
}

/// Does it, or only says so.
fn unless(broken: Broken, call: impl FnOnce() -> c_long) -> impl FnOnce() -> c_long {
    move || if actor().is_some_and(|(stage, _)| stage.broken == Some(broken)) { 0 } else { call() }
}

fn int(answer: c_long) -> c_int {
    c_int::try_from(answer).unwrap_or(-1)
}

fn openat_step(at: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    let what = if flags & libc::O_CREAT == 0 { "open" } else { "create" };
    // SAFETY: what the caller gave.
    opened(named(path, what, || unsafe { libc::syscall(libc::SYS_openat, at, path, flags, mode) }), flags)
}

#[unsafe(no_mangle)]
extern "C" fn openat(at: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    openat_step(at, path, flags, mode)
}

#[unsafe(no_mangle)]
extern "C" fn open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    openat_step(libc::AT_FDCWD, path, flags, mode)
}

#[unsafe(no_mangle)]
extern "C" fn open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    openat_step(libc::AT_FDCWD, path, flags, mode)
}

#[unsafe(no_mangle)]
extern "C" fn unlink(path: *const c_char) -> c_int {
    // SAFETY: what the caller gave.
    int(named(path, "unlink", || unsafe { libc::syscall(libc::SYS_unlink, path) }))
}

#[unsafe(no_mangle)]
extern "C" fn renameat(from: c_int, old: *const c_char, to: c_int, new: *const c_char) -> c_int {
    if actor().is_some_and(|(stage, _)| stage.broken == Some(Broken::Rename)) {
        unlink(new);
    }
    // SAFETY: what the caller gave.
    int(named(new, "rename to", || unsafe { libc::syscall(libc::SYS_renameat, from, old, to, new) }))
}

#[unsafe(no_mangle)]
extern "C" fn fallocate(file: c_int, mode: c_int, from: off_t, length: off_t) -> c_int {
    let full = actor().is_some_and(|(stage, number)| stage.full && stage.has_open(number, file));
    let call = || {
        if full {
            return failed(libc::ENOSPC);
        }
        // SAFETY: what the caller gave.
        unsafe { libc::syscall(libc::SYS_fallocate, file, mode, from, length) }
    };
    int(with_open(file, "reserve", call, |_| 0))
}

#[unsafe(no_mangle)]
extern "C" fn fallocate64(file: c_int, mode: c_int, from: off_t, length: off_t) -> c_int {
    fallocate(file, mode, from, length)
}

#[unsafe(no_mangle)]
extern "C" fn write(file: c_int, bytes: *const c_void, length: size_t) -> ssize_t {
    written_in_two(file, bytes, length, "write", |bytes, length, _| {
        // SAFETY: what the caller gave.
        unsafe { libc::syscall(libc::SYS_write, file, bytes, length) }
    })
}

#[unsafe(no_mangle)]
extern "C" fn pwrite64(file: c_int, bytes: *const c_void, length: size_t, at: off_t) -> ssize_t {
    written_in_two(file, bytes, length, "write over", |bytes, length, from| {
        // SAFETY: what the caller gave.
        unsafe { libc::syscall(libc::SYS_pwrite64, file, bytes, length, at + from) }
    })
}

/// Nothing keeps a reader from seeing half of a write: so it is two steps. A kill does not divide one within a page.
fn written_in_two(
    file: c_int,
    bytes: *const c_void,
    length: size_t,
    what: &str,
    call: impl Fn(*const c_void, size_t, off_t) -> c_long,
) -> ssize_t {
    let Some((stage, number)) = actor().filter(|(stage, number)| length > 1 && stage.has_open(*number, file))
    else {
        return call(bytes, length, 0) as ssize_t;
    };
    let half = length / 2;
    let first = || {
        let answer = call(bytes, half, 0);
        note_written(file, bytes, half);
        answer
    };
    let answer = with_open(file, &format!("{what}, the first half"), first, |_| 0);
    if usize::try_from(answer) != Ok(half) {
        return answer as ssize_t;
    }
    stage.state().actors[number].within = true;
    let rest = || {
        // SAFETY: within what the caller gave.
        let answer = call(unsafe { bytes.byte_add(half) }, length - half, half as off_t);
        note_written(file, bytes, length);
        answer
    };
    let answer = with_open(file, &format!("{what}, the rest"), rest, |_| 0);
    stage.state().actors[number].within = false;
    if answer < 0 { answer as ssize_t } else { half as ssize_t + answer as ssize_t }
}

#[unsafe(no_mangle)]
extern "C" fn read(file: c_int, bytes: *mut c_void, length: size_t) -> ssize_t {
    // SAFETY: what the caller gave.
    let call = || unsafe { libc::syscall(libc::SYS_read, file, bytes, length) };
    with_open(file, "read", call, |read| hash_of(bytes, read)) as ssize_t
}

#[unsafe(no_mangle)]
extern "C" fn pread64(file: c_int, bytes: *mut c_void, length: size_t, at: off_t) -> ssize_t {
    // SAFETY: what the caller gave.
    let call = || unsafe { libc::syscall(libc::SYS_pread64, file, bytes, length, at) };
    with_open(file, "read", call, |read| hash_of(bytes, read)) as ssize_t
}

#[unsafe(no_mangle)]
extern "C" fn flock(file: c_int, operation: c_int) -> c_int {
    // SAFETY: what the caller gave.
    let call = || unsafe { libc::syscall(libc::SYS_flock, file, operation) };
    int(with_open(file, "lock", unless(Broken::Lock, call), |_| 0))
}

#[unsafe(no_mangle)]
extern "C" fn fcntl(file: c_int, command: c_int, argument: usize) -> c_int {
    // SAFETY: what the caller gave.
    let call = || unsafe { libc::syscall(libc::SYS_fcntl, file, command, argument) };
    int(if command == libc::F_SETLEASE {
        with_open(file, "lease", unless(Broken::Lease, call), |_| 0)
    } else {
        call()
    })
}

#[unsafe(no_mangle)]
extern "C" fn close(file: c_int) -> c_int {
    let call = || {
        if let Some((stage, number)) = actor() {
            stage.state().actors[number].open.retain(|other| *other != file);
        }
        // SAFETY: what the caller gave.
        unsafe { libc::syscall(libc::SYS_close, file) }
    };
    int(with_open(file, "close", call, |_| 0))
}

#[unsafe(no_mangle)]
extern "C" fn clock_nanosleep(
    clock: c_int,
    flags: c_int,
    time: *const timespec,
    left: *mut timespec,
) -> c_int {
    let Some((stage, number)) = actor() else {
        // SAFETY: what the caller gave.
        let answer = unsafe { libc::syscall(libc::SYS_clock_nanosleep, clock, flags, time, left) };
        return if answer < 0 { errno() } else { 0 };
    };
    if stage.step(number, "sleep".to_owned(), true) {
        stage.tell(number, "slept");
    }
    0
}
