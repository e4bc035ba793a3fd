//! `heartbeat.h` is what this crate says.

use std::path::Path;
use std::{env, fs};

/// Writes it anew, where this is set.
const BLESS: &str = "HEARTBEAT_HEADER_BLESS";

#[test]
fn the_header_is_made_from_the_source() {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let header = crate_folder.join("heartbeat.h");
    let configuration = cbindgen::Config::from_file(crate_folder.join("cbindgen.toml")).unwrap();
    let sources = ["boundary", "outcome", "builder", "handle", "task", "check"];
    let builder =
        sources.iter().fold(cbindgen::Builder::new().with_config(configuration), |builder, source| {
            builder.with_src(crate_folder.join(format!("src/{source}.rs")))
        });
    let mut made = Vec::new();
    builder.generate().unwrap().write(&mut made);
    let made = String::from_utf8(made).unwrap();
    if env::var_os(BLESS).is_some() {
        fs::write(&header, &made).unwrap();
    }
    let committed = fs::read_to_string(&header).unwrap_or_default();
    for (number, (committed, made)) in committed.lines().zip(made.lines()).enumerate() {
        assert_eq!(committed, made, "line {}; set {BLESS}=1 to write it anew", number + 1);
    }
    assert_eq!(committed, made, "set {BLESS}=1 to write it anew");
}
