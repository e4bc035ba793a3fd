//! Real file systems, in a mount namespace of the test's own thread, with which they go.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use serde_json::json;
use shared::check::Check;

use crate::{ask, check, told};

/// Runs a test with a folder to mount at, apart from all other processes.
fn apart(test: impl FnOnce(&Path) + Send + 'static) {
    let run = move || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        let folder = tempfile::tempdir().unwrap();
        test(folder.path());
        // What is still mounted would keep the folder from being removed; some tests have unmounted it themselves.
        umount2(folder.path(), MntFlags::MNT_DETACH).ok();
    };
    thread::spawn(run).join().unwrap();
}

fn tmpfs(at: &Path, flags: MsFlags) {
    mount(Some("tmpfs"), at, Some("tmpfs"), flags, Some("size=1m,nr_inodes=64")).unwrap();
}

fn disk(path: &Path) -> Box<dyn Check> {
    check("disk", json!({ "path": path, "mounted": true }))
}

pub fn full() {
    apart(|path| {
        tmpfs(path, MsFlags::empty());
        let check = disk(path);
        assert_eq!(told(&*check), "");
        let mut file = File::create(path.join("filler")).unwrap();
        file.write_all(&vec![7; 956 * 1_024]).unwrap();
        let full = format!("warn: {} is 93.4 % full, 68.0 KiB free (limit 90 %)", path.display());
        assert_eq!(told(&*check), full);
        file.write_all(&vec![7; 1 << 20]).unwrap_err();
        let full = format!("fail: {} is 100.0 % full, 0 B free (limit 100 %)", path.display());
        assert_eq!(told(&*check), full);
        file.set_len(0).unwrap();
        assert_eq!(told(&*check), "");
    });
}

pub fn inodes() {
    apart(|path| {
        tmpfs(path, MsFlags::empty());
        let check = disk(path);
        assert_eq!(told(&*check), "");
        let made = (0..64).take_while(|n| File::create(path.join(n.to_string())).is_ok()).count();
        assert!(made > 32, "{made}");
        let used_up = format!("fail: 100.0 % of the inodes of {} are in use (limit 100 %)", path.display());
        assert_eq!(told(&*check), used_up);
        for n in 0..made {
            fs::remove_file(path.join(n.to_string())).unwrap();
        }
        assert_eq!(told(&*check), "");
    });
}

pub fn read_only() {
    apart(|path| {
        tmpfs(path, MsFlags::empty());
        let check = disk(path);
        let remount =
            |flags| mount(None::<&str>, path, None::<&str>, MsFlags::MS_REMOUNT | flags, None::<&str>);
        assert_eq!(told(&*check), "");
        remount(MsFlags::MS_RDONLY).unwrap();
        assert_eq!(told(&*check), format!("fail: {} is mounted for reading only", path.display()));
        remount(MsFlags::empty()).unwrap();
        assert_eq!(told(&*check), "");
    });
}

pub fn missing() {
    apart(|folder| {
        // With a blank in its name, which the kernel writes as a number.
        let path = folder.join("the volume");
        fs::create_dir(&path).unwrap();
        let check = disk(&path);
        let missing = format!("fail: nothing is mounted at {}", path.display());
        assert_eq!(told(&*check), missing);
        tmpfs(&path, MsFlags::empty());
        assert_eq!(told(&*check), "");
        umount2(&path, MntFlags::MNT_DETACH).unwrap();
        assert_eq!(told(&*check), missing);
    });
}

/// A FUSE file system whose server is there and never answers.
pub fn hung() {
    apart(|path| {
        let server = File::options().read(true).write(true).open("/dev/fuse").unwrap();
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", server.as_raw_fd());
        mount(Some("hung"), path, Some("fuse"), MsFlags::empty(), Some(options.as_str())).unwrap();
        let check = check("disk", json!({ "path": path, "max_used": {}, "max_inodes_used": {} }));
        let shown = path.display().to_string();
        let start = Instant::now();
        let first = ask(&*check, Duration::from_millis(300)).unwrap_err();
        let took = start.elapsed();
        assert_eq!(first.to_string(), format!("{shown} does not answer"));
        assert!(took >= Duration::from_millis(300) && took < Duration::from_millis(350), "{took:?}");
        let hanging = waiting_threads();
        for _ in 0..200 {
            assert_eq!(told(&*check), format!("fail: {shown} has not answered an earlier question yet"));
        }
        assert!(waiting_threads() <= hanging, "{hanging}");
        // Its server dies: the question ends.
        drop(server);
        let begun = Instant::now();
        while told(&*check) != format!("fail: {shown} cannot be looked at") {
            assert!(begun.elapsed() < Duration::from_secs(20));
        }
        umount2(path, MntFlags::MNT_DETACH).unwrap();
        assert_eq!(told(&*check), "");
    });
}

/// Threads of this process that ask a file system.
fn waiting_threads() -> usize {
    let names = fs::read_dir("/proc/self/task").unwrap().flatten();
    names
        .filter(|task| fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name == "check\n"))
        .count()
}
