"""What one process of the cluster tells the sentinel: a page of memory that both have since the fork.

It is written without a lock and without a system call, so whatever happens to the reader, the writer works on; a writer that is stopped
in the middle is read as one of which nothing new is known.
"""

from __future__ import annotations

import mmap
import struct
import time
from typing import NamedTuple, Optional

_NAME = 64
_VERSION = struct.Struct("=Q")
_STATE = struct.Struct(f"=QQQ?d{_NAME}s")


class State(NamedTuple):
    """How often something was begun, was done and failed, whether one is being done now, and since when and what."""

    begun: int = 0
    done: int = 0
    failed: int = 0
    inside: bool = False
    since: float = 0.0
    name: str = ""


class Slot:
    """One process writes, one reads. Times are `time.monotonic()`, which is the same in all processes of a machine."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _VERSION.size + _STATE.size)
        self._version = 0
        self._state = State()

    def present(self) -> None:
        """The writer is there: until then nothing is read."""
        if not self._version:
            self._write(self._state)

    def begin(self, name: str = "") -> None:
        """Begins something; what was begun before and has not been ended is done."""
        self.end()
        self._write(self._state._replace(begun=self._state.begun + 1, inside=True, since=time.monotonic(), name=name))

    def end(self, failed: bool = False) -> None:
        """Ends what was begun, where something was."""
        state = self._state
        if state.inside:
            done, lost = (0, 1) if failed else (1, 0)
            self._write(state._replace(done=state.done + done, failed=state.failed + lost, inside=False, since=time.monotonic()))

    def _write(self, state: State) -> None:
        self._state = state
        name = state.name.encode("utf-8", "replace")[:_NAME]
        # Odd while it is being written.
        _VERSION.pack_into(self._memory, 0, self._version + 1)
        _STATE.pack_into(self._memory, _VERSION.size, *state[:-1], name)
        self._version += 2
        _VERSION.pack_into(self._memory, 0, self._version)

    def read(self) -> Optional[State]:
        """What was written last; nothing where nothing was, or where it is being written."""
        (before,) = _VERSION.unpack_from(self._memory, 0)
        *numbers, name = _STATE.unpack_from(self._memory, _VERSION.size)
        (after,) = _VERSION.unpack_from(self._memory, 0)
        if not before or before != after or before % 2:
            return None
        return State._make((*numbers, name.rstrip(b"\0").decode("utf-8", "ignore")))
