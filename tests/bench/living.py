"""A beat file as a living worker's, without the worker: the same bytes each time, but for clocks and numbers."""

import json
import os
import time
from pathlib import Path


def write(file, running=1, seen=False):
    """The worker is this process where it is to be seen; else of another PID namespace, so that nobody looks at any process."""
    now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000_000
    task = {"name": "resize", "since_mono_ms": now, "due_mono_ms": now + 600_000} if running else {}
    record = {
        "v": 1, "id": "0123456789abcdef0123456789abcdef", "cluster": "orders", "worker": "web-3:17", "host": "web-3", "queues": ["mail"],
        "pid": os.getpid() if seen else 17, "pid_start": started() if seen else 1_234_567,
        "pid_ns": Path("/proc/self/ns/pid").stat().st_ino if seen else 1, "boot": Path("/proc/sys/kernel/random/boot_id").read_text().strip(), "seq": 41,
        "at_mono_ms": now, "at_unix_ms": time.time_ns() // 1_000_000, "interval_ms": 1_000, "promise_ms": 600_000,
        "status": "busy" if running else "idle", "tasks": {"running": running, "done": 41, "failed": 2, **task},
    }  # fmt: skip
    file.write_text(json.dumps(record, separators=(",", ":")) + "\n")
    file.chmod(0o600)


def started():
    """When this process was, in the kernel's ticks."""
    return int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
