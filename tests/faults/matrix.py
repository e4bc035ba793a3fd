"""Every fault: how it is made, in which drivers and with which sinks, and what must be told by when, place by place."""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import redis

import breaks
import harness
import limits
import rules
from judging import wait_until
from rules import BUDGET, DEADLINE, INTERVAL, LOOP, NEXT_BEAT, PROMISE, SAID, SEEN, SILENCE, TASK, VIEWS
from stage import STAYS, Faulty

RUST = ("thread", "tokio")
ALL = (*RUST, "run")
PYTHON = ("celery", "django-q")
LOOPS = (*RUST, *PYTHON)
EVERY = (*ALL, *PYTHON)
SINKS = tuple(rules.SINKS)
FILES = ("file", "both", "agent")


@dataclass(frozen=True)
class Step:
    """From its moment on these verdicts are due, place by place; one that is not named stays what it was."""

    verdicts: dict
    rules: dict
    # What may be seen for a while between two verdicts.
    passing: tuple = ()

    def rule(self, view):
        return self.rules[view]


def step(rule, everywhere=None, *, file=None, key=None, both=None, agent=None, but=(), passing=()):
    """`both` is the file of a worker that beats to both: what its key says is the same as without a file."""
    said = {"file": file, "key": key, "both: file": both or file, "both: key": key, "agent": agent}
    verdicts = {view: said[view] or everywhere for view in VIEWS if said[view] or everywhere}
    return Step(verdicts, {view: rule for view in VIEWS} | dict(but), passing)


@dataclass(frozen=True)
class Fault:
    key: str
    words: str
    play: object
    steps: tuple = ()
    drivers: tuple = ALL
    sinks: tuple = SINKS
    # The steps of a driver, where they are others.
    by: dict = field(default_factory=dict)
    # The sinks of a driver, where they are fewer.
    sinks_by: dict = field(default_factory=dict)
    # Why it is not played in the other drivers.
    not_in: dict = field(default_factory=dict)
    # What it takes: see `why_not`.
    needs: tuple = ()
    # What is told of the worker before, and throughout where there are no steps.
    first: str = "alive"
    reduced: bool = field(default=False, compare=False)

    def sinks_of(self, driver):
        return self.sinks_by.get(driver, self.sinks)


# Why a fault is not played in a driver.
ALIKE = dict.fromkeys(("run", *PYTHON), "of the record or of who judges: the same, whoever beats")
RECORD = dict.fromkeys(PYTHON, "of the record: the same, whoever beats")
NO_WRAPPER = dict.fromkeys(LOOPS, "nothing is wrapped around it")
NO_LOOP = {"run": "of its command it sees neither a loop nor a task"}
NO_START = {"run": "its command counts as begun when it runs"} | dict.fromkeys(PYTHON, "`tests/python` holds up its start: here nothing does")

# An agent carries the same file, whoever wrote it.
NO_AGENT = {"sinks_by": dict.fromkeys(PYTHON, ("file", "both"))}
KEYS_ALONE = {"sinks_by": dict.fromkeys(PYTHON, ("key", "both"))}

KEYS = ("key", "both: key")
# A clean end is told by who ends.
MISSING = step(SEEN, "missing")
# A worker that is no more: whoever sees its process tells at once, the others when its promise ends.
DEAD = step(SEEN, file="gone", key="silent", agent="gone", but={view: SILENCE for view in KEYS}, passing=("unknown",))
BACK = step(NEXT_BEAT, "alive")
# Where a record ends between two questions to Redis, for one look it cannot be told.
SILENT = step(SILENCE, "silent", passing=("unknown",))

FAULTS = []


def fault(words, *steps, reduced=False, **more):
    def add(play):
        key = play.__name__.replace("_", " ")
        FAULTS.append(Fault(key, words, play, steps, reduced=reduced, **more))
        return play

    return add


def why_not(fault):
    """Why this machine does not allow this fault; None where it does."""
    for need in fault.needs:
        reason = {"root": limits.not_root, "cpu": limits.no_cpu, "memory": limits.no_memory}[need]()
        if reason:
            return reason
    return None


def cells(reduced=False):
    """Fault by fault, in which drivers and with which sinks it is played."""
    for each in FAULTS:
        for driver, sink in ((driver, sink) for driver in each.drivers for sink in each.sinks_of(driver)):
            if not reduced or each.reduced and driver in ALL and sink in ("file", "both"):
                yield each, driver, sink


@fault("nothing is wrong, for two minutes", drivers=EVERY)
def healthy(scene):
    scene.start()
    scene.stays(120)
    scene.ask_others(0)


# --- the process ----------------------------------------------------------------------------------------------------


# `heartbeat run` sees its command's end, and cleans up.
@fault("`kill -9`", DEAD, by={"run": (MISSING,)}, drivers=EVERY, reduced=True)
def killed(scene):
    worker = scene.start()
    scene.now()
    os.kill(worker.subject, signal.SIGKILL)
    scene.mark()


# Its command works on, and nobody beats for it.
@fault("`kill -9` of `heartbeat run` itself", SILENT, drivers=("run",), not_in=NO_WRAPPER)
def wrapper_killed(scene):
    worker = scene.start()
    scene.now()
    os.kill(worker.pid, signal.SIGKILL)
    scene.mark()


@fault("SIGSTOP, then SIGCONT", SILENT, BACK, drivers=EVERY, reduced=True)
def stopped(scene):
    worker = scene.start()
    scene.now()
    os.kill(worker.subject, signal.SIGSTOP)
    scene.mark()
    scene.now()
    os.kill(worker.subject, signal.SIGCONT)
    scene.mark()


# --- its loop, its tasks, its begin and its end -----------------------------------------------------------------------


# A guard turns twice a second, and its budget is longer than that of the others.
GUARD = rules.Rule("loop budget and a guard cycle", 1.0, 2.5)
# A guard looks at its workers twice a second; Celery's loop learns of a task's end when it turns.
TURNED = rules.Rule("a look and a beat", 0.0, 1.5)


@fault(
    "the loop stands, then turns again",
    step(LOOP, "wedged"),
    BACK,
    drivers=LOOPS,
    not_in=NO_LOOP,
    by={"django-q": (step(GUARD, "wedged"), step(TURNED, "alive"))},
    reduced=True,
)
def wedged(scene):
    worker = scene.start()
    stands = BUDGET + (8 if scene.driver in RUST else 12)
    asked = scene.now()
    worker.stand(stands)
    scene.mark(asked)
    if scene.driver == "django-q":
        scene.now()
        worker.go_on()
        scene.mark()
    else:
        wait_until(asked + stands)
        scene.mark(asked + stands)


@fault(
    "a mutex is deadlocked",
    step(LOOP, "wedged"),
    drivers=(*RUST, "celery"),
    not_in=NO_LOOP | {"django-q": "its guard runs no code of the site's but its log, in which it stands above"},
    reduced=True,
)
def deadlocked(scene):
    worker = scene.start()
    scene.now()
    worker.deadlock()
    scene.mark()


@fault(
    "a tokio runtime is blocked, then free",
    step(LOOP, "wedged"),
    BACK,
    drivers=("tokio",),
    not_in=dict.fromkeys(EVERY, "it has none"),
    reduced=True,
)
def runtime_blocked(scene):
    worker = scene.start()
    stands = BUDGET + 8
    asked = scene.now()
    worker.say("block", round(stands * 1000))
    scene.mark(asked)
    wait_until(asked + stands)
    scene.mark(asked + stands)


# Celery needs a moment to end a task at its limit by itself; a guard looks twice a second.
LIMIT = rules.Rule("limit and 1.2 s", DEADLINE, DEADLINE + 1.2)
GUARDED = rules.Rule("deadline and two looks", DEADLINE - 0.5, DEADLINE + 1.0)


@fault(
    "a task past its deadline, then done",
    step(TASK, "overdue"),
    BACK,
    drivers=LOOPS,
    not_in=NO_LOOP,
    by={"celery": (step(LIMIT, "overdue"), step(TURNED, "alive")), "django-q": (step(GUARDED, "overdue"), step(TURNED, "alive"))},
    reduced=True,
)
def task_overdue(scene):
    worker = scene.start(task_deadline=DEADLINE)
    length = DEADLINE + (8 if scene.driver in RUST else 14)
    begun = worker.task(DEADLINE, length)
    scene.mark(begun)
    wait_until(begun + length)
    scene.mark(begun + length)


@fault("a long task, within its deadline", drivers=LOOPS, not_in=NO_LOOP, reduced=True)
def task_long(scene):
    worker = scene.start()
    worker.task(60, STAYS)
    scene.stays(STAYS + 1)


@fault("a drain that ends in time", step(SAID, "draining"), replace(MISSING, passing=("missing", "gone")), drivers=EVERY, reduced=True)
def drain_within(scene):
    worker = scene.start()
    if scene.driver in PYTHON:
        worker.task(60, 12)
    asked = scene.now()
    worker.drain(60)
    scene.mark(brief=scene.driver not in RUST)
    worker.finish()
    scene.mark(since=asked)


@fault(
    "a drain past its deadline",
    step(SAID, "draining"),
    step(TASK, "drain overdue"),
    drivers=EVERY,
    by={"run": (step(SAID, "draining"), step(TASK, "missing", passing=("drain overdue", "gone"))), "django-q": (step(SAID, "draining"), step(GUARDED, "drain overdue"))},
    reduced=True,
)
def drain_overdue(scene):
    worker = scene.start(drain_deadline=DEADLINE)
    if scene.driver in PYTHON:
        worker.task(60, 60)
    asked = scene.now()
    worker.drain(DEADLINE)
    scene.mark(asked, brief=True)
    scene.mark(asked)


@fault("a start that ends in time", step(NEXT_BEAT, "alive"), drivers=RUST, not_in=NO_START, reduced=True)
def start_within(scene):
    worker = scene.start(wait="starting", start_deadline=60)
    scene.now()
    worker.say("ready")
    scene.mark()


@fault(
    "a start past its deadline, then ready",
    step(SAID, "start overdue", passing=("start overdue",)),
    BACK,
    drivers=RUST,
    not_in=NO_START,
    reduced=True,
)
def start_overdue(scene):
    deadline = 12
    worker = scene.start(wait="starting", start_deadline=deadline)
    # It began to count at some moment between these two.
    launched, up = scene.launched
    scene.mark(up + deadline, since=launched + deadline)
    scene.now()
    worker.say("ready")
    scene.mark()


# --- its processor and its memory -------------------------------------------------------------------------------------


@fault("a fork bomb beside it, which leaves it less than 1 % of a core", drivers=EVERY, **NO_AGENT, needs=("cpu",))
def starved(scene):
    scene.start()
    with limits.Bombed(harness.session_members(scene.session)) as bombed:
        scene.stays(2 * STAYS)
        scene.facts["share"] = bombed.share()


@fault("a control group that has 1 % of a core", drivers=EVERY, **NO_AGENT, needs=("cpu",))
def cpu_limited(scene):
    scene.start()
    with limits.Cpu(harness.session_members(scene.session), percent=1):
        scene.stays(2 * STAYS)


@fault(
    "out of its control group's memory: killed by the kernel",
    replace(DEAD, passing=("gone", "silent", "unknown")),
    drivers=RUST,
    not_in={"run": "its command is killed, as by `kill -9`"} | dict.fromkeys(PYTHON, "a process of its pool is killed, and started anew: `tests/python`"),
    needs=("memory",),
)
def memory_limited(scene):
    worker = scene.start()
    with limits.Memory([worker.pid], 48 << 20) as memory:
        eats = time.monotonic()
        worker.say("eat")
        assert worker.exit_status(60) == 128 + signal.SIGKILL, worker.output
        scene.facts["killed"] = memory.kills()
        # It may be seen before it is told here; and before it is killed, it is as good as stopped.
        scene.mark(since=eats)
    assert scene.facts["killed"] >= 1, "it was the kernel"


# --- its file, and where that lies ------------------------------------------------------------------------------------


def on_a_disk_of_its_own(scene):
    """A small file system that this worker and its children see and nobody else; root's rights to write anywhere are gone."""
    here = scene.folder / "own"
    here.mkdir()
    mount = f'mount -t tmpfs -o size=64k,nr_inodes=16,mode=755 tmpfs "{here}" && exec "$@"'
    under = ["unshare", "--mount", "--propagation", "private", "sh", "-c", mount, "sh"]
    under += ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner"]
    scene.file = here / "beat"
    scene.start(under=under, file=lambda _: Path(f"/proc/{scene.session}/root{here}/beat"))
    return scene.file.parent


@fault("the disk is full", drivers=EVERY, sinks=FILES, **NO_AGENT, needs=("root",))
def disk_full(scene):
    folder = on_a_disk_of_its_own(scene)
    fill(folder, bytes(65536))
    scene.stays()


@fault("the disk has no inode left", drivers=EVERY, sinks=FILES, **NO_AGENT, reduced=True, needs=("root",))
def inodes_full(scene):
    folder = on_a_disk_of_its_own(scene)
    fill(folder, b"")
    scene.stays()


def fill(folder, content):
    for number in range(1000):
        try:
            (folder / f"full-{number}").write_bytes(content)
        except OSError:
            return
    raise AssertionError("the disk is not full")


@fault("the folder's permission is taken", drivers=EVERY, sinks=FILES, **NO_AGENT, needs=("root",))
def permission_taken(scene):
    folder = on_a_disk_of_its_own(scene)
    folder.chmod(0o555)
    scene.stays()


# A file that nobody can touch cannot tell; a key still does.
@fault(
    "the file system becomes read-only, then writable",
    step(SILENCE, file="silent", agent="silent"),
    step(NEXT_BEAT, file="alive", agent="alive"),
    drivers=EVERY,
    sinks=FILES,
    **NO_AGENT,
    needs=("root",),
)
def read_only(scene):
    on_a_disk_of_its_own(scene)
    scene.now()
    remount(scene, "ro")
    scene.mark()
    scene.now()
    remount(scene, "rw")
    scene.mark()


def remount(scene, how):
    own = scene.folder / "own"
    subprocess.run(["nsenter", "--target", str(scene.session), "--mount", "mount", "-o", f"remount,{how}", str(own)], check=True)


# The key goes on: a file that hangs keeps nobody else from being told.
@fault(
    "the file system hangs: no rename returns any more",
    step(SILENCE, file="silent", agent="silent", passing=("unknown",)),
    drivers=EVERY,
    sinks=FILES,
    **NO_AGENT,
    reduced=True,
)
def file_system_hangs(scene):
    # Of each thread all renames but the first, so many that it is watched by then.
    beats = 20
    held = f"renameat:delay_enter=600000000:when={beats + 1}+"
    traced = ["strace", "--follow-forks", "--quiet=all", "--output", "/dev/null", "--trace", "renameat", "--inject", held]
    scene.start(under=traced)
    harness.until(lambda: harness.record(scene.file)["seq"] >= beats, 40, "the last beat before it hangs")
    scene.mark(harness.record(scene.file)["at_mono_ms"] / 1000)


# Whatever stands in the way for a moment is replaced by the next beat.
REPLACED = {"drivers": EVERY, "sinks": FILES, **NO_AGENT}


@fault("the folder is replaced by an empty one", step(NEXT_BEAT, "alive", passing=("missing",)), **REPLACED)
def folder_replaced(scene):
    below = scene.folder / "below"
    below.mkdir()
    scene.file = below / "beat"
    scene.start()
    scene.now()
    below.rename(scene.folder / "away")
    below.mkdir()
    scene.mark()


@fault("the file is replaced by a link", step(NEXT_BEAT, "alive", passing=("unsafe",)), **REPLACED, reduced=True)
def file_a_link(scene):
    scene.start()
    (scene.folder / ".link").symlink_to("elsewhere")
    scene.now()
    (scene.folder / ".link").replace(scene.file)
    scene.mark()
    assert not (scene.folder / "elsewhere").exists(), "nothing is written where the link leads"


@fault("the file is replaced by a FIFO", step(NEXT_BEAT, "alive", passing=("unsafe",)), **REPLACED)
def file_a_fifo(scene):
    scene.start()
    os.mkfifo(scene.folder / ".fifo")
    scene.now()
    (scene.folder / ".fifo").replace(scene.file)
    scene.mark()


# An agent does not publish what is no record; the last one ages.
@fault("the file is replaced by a folder", step(SEEN, file="unsafe", agent="silent", but={"agent": SILENCE}), **REPLACED)
def file_a_folder(scene):
    scene.start()
    (scene.folder / ".folder").mkdir()
    scene.now()
    exchange(scene.folder / ".folder", scene.file)
    scene.mark()


def exchange(one, other):
    """Each in the other's place, at once."""
    at_cwd, rename_exchange = -100, 2
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(at_cwd, os.fsencode(one), at_cwd, os.fsencode(other), rename_exchange):
        raise OSError(ctypes.get_errno(), "renameat2")


@fault("the file is cut off in place", step(NEXT_BEAT, "alive", passing=("corrupt",)), **REPLACED)
def file_cut_off(scene):
    scene.start()
    scene.now()
    os.truncate(scene.file, 100)
    scene.mark()


@fault("a record that is cut off, at every length: never alive", sinks=("file",), not_in=RECORD, reduced=True)
def every_length(scene):
    scene.start()
    whole, cut = scene.file.read_bytes(), scene.folder / "cut"
    for length in range(len(whole) - 1):
        cut.write_bytes(whole[:length])
        cut.chmod(0o600)
        verdict = scene.judge.once(f"{scene.id}:once", cut)
        assert verdict == "corrupt", (length, verdict)
    scene.facts["lengths"] = len(whole) - 1
    scene.stays(0)


# --- its clock, its pid, its boot -------------------------------------------------------------------------------------


@fault("the wall clock jumps 1 h ahead, then 1 h back behind", drivers=EVERY, **NO_AGENT, reduced=True)
def clock_steps(scene):
    clock = scene.folder / ".clock"
    clock.write_text("+0\n")
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    only_the_wall = ["FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1", "DONT_FAKE_MONOTONIC=1"]
    faked = ["env", *only_the_wall, f"LD_PRELOAD={library}", f"FAKETIME_TIMESTAMP_FILE={clock}"]
    scene.start(under=faked, agent_under=faked)
    for seconds, hours in (("+3600", 1), ("-3600", -1)):
        new = scene.folder / ".new"
        new.write_text(seconds + "\n")
        new.replace(clock)
        if scene.sink in ("file", "both"):
            off = lambda hours=hours: abs(harness.record(scene.file)["at_unix_ms"] / 1000 - time.time() - hours * 3600) < 60
            harness.until(off, what=f"the worker's clock is {hours} h off")
        scene.stays()


@fault(
    "all that runs is stopped for two promises, as by a suspended machine, and goes on",
    step(NEXT_BEAT, "alive", passing=("silent", "unknown")),
    drivers=EVERY,
    **NO_AGENT,
)
def suspended(scene):
    """The clock goes on, as it does where a virtual machine is paused; a suspend, in which it stands still, is less than that."""
    scene.own_judge()
    if scene.to_redis:
        scene.own_redis()
    scene.start()
    others = (scene.agent, scene.judge, scene.server and scene.server.program)
    sessions = [scene.session, *(program.pid for program in others if program)]
    pids = [pid for session in sessions for pid in harness.session_members(session)]
    begun = time.monotonic()
    for pid in pids:
        # A script's own children come and go.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    time.sleep(2 * PROMISE)
    scene.now()
    for pid in reversed(pids):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    # What the judge asked of Redis before, it has waited for too long after.
    scene.mark(since=begun)


@fault("killed, and its pid given to another process", DEAD, drivers=RUST, not_in=ALIKE, needs=("root",))
def pid_reused(scene):
    worker = scene.start()
    pid = worker.pid
    os.kill(pid, signal.SIGKILL)
    killed = time.monotonic()
    worker.process.wait(10)
    for _ in range(500):
        Path("/proc/sys/kernel/ns_last_pid").write_text(str(pid - 1))
        other = subprocess.Popen(["sleep", "600"])
        scene.later(other.wait)
        scene.later(other.kill)
        if other.pid == pid:
            break
        other.kill()
        other.wait()
    assert other.pid == pid, "no other process got its pid"
    scene.mark(killed)


@fault("a record of another boot", step(SEEN, "gone"), drivers=RUST, not_in=ALIKE, sinks=("file", "agent"))
def boot_changed(scene):
    worker = scene.start()
    # Its process is there, so that it can be nothing else.
    os.kill(worker.pid, signal.SIGSTOP)
    record = harness.record(scene.file) | {"boot": "01234567-89ab-cdef-0123-456789abcdef"}
    draft = scene.folder / ".draft"
    draft.write_text(json.dumps(record) + "\n")
    draft.chmod(0o600)
    scene.now()
    draft.replace(scene.file)
    scene.mark()


@fault(
    "its container is killed, restarted on its old file, and hangs; then works",
    SILENT,
    step(NEXT_BEAT, "alive", passing=("missing",)),
    drivers=RUST,
    not_in=ALIKE,
    needs=("root",),
)
def container_restarted(scene):
    contained = ["unshare", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"]
    worker = scene.start(under=contained)
    killed = time.monotonic()
    harness.kill_session(worker.pid)
    scene.keep(harness.Program([*contained, "sleep", "600"]))
    scene.mark(killed)
    scene.now()
    again = scene.keep(Faulty(scene, harness.environment(**scene.variables), contained)).up()
    scene.mark()
    scene.worker = again


# --- who judges -------------------------------------------------------------------------------------------------------


@fault("the judge itself is stopped, again and again, for longer than the promise in all", drivers=RUST, not_in=ALIKE)
def judge_stopped(scene):
    scene.own_judge()
    scene.start()
    end = time.monotonic() + 2 * STAYS
    while time.monotonic() < end:
        scene.judge.signal(signal.SIGSTOP)
        time.sleep(0.4)
        scene.judge.signal(signal.SIGCONT)
        time.sleep(0.05)
    scene.stays(1)


@fault("the judge itself is starved, to 1 % of a core", DEAD, drivers=RUST, not_in=ALIKE, needs=("cpu",))
def judge_starved(scene):
    scene.own_judge()
    worker = scene.start()
    with limits.Cpu(harness.session_members(scene.judge.pid), percent=1):
        time.sleep(STAYS)
        scene.now()
        os.kill(worker.pid, signal.SIGKILL)
        scene.mark()


# --- Redis, and the way to it -----------------------------------------------------------------------------------------

REDIS = ("key", "both", "agent")
UNREACHED, UNANSWERED, RETURNED = rules.UNREACHED, rules.UNANSWERED, rules.BACK
# A worker that beats to both tells in its file that it is cut off; who asks Redis is told nothing.
HIDDEN = step(UNANSWERED, key="unknown", agent="unknown")
CUT_OFF = step(UNREACHED, both="cut off")
BACK_AGAIN = step(RETURNED, "alive", passing=("missing", "silent", "unknown", "cut off"))


def broken(scene, outage):
    """Redis as `tests/outages` breaks it, and mends it."""
    scene.own_redis()
    outage.prepare(scene)
    if scene.proxy:
        scene.later(scene.proxy.end)
    scene.judges_url = scene.url
    scene.url = outage.url(scene, "publisher").replace("localhost", "127.0.0.1")
    scene.start()
    begun = time.monotonic()
    outage.begin(scene)
    return begun


def outage(kind, words, *steps, **more):
    def play(scene):
        breaks = kind()
        begun = broken(scene, breaks)
        for _ in scene.steps[:-1]:
            scene.mark(begun)
        if len(scene.steps) == 1:
            scene.stays()
        scene.now()
        breaks.end(scene)
        scene.mark()

    play.__name__ = f"redis_{kind.name.replace('-', '_')}"
    fault(words, *steps, sinks=REDIS, **more)(play)


outage(breaks.Killed, "Redis is down, then back with nothing in it", HIDDEN, CUT_OFF, BACK_AGAIN, drivers=EVERY)
outage(breaks.Frozen, "Redis is frozen, then goes on", HIDDEN, CUT_OFF, BACK_AGAIN, drivers=EVERY)
# The beats arrive, and only the worker does not know it: its own word is that it is cut off.
outage(
    breaks.Slow,
    "Redis answers a worker after 3.5 s, then at once",
    step(UNREACHED, both="cut off", key="cut off"),
    BACK_AGAIN,
    drivers=EVERY,
    **KEYS_ALONE,
)
outage(
    breaks.FullEvicting,
    "Redis is full and evicts every beat, then has room",
    step(SEEN, key="missing", agent="missing", but={view: NEXT_BEAT for view in VIEWS}, passing=("unknown",)),
    CUT_OFF,
    BACK_AGAIN,
    drivers=EVERY,
    **KEYS_ALONE,
)
outage(
    breaks.Full,
    "Redis is full and refuses beats, then has room",
    step(SILENCE, key="silent", agent="silent", passing=("unknown",)),
    CUT_OFF,
    BACK_AGAIN,
    drivers=EVERY,
    **KEYS_ALONE,
)
outage(
    breaks.Denying,
    "Redis denies what the worker may, then allows it",
    SILENT_THERE := step(SILENCE, key="silent", agent="silent", passing=("unknown",)),
    CUT_OFF,
    BACK_AGAIN,
    drivers=EVERY,
    **KEYS_ALONE,
)


@fault("Redis is emptied", step(RETURNED, "alive", passing=("missing", "unknown")), drivers=EVERY, sinks=REDIS, **KEYS_ALONE)
def redis_emptied(scene):
    scene.own_redis()
    scene.start()
    scene.now()
    scene.server.ask("FLUSHALL")
    scene.mark()


# Sentinel's own time is not the worker's: counted from the moment at which it names the new master.
@fault(
    "Redis fails over to its replica",
    step(RETURNED, "alive", passing=("missing", "silent", "unknown", "cut off")),
    drivers=EVERY,
    sinks=REDIS,
    sinks_by=dict.fromkeys(("tokio", "run", *PYTHON), ("both",)),
)
def redis_fails_over(scene):
    scene.own_redis()
    (scene.folder / "replica").mkdir()
    replica = scene.keep(harness.start_redis(scene.folder / "replica", "--replicaof", "127.0.0.1", str(scene.server.port)))
    linked = lambda: scene.server.client.info("replication").get("connected_slaves") == 1
    harness.until(linked, 30, "the replica follows")
    watched = type("Watched", (), {"port": scene.server.port})
    sentinel = scene.keep(harness.Sentinel(scene.folder, watched, "shop"))
    harness.until(sentinel.answers, what="the sentinel answers")
    client = redis.Redis(port=sentinel.port, socket_timeout=5, decode_responses=True)
    client.execute_command("SENTINEL", "SET", "shop", "down-after-milliseconds", "500")
    harness.until(lambda: client.sentinel_slaves("shop"), 30, "the sentinel knows the replica")
    scene.url = f"redis+sentinel://127.0.0.1:{sentinel.port}/shop"
    # Longer than what Sentinel takes, as heartbeat/README.md asks for.
    scene.start(promise=30)
    killed = time.monotonic()
    scene.server.kill()
    named = lambda: client.sentinel_get_master_addr_by_name("shop")[1] == replica.port
    harness.until(named, 60, "the sentinel names the replica")
    scene.mark(since=killed)


def on_a_host_of_its_own(scene, promise=PROMISE):
    """The worker, and its agent, in a network namespace with one wire to Redis; the judge asks Redis on the other side."""
    host, network = scene.stage.host()
    scene.later(scene.stage.give_back, host)
    scene.url = host.url
    scene.judges_url = network.address
    scene.broker_nearby = True
    scene.start(under=host.command(), agent_under=host.command(), promise=promise)

    def filter(*rules):
        """All at once."""
        nft = ["ip", "netns", "exec", host.namespace, "nft", "--file", "-"]
        subprocess.run(nft, input="\n".join(rules) + "\n", text=True, check=True, capture_output=True, timeout=60)

    scene.later(subprocess.run, ["ip", "netns", "exec", host.namespace, "nft", "flush", "ruleset"])
    return filter


def chains(verdict):
    """What is in the way of all packets, both ways."""
    yield "add table inet cut"
    for hook in ("input", "output"):
        yield f"add chain inet cut {hook} {{ type filter hook {hook} priority 0; }}"
        yield f"add rule inet cut {hook} {verdict}"


NETWORK_CUT = (SILENT_THERE, CUT_OFF, BACK_AGAIN)


@fault("the network swallows every packet, then passes them", *NETWORK_CUT, drivers=EVERY, sinks=REDIS, **KEYS_ALONE, needs=("root",))
def network_drops(scene):
    cut(scene, "drop")


@fault("the network rejects every packet, then passes them", *NETWORK_CUT, drivers=EVERY, sinks=REDIS, **KEYS_ALONE, needs=("root",))
def network_rejects(scene):
    cut(scene, "meta l4proto tcp reject with tcp reset")


def cut(scene, verdict):
    filter = on_a_host_of_its_own(scene)
    begun = time.monotonic()
    filter(*chains(verdict))
    scene.mark(begun)
    scene.mark(begun)
    scene.now()
    filter("delete table inet cut")
    scene.mark()


@fault("the network loses 3 packets in 10", drivers=EVERY, sinks=REDIS, **KEYS_ALONE, needs=("root",))
def network_loses(scene):
    filter = on_a_host_of_its_own(scene, promise=10.0)
    # A third of both ways together.
    filter(*chains("numgen random mod 100 < 30 drop"))
    scene.stays(15)
