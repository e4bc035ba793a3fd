"""The table's rows: what is right, which verdict says so, and what FOJ's own heartbeat says there."""

from dataclasses import dataclass

from judges import BY_MTIME, SOON
from scenes import POOLS, TRANSPORTS

RIGHT, TOO_SOON, NEVER, BOTH = "right", "calls it dead", "calls it alive", "calls it dead, then alive"
# Celery orders the steps of a worker anew in each process, and so FOJ's may be stopped before the pool or after it.
BY_CHANCE = "as chance has it"


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

    def says(self, pool):
        return self.foj if isinstance(self.foj, str) else self.foj[pool]

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
        {"prefork": TOO_SOON, "solo": TOO_SOON, "threads": TOO_SOON, "gevent": RIGHT},
    ),
    Row(
        "draining",
        "SIGTERM in a long task",
        "alive until the drain's deadline, then not",
        ("draining", "drain overdue"),
        {"prefork": BY_CHANCE, "solo": TOO_SOON, "threads": TOO_SOON, "gevent": NEVER},
    ),
    Row("clean stop", "a clean stop", "not alive, at once", ("missing",), NEVER, by_default=True),
    Row("killed", "`kill -9`", "not alive, at once", ("gone",), NEVER, by_default=True),
    Row(
        "hung at start",
        "started again, hung before its first tick",
        "alive until the start's deadline, then not",
        ("starting", "start overdue"),
        NEVER,
        by_default=True,
    ),
    Row("two, the dead", "two on one host, FOJ's file for both: the dead one", "not alive", ("gone",), NEVER),
    Row(
        "one path",
        "two on one host with one path, the first killed",
        "not alive, until the second has the file",
        ("gone", "alive"),
        NEVER,
    ),
]

CELLS = [(row, pool, transport) for row in ROWS for transport in TRANSPORTS for pool in row.pools]


def opinion(cell, judge, exactly=True):
    """What a judge says of a cell, from all that it said. Ours may not be wrong once; of another it is told what it says mostly."""
    wrong = {True: False, False: False}
    for phase in cell.phases:
        said = cell.answers(judge, phase, bound(judge))
        assert said, f"{judge} was never asked in {phase}"
        failed = sum(answer != phase.alive for answer in said)
        wrong[phase.alive] |= failed > 0 if exactly else failed > 1 if phase.alive else failed > len(said) / 2
    return {(False, False): RIGHT, (True, False): TOO_SOON, (False, True): NEVER, (True, True): BOTH}[wrong[True], wrong[False]]


# --- where the file cannot be written -----------------------------------------------------------------------------

WORKS, LOSES = "works on", "loses its broker, again and again"

# What is done to the file while the worker runs, in whose words, and what ours says of it meanwhile.
FAILURES = {
    "EACCES": ("the folder is forbidden (EACCES)", "alive"),
    "EROFS": ("the file system is read-only (EROFS)", "silent"),
    "ENOSPC": ("neither space nor inodes are left (ENOSPC)", "alive"),
    "dangling link": ("a dangling link is in the file's place", "alive"),
    "directory": ("a folder is in the file's place", "unsafe"),
}
UNWRITABLE = [(failure, pool, transport) for failure in FAILURES for transport in TRANSPORTS for pool in POOLS]


def foj_works(failure, pool):
    """An error of the file's is taken for one of the connection's, but where the timer has a greenlet of its own."""
    return WORKS if pool == "gevent" or failure in ("dangling link", "directory") else LOSES


def works(cell):
    return LOSES if cell.facts["lost"] > 1 else WORKS if cell.facts["works"] else "stops"


# --- as a page shows it -------------------------------------------------------------------------------------------


def markdown(stage):
    """The table as it was measured. What is the same with both brokers is told once."""
    lines = ["| | right | heartbeat | FOJ: prefork | solo | threads | gevent |", "|---|---|---|---|---|---|---|"]
    for row in ROWS:
        cells = {pool: {t: stage.cells[row.key, pool, t] for t in TRANSPORTS} for pool in row.pools}
        ours = {our_words(row, cell) for both in cells.values() for cell in both.values()}
        theirs = [their_words(row, pool, cells[pool]) if pool in cells else "–" for pool in POOLS]
        lines.append("| " + " | ".join([row.words, row.right, "; ".join(sorted(ours)), *theirs]) + " |")
    for failure, (words, _) in FAILURES.items():
        ours = {f"{works(cell)}; {cell.facts['verdict']}" for cell in across(stage, f"{failure} ours")}
        theirs = [merged({t: works(stage.cells[f"{failure} foj", pool, t]) for t in TRANSPORTS}) for pool in POOLS]
        lines.append("| " + " | ".join([words, WORKS, "; ".join(sorted(ours)), *theirs]) + " |")
    for kind, (foj, ours) in stage.odd.items():
        theirs = "alive" if foj else "dead"
        lines.append(f"| no worker at all: {kind} | not alive | {ours.name} |" + f" calls it {theirs} |" * len(POOLS))
    return "\n".join(lines) + "\n"


def across(stage, key):
    return [stage.cells[key, pool, transport] for pool in POOLS for transport in TRANSPORTS]


def our_words(row, cell):
    if opinion(cell, "ours") != RIGHT:
        return opinion(cell, "ours")
    if "verdict" in cell.facts:
        return cell.facts["verdict"]
    return ", then ".join([look.verdict for look in cell.looks if look.verdict and look.ended <= phase.until][-1] for phase in cell.phases)


def their_words(row, pool, by_transport):
    words = {t: BY_CHANCE if row.says(pool) == BY_CHANCE else opinion(cell, row.judge, exactly=False) for t, cell in by_transport.items()}
    return merged(words)


def merged(words):
    if len(set(words.values())) == 1:
        return words["redis"]
    return f"Redis: {words['redis']}; RabbitMQ: {words['rabbitmq']}"


def times(stage):
    """How long after the moment of truth ours said so: the longest of all pools and brokers, for whoever reads the test's output."""
    lines = []
    for row in ROWS:
        told = [stage.cells[row.key, pool, t].told_after("ours") for pool in row.pools for t in TRANSPORTS]
        if told := [seconds for seconds in told if seconds is not None]:
            lines.append(f"{row.words}: told after {max(told):.1f} s at most, {min(told):.1f} s at least")
    return "\n".join(lines) + f"\nall of it took {stage.took:.0f} s\n"


# --- Celery's own ping --------------------------------------------------------------------------------------------

# Whether the worker answered, while it was alive and while it was not: the loop of prefork turns whatever the children do.
PINGS = {
    "ping while alive": {
        ("spinning", "prefork"): True,
        ("spinning", "solo"): False,
        ("spinning", "threads"): True,
        ("spinning", "gevent"): False,
        ("gil", "prefork"): True,
        ("gil", "solo"): False,
        ("gil", "threads"): False,
        ("gil", "gevent"): False,
    },
    "ping while dead": {
        ("spinning", "prefork"): True,
        ("spinning", "threads"): True,
        ("gil", "prefork"): True,
        ("child stopped", "prefork"): True,
    },
}
