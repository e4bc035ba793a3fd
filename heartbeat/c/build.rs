//! Names the interface that programs are linked against (`libheartbeat.so.0`), and keeps the library in the process once it is
//! there: `dlclose` must not take the code away from under the publisher's thread, nor from under what runs at `fork` and `exit`.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "linux") {
        println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libheartbeat.so.0");
        println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
    }
}
