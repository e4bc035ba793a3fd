"""What a process may have of the machine: control groups (version 1), which this kernel lets root make, and a fork bomb in one."""

import contextlib
import os
import time
import uuid
from pathlib import Path

CPU, MEMORY = Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup/memory")


def own(controller, root):
    """The group that this process is in: new ones are made below it."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        if controller in names.split(","):
            return root / path.lstrip("/")
    return root


def not_root():
    return "needs root" if os.geteuid() != 0 else None


def no_cpu():
    return no_group("cpu", CPU)


def no_memory():
    return no_group("memory", MEMORY)


def no_group(controller, root):
    """Why no group can be made here; None where one can."""
    folder = own(controller, root)
    if not folder.is_dir():
        return f"there is no {folder}: no control groups of version 1"
    made = folder / f"faults-{uuid.uuid4().hex[:8]}"
    try:
        made.mkdir()
        made.rmdir()
    except OSError as error:
        return f"no control group below {folder}: {error.strerror}"
    return None


class Group:
    """One control group, and those who are in it."""

    def __init__(self, parent):
        self.folder = parent / f"faults-{uuid.uuid4().hex[:8]}"
        self._parent = parent
        self.folder.mkdir()

    def set(self, name, value):
        (self.folder / name).write_text(str(value))

    def take(self, pids):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                (self.folder / "cgroup.procs").write_text(str(pid))

    def end(self):
        """Those who are in it go back to where they came from."""
        for _ in range(100):
            for pid in (self.folder / "cgroup.procs").read_text().split():
                with contextlib.suppress(OSError):
                    (self._parent / "cgroup.procs").write_text(pid)
            with contextlib.suppress(OSError):
                self.folder.rmdir()
                return
            time.sleep(0.02)
        self.folder.rmdir()


class Cpu:
    def __init__(self, pids, percent):
        self.pids, self.percent = list(pids), percent

    def __enter__(self):
        self.group = Group(own("cpu", CPU))
        self.group.set("cpu.cfs_period_us", 100_000)
        self.group.set("cpu.cfs_quota_us", 1_000 * self.percent)
        self.group.take(self.pids)
        return self

    def __exit__(self, *error):
        self.group.end()


class Bombed:
    """A group with a tenth of a core: ten parts of it go to processes that only turn, and the eleventh to these."""

    HOGS, OF_A_CORE = 8, 10

    def __init__(self, pids):
        self.pids = list(pids)

    def __enter__(self):
        self.whole = Group(own("cpu", CPU))
        self.whole.set("cpu.cfs_period_us", 100_000)
        self.whole.set("cpu.cfs_quota_us", 1_000 * self.OF_A_CORE)
        self.bomb, self.starved = Group(self.whole.folder), Group(self.whole.folder)
        self.bomb.set("cpu.shares", 1024)
        self.starved.set("cpu.shares", 100)
        self.hogs = []
        for _ in range(self.HOGS):
            pid = os.posix_spawn("/bin/sh", ["sh", "-c", "while :; do :; done"], os.environ)
            self.hogs.append(pid)
        self.bomb.take(self.hogs)
        self.starved.take(self.pids)
        self.begun, self.used = time.monotonic(), self._used()
        return self

    def _used(self):
        return sum(map(ticks, self.pids))

    def share(self):
        """What they had of a core."""
        return (self._used() - self.used) / os.sysconf("SC_CLK_TCK") / (time.monotonic() - self.begun)

    def __exit__(self, *error):
        for pid in self.hogs:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
        self.bomb.end()
        self.starved.end()
        # Those who went back went no further than to the whole.
        self.whole.end()


def ticks(pid):
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])


class Memory:
    def __init__(self, pids, limit):
        self.pids, self.limit = list(pids), limit

    def __enter__(self):
        self.group = Group(own("memory", MEMORY))
        self.group.set("memory.limit_in_bytes", self.limit)
        self.group.take(self.pids)
        return self

    def kills(self):
        """How many the kernel has killed for it."""
        lines = (self.group.folder / "memory.oom_control").read_text().splitlines()
        return int(dict(line.split() for line in lines).get("oom_kill", 0))

    def __exit__(self, *error):
        self.group.end()
