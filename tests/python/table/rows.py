"""The table's rows: what is right, which verdict says so, and what FOJ's own heartbeat says there."""

from dataclasses import dataclass

from judges import BY_MTIME, SOON
from scenes import POOLS, TRANSPORTS

RIGHT, TOO_SOON, NEVER, BOTH = "right", "calls it dead", "calls it alive", "first calls it dead, then alive"


@dataclass(frozen=True)
class Row:
    """One situation. `verdicts` are ours, one a phase; `foj` is what FOJ's heartbeat says, by pool where that differs."""

    key: str
    words: str
    right: str
    verdicts: tuple
    foj: dict | str
    pools: tuple = POOLS
    # FOJ's check is asked with the same limit as ours, or with its own default of 60 s.
    by_default: bool = False

    def says(self, pool, transport):
        if isinstance(self.foj, str):
            return self.foj
        return self.foj.get((pool, transport)) or self.foj[pool]

    @property
    def judge(self):
        return "foj_by_default" if self.by_default else "foj"


def bound(judge):
    """How soon a judge must have told that a worker is not alive."""
    return SOON if judge in ("ours", "foj_by_default") else BY_MTIME


ROWS = [
    Row("healthy", "nothing is wrong", "alive", ("alive",), RIGHT),
    Row(
        "long task",
        "a task of 3 minutes, no limit",
        "alive",
        ("alive",),
        {"solo": TOO_SOON},
        pools=("solo",),
    ),
    Row(
        "spinning",
        "every slot spins in a task, past its deadline",
        "alive until the deadline, then not",
        ("alive", "overdue"),
        {"prefork": NEVER, "solo": TOO_SOON, "threads": NEVER, "gevent": TOO_SOON},
    ),
    Row(
        "gil",
        "one task in a C call that holds the GIL, past its deadline",
        "alive until the deadline, then not",
        ("alive", "overdue"),
        {"prefork": NEVER, "solo": TOO_SOON, "threads": TOO_SOON, "gevent": TOO_SOON},
    ),
    Row(
        "child stopped",
        "the pool's child is stopped in a task",
        "not alive",
        ("alive", "overdue"),
        {"prefork": NEVER},
        pools=("prefork",),
    ),
    Row("main stopped", "the main process is stopped", "not alive", ("silent",), RIGHT),
    Row(
        "down",
        "the broker is down for 90 s, and back",
        "alive, not ready",
        ("cut off",),
        TOO_SOON,
    ),
    Row(
        "frozen",
        "the broker is frozen for 90 s, and goes on",
        "alive, not ready",
        ("cut off",),
        {pool: TOO_SOON for pool in POOLS} | {(pool, "rabbitmq"): RIGHT for pool in POOLS} | {("gevent", "redis"): RIGHT},
    ),
    Row(
        "draining",
        "SIGTERM in a long task",
        "alive until the drain's deadline, then not",
        ("draining", "drain overdue"),
        {"prefork": TOO_SOON, "solo": TOO_SOON, "threads": TOO_SOON, "gevent": NEVER},
    ),
    Row("clean stop", "a clean stop", "not alive, at once", ("missing",), NEVER, by_default=True),
    Row("killed", "`kill -9`", "not alive, at once", ("gone",), NEVER, by_default=True),
    Row(
        "hung at start",
        "started again, hung before its first tick",
        "not alive",
        ("gone",),
        NEVER,
        by_default=True,
    ),
    Row("two, the dead", "two on one host, FOJ's file for both: the dead one", "not alive", ("gone",), NEVER),
]

CELLS = [(row, pool, transport) for row in ROWS for transport in TRANSPORTS for pool in row.pools]


def opinion(cell, judge, tolerance=0):
    """What a judge says of a cell, from all that it said; who is not told to be exact may be wrong in a look or two."""
    wrong = {True: False, False: False}
    for phase in cell.phases:
        said = cell.answers(judge, phase, bound(judge))
        assert said, f"{judge} was never asked in {phase}"
        wrong[phase.alive] |= sum(answer != phase.alive for answer in said) > tolerance
    return {(False, False): RIGHT, (True, False): TOO_SOON, (False, True): NEVER, (True, True): BOTH}[wrong[True], wrong[False]]
