//! What is generated from the command line's definition.

use crate::bench::{Bench, HEARTBEAT, exit};

#[test]
fn completions_are_printed_for_every_shell_and_bash_reads_its_own() {
    let bench = Bench::new();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        assert_eq!(exit(bench.command(HEARTBEAT).args(["completions", shell])), 0, "{shell}");
        assert!(bench.stdout().contains("stop-timeout"), "{shell}");
        assert!(!bench.stdout().contains("manual page"), "{shell} offers what is hidden");
        assert!(shell != "bash" || !bench.stdout().contains("heartbeat,man)"), "bash offers what is hidden");
    }
    let script = format!("source <({HEARTBEAT} completions bash) && complete -p heartbeat");
    assert_eq!(exit(bench.command("bash").args(["-c", &script])), 0);
    assert_eq!(exit(bench.command(HEARTBEAT).args(["completions", "tcsh"])), 2);
}

#[test]
fn manual_pages_come_one_for_each_command_or_the_main_one_alone() {
    let bench = Bench::new();
    assert_eq!(exit(bench.command(HEARTBEAT).arg("man")), 0);
    assert!(bench.stdout().contains(".TH heartbeat 1"), "{}", bench.stdout());
    assert_eq!(exit(bench.command(HEARTBEAT).args(["man", "--dir", "pages"])), 0);
    let mut pages: Vec<_> =
        std::fs::read_dir(bench.path("pages")).unwrap().map(|page| page.unwrap().file_name()).collect();
    pages.sort();
    #[cfg(feature = "redis")]
    assert_eq!(pages.remove(0), "heartbeat-agent.1");
    assert_eq!(pages, ["heartbeat-completions.1", "heartbeat-run.1", "heartbeat.1"]);
    let run = bench.read("pages/heartbeat-run.1");
    for told in ["\\-\\-stop\\-timeout", "HEARTBEAT_FILE", "was not found"] {
        assert!(run.contains(told), "{told}");
    }
}

#[test]
fn what_cannot_be_written_is_1_with_one_line() {
    let bench = Bench::new();
    std::fs::write(bench.path("plain"), "").unwrap();
    assert_eq!(exit(bench.command(HEARTBEAT).args(["man", "--dir", "plain"])), 1);
    assert_eq!(bench.stderr().lines().count(), 1, "{}", bench.stderr());
    let full = || std::fs::File::create("/dev/full").unwrap();
    for command in [&["man"][..], &["completions", "bash"]] {
        assert_eq!(exit(bench.command(HEARTBEAT).args(command).stdout(full())), 1);
        assert_eq!(bench.stderr().lines().count(), 1, "{}", bench.stderr());
    }
}

#[test]
fn the_version_is_the_packages() {
    let bench = Bench::new();
    assert_eq!(exit(bench.command(HEARTBEAT).arg("--version")), 0);
    assert_eq!(bench.stdout(), concat!("heartbeat ", env!("CARGO_PKG_VERSION"), "\n"));
}
