//! The same as `stat.c`, in Rust: what a Rust program costs that does nothing else.

use std::time::{Duration, SystemTime};
use std::{env, fs, process};

fn main() {
    let touched = env::args_os().nth(1).and_then(|path| fs::metadata(path).ok()?.modified().ok());
    let age = touched.and_then(|touched| SystemTime::now().duration_since(touched).ok());
    process::exit(i32::from(age.is_none_or(|age| age > Duration::from_mins(1))));
}
