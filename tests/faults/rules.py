"""When who must have told what: derived from the settings below, never from what was seen. All in seconds.

A worker's last beat was made at most an interval before whatever keeps it from beating. What its own account tells, it tells
when a deadline passes; what its silence tells, comes when its promise ends. To that each place of its record adds its own.
"""

from dataclasses import dataclass

# How often a worker beats, how long its silence may last, and how long a turn of its loop may take.
INTERVAL = 0.5
PROMISE = 4.0
BUDGET = 1.5
# Of a task, a drain and a start.
DEADLINE = 2.0
# An agent's rounds.
ROUND = 0.5
# Between two looks of the judge, and how long it waits for a Redis.
LOOK = 0.05
PATIENCE = 1.0
# What a machine may take that is busy with other work: with it a wake-up of any of those who have a part in this comes late.
GRACE = 2.0

# Where a worker's beats go, and by which of them it is judged.
SINKS = {"file": ("file",), "key": ("key",), "both": ("file", "key"), "agent": ("agent",)}
VIEWS = ("file", "key", "both: file", "both: key", "agent")


def extra(view):
    """What the way from a beat to whoever looks takes."""
    return LOOK + GRACE + (ROUND if view == "agent" else 0.0)


@dataclass(frozen=True)
class Rule:
    """From `after` until `by` seconds after its moment a verdict may change; then it must have."""

    words: str
    after: float
    by: float

    def within(self, view):
        return self.by + extra(view)


# The process itself can be seen.
SEEN = Rule("at the next look", 0.0, 0.0)
# The worker says so itself, as soon as it is true.
SAID = Rule("at its moment", 0.0, 0.0)
NEXT_BEAT = Rule("with the next beat", 0.0, INTERVAL)
# From the last turn on; a runtime marks itself four times in its budget.
LOOP = Rule("loop budget", BUDGET * 3 / 4, BUDGET)
TASK = Rule("deadline", DEADLINE, DEADLINE)
SILENCE = Rule("promise", PROMISE - INTERVAL, PROMISE)
NEVER = Rule("never", 0.0, 0.0)
# A stat key that is not reached: told by the first beat after the promise.
UNREACHED = Rule("promise and a beat", PROMISE - INTERVAL - GRACE, PROMISE + INTERVAL)
UNANSWERED = Rule("the judge's own patience", 0.0, PATIENCE)
# heartbeat/README.md: back within two intervals, however long Redis was away.
BACK = Rule("two intervals", 0.0, 2 * INTERVAL + PATIENCE)
