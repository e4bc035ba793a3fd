"""A queue worker's heartbeat: facts about the worker, published once a second for `checker` to judge.

The beats come from a thread of Rust's that never takes the GIL, so work cannot starve them; marks and tasks come from the worker
itself, so a stuck worker still beats, and its beat says that it is stuck.
"""

from __future__ import annotations

from ._heartbeat import Error, Heartbeat, Task, __version__

__all__ = ["Error", "Heartbeat", "Task", "__version__"]
