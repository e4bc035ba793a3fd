"""A machine of the tests' own that systemd has booted: this one's own files, in namespaces, with other units and nothing kept."""

import os
import subprocess
from pathlib import Path

import harness
from harness import until

SYSTEMD = Path("/usr/lib/systemd/systemd")
# Processes, mounts, network and control groups are its own; what is the kernel's, it cannot write to.
NAMESPACES = ["--mount", "--pid", "--fork", "--kill-child", "--cgroup", "--uts", "--ipc", "--net"]
JOIN = """
mount --make-rprivate /
mount -t tmpfs tmpfs "$1"
mkdir "$1/groups" "$1/upper" "$1/work" "$1/root"
mount -t cgroup2 cgroup2 "$1/groups"
mkdir "$1/groups/$2"
echo $$ >"$1/groups/$2/cgroup.procs"
"""
BOOT = """
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
cd "$1/root"
# Whatever this machine starts or mounts by itself is not here; with a name of its own it is not taken for new, and all units enabled.
rm -rf etc/systemd/system etc/fstab
printf '%032d\\n' 1 >etc/machine-id
cp -a "$3/." .
chmod 0755 .
mount -t proc proc proc
mount -o bind,ro proc/sys proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
mkdir dev/shm dev/pts
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
for device in null zero full random urandom tty; do touch "dev/$device"; mount --bind "/dev/$device" "dev/$device"; done
ip link set lo up
mkdir run/outside
pivot_root . run/outside
umount -l /run/outside
# As whoever starts systemd in a container must: what is mounted for a service is seen by all.
mount --make-rshared /
exec env -i container=tests PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$4" --unit=basic.target
"""
LEAVE = """
mount -t cgroup2 cgroup2 "$1"
find "$1/$2" -depth -type d -exec rmdir {} +
"""


def unshared(script, *arguments):
    """The command that runs a script with mounts of its own."""
    return ["unshare", "--mount", "sh", "-ec", script, "sh", *arguments]


def refused():
    """Why no such machine can be had here; None where it can."""
    if os.geteuid():
        return "only root can make one"
    if not SYSTEMD.exists():
        return f"there is no {SYSTEMD}"
    done = subprocess.run(["unshare", *NAMESPACES, "true"], capture_output=True, text=True, timeout=60, check=False)
    return done.stderr.strip() if done.returncode else None


class Machine(harness.Program):
    """`files` is a folder that is laid over its root; below etc/systemd/system stand all its units."""

    def __init__(self, folder, files):
        self.folder, self.name = folder, f"heartbeat-{os.getpid()}"
        inner = ["unshare", *NAMESPACES, "sh", "-ec", BOOT, "sh", str(folder), self.name, str(files), str(SYSTEMD)]
        joined = JOIN + 'shift 2\nexec "$@"'
        super().__init__(unshared(joined, folder, self.name, *inner))
        until(self._booted, timeout=120, what="it has booted")

    def _booted(self):
        assert self.process.poll() is None, self.output
        if not (children := Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()):
            return False
        self.first = children[0]
        told = self.run("systemctl", "is-system-running", check=False).stdout.strip()
        assert told != "degraded", self.run("systemctl", "--failed").stdout
        return told == "running"

    def run(self, *command, check=True, timeout=60):
        words = ["nsenter", "--target", self.first, "--all", *(str(word) for word in command)]
        # Not the tests' environment: a name of their own folders means nothing in there.
        environment = {"PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=timeout, check=False)
        assert not check or done.returncode == 0, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}{self.journal()}"
        return done

    def journal(self):
        return self.run("journalctl", "--no-pager", "--lines=60", check=False).stdout

    def shows(self, unit, name):
        """One property of a unit."""
        return self.run("systemctl", "show", "--property", name, "--value", unit).stdout.strip()

    def until(self, fact, what, timeout=30):
        try:
            return until(fact, timeout, what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.journal()}") from None

    def end(self):
        super().end()
        subprocess.run(unshared(LEAVE, self.folder, self.name), capture_output=True, timeout=60, check=False)
