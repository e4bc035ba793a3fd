//! How the commands are linked, so that a probe starts quickly.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=probe.ld");
    println!("cargo::rerun-if-env-changed=CHECKER_PROBE_ORDER");
    // At a fixed address where glibc is used. The loader would touch some 200 pages first, to write addresses into them: a
    // third of the time of a start (2.6 ms, 1.8 ms without). The price is that the program's own code lies where an attacker
    // expects it; stack, heap and libraries are at random places still.
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    if is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu") {
        println!("cargo::rustc-link-arg-bins=-no-pie");
    }
    // What a probe runs, side by side. Not every linker can read that script, so nobody has it unasked: `cargo dist` asks.
    if env::var_os("CHECKER_PROBE_ORDER").is_some() {
        let folder = env::var("CARGO_MANIFEST_DIR").expect("cargo says where this is");
        println!("cargo::rustc-link-arg-bins=-Wl,-T,{folder}/probe.ld");
    }
}
