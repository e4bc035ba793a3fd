"""What the thread that watches a worker sees of it from outside: of another thread, and of another process."""

from __future__ import annotations

from typing import Any


def frames_from(frame: Any) -> list[Any]:
    """This frame and those that called it, the innermost first; none of no frame."""
    frames = []
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    return frames


def is_stopped(pid: int) -> bool:
    """Whether the process exists, and does not run until it is told to."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            return file.read(512).rpartition(b") ")[2][:1] in (b"T", b"t")
    except OSError:
        return False
