"""What is done to the workers, and when: every scene has workers of its own and all scenes run at once, for they mostly wait.

A scene knows when a fault began and what the right answer is from then on. What the judges said is compared in the tests.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from celery import Celery

import harness
from harness import Program, until
from judges import BY_MTIME, FOJ_DEFAULT, LIMIT, SOON, Watch, foj_passes, known_verdict

POOLS = ("prefork", "solo", "threads", "gevent")
TRANSPORTS = ("redis", "rabbitmq")

# All in seconds. Time for several looks, on a busy machine too.
ENOUGH = 5
# A fault goes on for so long after its deadline that whoever judges by mtime must have told it too.
DEADLINE = 8
FAULT = DEADLINE + BY_MTIME + ENOUGH
HEALTHY = 3
# For how long a worker may start, and a task wait until it begins: not judged, so there is no hurry.
START = 120
BEGIN = 60
# Within which a worker that has its broker begins a task; one that has not is waited for in vain.
SOON_ENOUGH = 15
# A worker may start for so long where it does not come to its loop.
START_DEADLINE = 5
# Celery's own default is 1 s, which a busy machine may need.
PING = 3
DRAIN = 9
OUTAGE = 90
# A process that holds a task may be stopped for so long.
GRACE = 5
STOPPED_CHILD = GRACE + BY_MTIME + ENOUGH
# The promise of a worker that waits for another's file, and tries once in that time: long, for it is meant to wait while the other is
# looked at after its death.
WAITING = 60
LONG_TASK = 180

SETTINGS = {
    "heartbeat_promise": LIMIT,
    "heartbeat_drain_deadline": DRAIN,
}

HERE = Path(__file__).parent
PACKAGE = harness.REPOSITORY / "heartbeat" / "python"


@dataclass(frozen=True)
class Phase:
    """From `since` to `until` the right answer is that the worker is alive, or that it is not."""

    alive: bool
    since: float
    until: float


@dataclass
class Cell:
    """One situation in one pool with one broker: the phases, and what the judges said."""

    looks: list
    phases: list = field(default_factory=list)
    facts: dict = field(default_factory=dict)

    def alive(self, since, until):
        self.phases.append(Phase(True, since, until))

    def dead(self, since, until):
        self.phases.append(Phase(False, since, until))

    def answers(self, judge, phase, bound):
        """What `judge` said in a phase, look by look; of one in which it should tell, what it said once `bound` was over."""
        within = self.within(phase, bound)
        return [answer for look in within if (answer := getattr(look, judge)) is not None]

    def within(self, phase, bound):
        since = phase.since if phase.alive else phase.since + bound
        return [look for look in list(self.looks) if since <= look.began and look.ended <= phase.until]

    def told_after(self, judge):
        """How long after the moment of truth `judge` first said so, in seconds; None where it did not."""
        for phase in self.phases:
            if not phase.alive:
                for look in list(self.looks):
                    if look.began >= phase.since and look.ended <= phase.until and getattr(look, judge) is False:
                        return look.ended - phase.since
        return None


class Worker(Program):
    """A Celery worker of one slot, with our heartbeat, FOJ's, or both, and a queue of its own."""

    def __init__(self, stage, pool, broker_url, *, ours=None, foj=None, settings=(), under=(), hang=False, period=1.0, watch=True):
        self.stage, self.pool = stage, pool
        self.our_file, self.foj_file = ours, foj
        self.queue = f"q-{uuid.uuid4().hex[:12]}"
        self.name = f"{self.queue}@table"
        env = {"BROKER_URL": broker_url, "QUEUE": self.queue, "PYTHONUNBUFFERED": 1, "PYTHONDONTWRITEBYTECODE": 1}
        if foj:
            env["FOJ_FILE"] = foj
        if ours and stage.ours:
            env["OUR_SETTINGS"] = json.dumps(SETTINGS | {"heartbeat_file": str(ours)} | dict(settings))
        if hang:
            env["HANG"] = 1
        command = [sys.executable, "-m", "celery", "-A", "table_app", "worker", "--loglevel", "INFO"]
        command += ["--pool", pool, "--concurrency", "1", "--hostname", self.name]
        super().__init__([*under, *command], env=harness.environment(**env), cwd=HERE)
        self.client = Celery("tests", broker=broker_url)
        self.client.conf.task_default_queue = self.queue
        self._watch, self._period, self._watching = None, period, watch

    def up(self):
        """Waits for Celery's own word that it is ready; from here on it is watched."""
        self.says(" ready.", timeout=START)
        if self._watching:
            self.watch(self.our_file, self.foj_file)
        return self

    def watch(self, our_file, foj_file):
        self._watch = Watch(our_file if self.stage.ours else None, foj_file, self._period, self.stage.failures)
        until(lambda: self.looks, timeout=BEGIN, what=f"{self.pool} is looked at")

    @property
    def looks(self):
        return self._watch.looks

    @property
    def last_verdict(self):
        return next((look.verdict for look in reversed(self.looks) if look.verdict), None)

    def send(self, task, seconds, **limits):
        mark = self.stage.folder / f"mark-{uuid.uuid4().hex[:12]}"
        self.client.send_task(task, args=[str(mark), seconds], **limits)
        return mark

    def began(self, mark, timeout=BEGIN):
        """When the task began to run, and in which process."""
        until(mark.exists, timeout=timeout, what=f"the task runs in {self.pool}")
        moment, pid = mark.read_text().split()
        return float(moment), int(pid)

    def runs_a_task(self, timeout):
        """Whether a task sent now begins within so many seconds."""
        mark = self.send("nap", 0)
        with contextlib.suppress(AssertionError):
            self.began(mark, timeout)
            return True
        return False

    def lost_its_broker(self):
        """How often Celery gave up its connection, by its own words."""
        return self.output.count("Connection to broker lost")

    def answers_ping(self):
        return bool(self.client.control.ping(destination=[self.name], timeout=PING))

    def alive_again(self, timeout=BEGIN, foj=True):
        """Waits until all are content with the worker as before, FOJ included where that is to be so."""

        def content():
            look = self.looks[-1]
            return look.ours is not False and (look.foj is not False or not foj) and look.foj_on_ours is not False

        begin = time.monotonic()
        until(lambda: self.looks[-1].began > begin and content(), timeout, f"{self.pool} is alive again: {self.looks[-1:]}")
        return time.monotonic() - begin

    def end(self):
        if self._watch:
            self._watch.end()
        super().end()


def wait_until(moment):
    time.sleep(max(0.0, moment - time.monotonic()))


class Stage:
    """What the scenes share: brokers, the cells that they fill, and how many workers may start at once."""

    def __init__(self, folder, ours=True, starting=4):
        self.folder, self.ours = folder, ours
        self.cells, self.failures, self.odd, self.took = {}, {}, {}, None
        self._starting = threading.Semaphore(starting)
        self._ended = threading.Event()
        self._programs, self._lock = [], threading.Lock()

    def start(self, kind, *arguments, **keywords):
        program = kind(*arguments, **keywords)
        with self._lock:
            self._programs.append(program)
        return program

    def place(self, name):
        place = self.folder / f"{name}-{uuid.uuid4().hex[:8]}"
        place.mkdir()
        return place

    def worker(self, pool, url, *, place=None, **keywords):
        place = place or self.place(pool)
        keywords.setdefault("ours", place / "ours")
        keywords.setdefault("foj", place / "foj")
        with self._starting:
            worker = self.start(Worker, self, pool, url, **keywords)
            try:
                return worker.up()
            except AssertionError:
                # A machine that is busy with something else may need more than that once, and hardly twice.
                self.end([worker])
                return self.start(Worker, self, pool, url, **keywords).up()

    def cell(self, row, pool, transport, worker):
        cell = self.cells[row, pool, transport] = Cell(worker.looks if isinstance(worker, Worker) else worker)
        return cell

    def end(self, programs=None):
        with self._lock:
            ending = list(self._programs) if programs is None else programs
            self._programs = [program for program in self._programs if program not in ending]
        for program in reversed(ending):
            with contextlib.suppress(AssertionError):
                program.end()

    def play(self, name, scene, arguments=()):
        """Runs one scene; what went wrong is kept by its name."""
        try:
            scene(self, *arguments)
        except BaseException:
            self.failures[name] = traceback.format_exc()

    def run(self, scenes):
        """Runs `(name, function, arguments)` all at once."""
        threads = [threading.Thread(target=self.play, args=scene, daemon=True) for scene in scenes]
        for thread in threads:
            thread.start()
            # The order of the list is the order in which they start their workers.
            time.sleep(0.01)
        for thread in threads:
            thread.join()


# --- the scenes ---------------------------------------------------------------------------------------------------


def faults(stage, pool, transport, url):
    """One worker, broken and mended again and again, and killed in the end."""
    worker = stage.worker(pool, url())
    time.sleep(HEALTHY)
    healthy = stage.cell("healthy", pool, transport, worker)
    healthy.alive(worker.looks[0].began, time.monotonic())

    for row, task in (("spinning", "spin"), ("gil", "hold_gil")):
        began, _ = worker.began(worker.send(task, FAULT, soft_time_limit=DEADLINE))
        cell = stage.cell(row, pool, transport, worker)
        cell.alive(began, began + DEADLINE - 0.3)
        cell.dead(began + DEADLINE, began + FAULT - 0.3)
        wait_until(began + DEADLINE - PING - 2)
        cell.facts["ping while alive"] = worker.answers_ping()
        wait_until(began + FAULT - PING - 2)
        cell.facts["ping while dead"] = worker.answers_ping()
        wait_until(began + FAULT)
        cell.facts["alive again"] = worker.alive_again()

    if pool == "prefork":
        a_stopped_child(stage, transport, worker)

    os.kill(worker.pid, signal.SIGSTOP)
    stopped = time.monotonic()
    cell = stage.cell("main stopped", pool, transport, worker)
    cell.dead(stopped + LIMIT, stopped + LIMIT + BY_MTIME + ENOUGH)
    wait_until(stopped + LIMIT + BY_MTIME + ENOUGH + 0.2)
    os.kill(worker.pid, signal.SIGCONT)
    cell.facts["alive again"] = worker.alive_again()

    os.kill(worker.pid, signal.SIGKILL)
    killed = time.monotonic()
    cell = stage.cell("killed", pool, transport, worker)
    cell.dead(killed, killed + BY_MTIME + 3)
    # Soon enough for FOJ's file not to be older than its default.
    wait_until(killed + BY_MTIME + 3.2)
    hung_at_start(stage, pool, transport, url, worker)
    stage.end([worker])


def a_stopped_child(stage, transport, worker):
    """The process that runs a task is stopped, long before the task's deadline."""
    began, child = worker.began(worker.send("nap", STOPPED_CHILD + 3, soft_time_limit=120))
    time.sleep(2.5)
    os.kill(child, signal.SIGSTOP)
    stopped = time.monotonic()
    cell = stage.cell("child stopped", "prefork", transport, worker)
    cell.alive(began, stopped)
    cell.dead(stopped + GRACE, stopped + STOPPED_CHILD)
    wait_until(stopped + 6)
    cell.facts["ping while dead"] = worker.answers_ping()
    wait_until(stopped + STOPPED_CHILD)
    os.kill(child, signal.SIGCONT)
    cell.facts["alive again"] = worker.alive_again()


def hung_at_start(stage, pool, transport, url, dead):
    """A worker that never comes to its first tick, with the files of the one before still there."""
    keywords = {"ours": dead.our_file, "foj": dead.foj_file, "settings": {"heartbeat_start_deadline": START_DEADLINE}}
    hung = stage.start(Worker, stage, pool, url(), hang=True, watch=False, **keywords)
    hung.says("hanging", timeout=START)
    hangs = time.monotonic()
    cell = stage.cell("hung at start", pool, transport, dead)
    due = hangs + START_DEADLINE
    if stage.ours:
        # A start has no deadline while the worker connects.
        due = until(lambda: deadline_of_start(hung), what="the new worker's own record, with a deadline") / 1000
    cell.alive(hangs, due - 0.3)
    cell.dead(due, due + BY_MTIME + ENOUGH)
    wait_until(due + BY_MTIME + ENOUGH + 0.2)
    stage.end([hung])


def deadline_of_start(worker):
    record = harness.record(worker.our_file)
    return record["pid"] == worker.pid and record.get("until_mono_ms")


def draining(stage, pool, transport, url):
    """A warm shutdown with a task that takes longer than the drain may."""
    worker = stage.worker(pool, url())
    time.sleep(HEALTHY)
    length = 1 + DRAIN + BY_MTIME + ENOUGH
    began, _ = worker.began(worker.send("nap", length))
    wait_until(began + 1)
    os.kill(worker.pid, signal.SIGTERM)
    term = time.monotonic()
    cell = stage.cell("draining", pool, transport, worker)
    cell.alive(began, term + DRAIN - 0.3)
    cell.dead(term + DRAIN, began + length - 0.3)
    wait_until(term + DRAIN - 3)
    if stage.ours:
        cell.facts["ready"] = harness.verdict(worker.our_file, "--for", "ready").passes
    cell.facts["exit"] = worker.exit_status(timeout=length + 20)
    ended = time.monotonic()
    stopped = stage.cell("clean stop", pool, transport, worker)
    stopped.dead(ended, ended + BY_MTIME + ENOUGH)
    wait_until(ended + BY_MTIME + ENOUGH + 0.2)
    stage.end([worker])


def outage(stage, transport, row, url, break_it, mend_it):
    """Four workers, one of each pool, with a broker that goes and comes back."""
    url, workers = url(), {}

    def start(pool):
        workers[pool] = stage.worker(pool, url, period=1.5)

    starting = [threading.Thread(target=start, args=(pool,)) for pool in POOLS]
    for thread in starting:
        thread.start()
    for thread in starting:
        thread.join()
    assert len(workers) == len(POOLS), "all of them started"
    time.sleep(HEALTHY)
    begin = time.monotonic()
    break_it()
    cells = {pool: stage.cell(row, pool, transport, worker) for pool, worker in workers.items()}
    if stage.ours:
        wait_until(begin + OUTAGE - 5)
        for pool, worker in workers.items():
            cells[pool].facts["ready"] = harness.verdict(worker.our_file, "--for", "ready").passes
    for pool, worker in workers.items():
        cells[pool].facts["verdict"] = worker.last_verdict
    wait_until(begin + OUTAGE)
    mend_it()
    back = time.monotonic()

    def comes_back(pool):
        worker, cell = workers[pool], cells[pool]
        cell.facts["works again"] = worker.runs_a_task(BEGIN) and time.monotonic() - back
        worker.alive_again()
        if stage.ours:
            until(lambda: harness.verdict(worker.our_file, "--for", "ready").passes, timeout=BEGIN, what="ready again")
        cell.facts["ready again"] = time.monotonic() - back
        cell.alive(worker.looks[0].began, time.monotonic())

    coming = [threading.Thread(target=comes_back, args=(pool,)) for pool in POOLS]
    for thread in coming:
        thread.start()
    for thread in coming:
        thread.join()
    stage.end(list(workers.values()))


def unwritable(stage, pool, transport, url, whose):
    """A folder that only this worker sees takes nothing any more, in three ways; and there are things in the file's place."""
    place = stage.place(pool)
    here = place / "own"
    here.mkdir()
    mount = f'mount -t tmpfs -o size=64k,nr_inodes=16,mode=755 tmpfs "{here}" && exec "$@"'
    under = ["unshare", "--mount", "--propagation", "private", "sh", "-c", mount, "sh"]
    # Root may write anywhere, but for this.
    under += ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner"]
    files = {"ours": here / "beat" if whose == "ours" else None, "foj": here / "beat" if whose == "foj" else None}
    worker = stage.worker(pool, url(), under=under, watch=False, **files)
    seen = Path(f"/proc/{worker.pid}/root{here}")
    beat = seen / "beat"
    worker.watch(beat if whose == "ours" else None, beat if whose == "foj" else None)
    assert worker.runs_a_task(BEGIN)

    for row, break_it, mend_it in (("EACCES", forbid, permit), ("EROFS", read_only, read_write), ("ENOSPC", fill, clear)):
        lost = worker.lost_its_broker()
        break_it(worker.pid, seen)
        begin = time.monotonic()
        cell = stage.cell(f"{row} {whose}", pool, transport, worker)
        # Long enough for the next beats to fail.
        time.sleep(2.5)
        cell.facts["works"] = worker.runs_a_task(SOON_ENOUGH)
        wait_until(begin + LIMIT + SOON + 2)
        cell.facts["lost"] = worker.lost_its_broker() - lost
        cell.facts["verdict"] = worker.last_verdict
        cell.alive(begin, time.monotonic())
        mend_it(worker.pid, seen)
        cell.facts["works after"] = worker.runs_a_task(BEGIN)
        if whose == "ours":
            cell.facts["alive after"] = worker.alive_again()

    # At once, for a beat may come between any two steps.
    (seen / "link").symlink_to("elsewhere")
    (seen / "link").replace(beat)
    cell = stage.cell(f"dangling link {whose}", pool, transport, worker)
    lost = worker.lost_its_broker()
    time.sleep(2.5)
    cell.facts["works"] = worker.runs_a_task(SOON_ENOUGH)
    cell.facts["lost"], cell.facts["verdict"] = worker.lost_its_broker() - lost, worker.last_verdict
    cell.facts["created"] = (seen / "elsewhere").exists()

    until(lambda: put_a_folder_at(beat), what="a folder is in the file's place")
    cell = stage.cell(f"directory {whose}", pool, transport, worker)
    lost = worker.lost_its_broker()
    begin = time.monotonic()
    time.sleep(2.5)
    cell.facts["works"] = worker.runs_a_task(SOON_ENOUGH)
    wait_until(begin + SOON + ENOUGH)
    cell.facts["lost"], cell.facts["verdict"] = worker.lost_its_broker() - lost, worker.last_verdict
    cell.dead(begin, time.monotonic())
    stage.end([worker])


def put_a_folder_at(path):
    """Whether that was quicker than the next beat."""
    path.unlink(missing_ok=True)
    with contextlib.suppress(FileExistsError):
        path.mkdir()
    return path.is_dir()


def bare(file):
    """Whether it is FOJ's: touched, and empty."""
    return file.stat().st_size == 0


def forbid(_pid, folder):
    """Another user's folder, and FOJ's file in it too: who does not own a file must be allowed to write to set its times."""
    beat = folder / "beat"
    if bare(beat):
        os.chown(beat, 65534, 65534)
        beat.chmod(0o444)
    os.chown(folder, 65534, 65534)
    folder.chmod(0o555)


def permit(_pid, folder):
    os.chown(folder, 0, 0)
    folder.chmod(0o755)
    beat = folder / "beat"
    if bare(beat):
        os.chown(beat, 0, 0)
        beat.chmod(0o644)


def remount(pid, folder, how):
    inside = "/" + str(folder).split("/root/", 1)[1]
    command = ["nsenter", f"--mount=/proc/{pid}/ns/mnt", "mount", "-o", f"remount,{how}", inside]
    subprocess.run(command, check=True, capture_output=True, timeout=BEGIN)


def read_only(pid, folder):
    remount(pid, folder, "ro")


def read_write(pid, folder):
    remount(pid, folder, "rw")


def fill(_pid, folder):
    """Neither a block nor an inode is left, nor is FOJ's empty file: a cleaner of temporary files took it."""
    if bare(folder / "beat"):
        (folder / "beat").unlink()
    with contextlib.suppress(OSError):
        for number in range(1000):
            (folder / f"full-{number}").write_bytes(bytes(65536))
    with contextlib.suppress(OSError):
        for number in range(1000):
            (folder / f"empty-{number}").touch()


def clear(_pid, folder):
    for file in [*folder.glob("full-*"), *folder.glob("empty-*")]:
        file.unlink()


def two_on_one_host(stage, pool, transport, url):
    """Two workers whose FOJ files are one; the second is killed."""
    place = stage.place(pool)
    first = stage.worker(pool, url(), place=place, watch=False)
    second = stage.worker(pool, url(), place=place, ours=place / "second")
    watched = Watch(first.our_file if stage.ours else None, None, 1.0, stage.failures)
    until(lambda: watched.looks, timeout=BEGIN, what="the first worker is looked at")
    time.sleep(HEALTHY)
    second.process.kill()
    second.process.wait(10)
    killed = time.monotonic()
    stage.cell("two, the dead", pool, transport, second).dead(killed, killed + BY_MTIME + ENOUGH)
    wait_until(killed + BY_MTIME + ENOUGH + 0.2)
    watched.end()
    stage.cell("two, the living", pool, transport, watched.looks).alive(watched.looks[0].began, watched.looks[-1].ended)
    one_path(stage, pool, transport, url, place, first)
    stage.end([first, second])


def one_path(stage, pool, transport, url, place, first):
    """Another worker with both files of one that runs, which is killed: its own is only what it writes itself."""
    other = stage.worker(pool, url(), place=place, settings={"heartbeat_promise": WAITING})
    time.sleep(HEALTHY)
    cell = stage.cell("one path", pool, transport, other)
    first.process.kill()
    first.process.wait(10)
    killed = time.monotonic()
    cell.dead(killed, killed + BY_MTIME + ENOUGH)
    wait_until(killed + BY_MTIME + ENOUGH + 0.2)
    if stage.ours:
        assert harness.record(other.our_file)["pid"] == first.pid, "it did not wait for so long"
        until(lambda: harness.record(other.our_file)["pid"] == other.pid, timeout=WAITING + BEGIN, what="the other has the file")
    taken = time.monotonic()
    cell.alive(taken, taken + ENOUGH)
    wait_until(taken + ENOUGH + 0.2)
    stage.end([other])


def long_task(stage, transport, url):
    """Three minutes of work in the solo pool, whose loop does not turn meanwhile, and no limit."""
    worker = stage.worker("solo", url(), period=0.2)
    began, _ = worker.began(worker.send("nap", LONG_TASK))
    wait_until(began + LONG_TASK)
    # A RabbitMQ that was not answered for so long may have closed the connection, and FOJ's timer may be gone with that.
    worker.alive_again(foj=False)
    stage.cell("long task", "solo", transport, worker).alive(worker.looks[0].began, time.monotonic())
    stage.end([worker])


# What may be found in the place of a beat file, and is none.
ODD = ("mtime in the future", "directory", "fifo", "link", "touched by anyone")


def judge_the_odd(stage):
    """Each kind of it, where it lies: no worker has a part in it, so it is judged before there are any."""
    for kind in ODD:
        path = stage.place("odd") / "beat"
        make_odd(kind, path)
        ours = known_verdict(path, "--max-age", f"{FOJ_DEFAULT}s")
        assert ours, f"{kind}: the checker could not tell"
        stage.odd[kind] = foj_passes(path, FOJ_DEFAULT), ours


def make_odd(kind, path):
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "link":
        (path.parent / "other").touch()
        path.symlink_to("other")
    else:
        path.touch()
    if kind == "touched by anyone":
        path.chmod(0o666)
    if kind == "mtime in the future":
        os.utime(path, (time.time() + 3_600,) * 2)


# --- the whole ----------------------------------------------------------------------------------------------------


class Brokers:
    """Servers of the tests' own: one of each kind for all scenes that do not break it, and those that are broken."""

    def __init__(self, folder):
        self._starting = ThreadPoolExecutor(8)
        self._folder = folder
        self.redis, self.redis_down, self.redis_frozen = (self._start(harness.start_redis) for _ in range(3))
        self.rabbitmq, self.rabbitmq_down, self.rabbitmq_frozen = (self._start(harness.start_rabbitmq) for _ in range(3))

    def _start(self, start):
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        return self._starting.submit(start, folder)

    def end(self):
        redis = (self.redis, self.redis_down, self.redis_frozen)
        for server in (*redis, self.rabbitmq, self.rabbitmq_down, self.rabbitmq_frozen):
            with contextlib.suppress(AssertionError):
                server.result().end()
        self._starting.shutdown()


def everything(brokers):
    """All scenes, those first that take longest."""

    def url(server):
        return lambda: server.result().url

    def end(server):
        return lambda: server.result().end()

    def restart(server):
        return lambda: server.result().restart()

    def send(server, number):
        return lambda: server.result().signal_all(number)

    servers = {"redis": brokers.redis, "rabbitmq": brokers.rabbitmq}
    for transport, server in servers.items():
        yield f"long task, {transport}", long_task, (transport, url(server))
    for transport, server in (("redis", brokers.redis_down), ("rabbitmq", brokers.rabbitmq_down)):
        yield f"down, {transport}", outage, (transport, "down", url(server), end(server), restart(server))
    for transport, server in (("redis", brokers.redis_frozen), ("rabbitmq", brokers.rabbitmq_frozen)):
        stop, go_on = send(server, signal.SIGSTOP), send(server, signal.SIGCONT)
        yield f"frozen, {transport}", outage, (transport, "frozen", url(server), stop, go_on)
    for scene in (faults, unwritable, draining, two_on_one_host):
        for transport, server in servers.items():
            for pool in POOLS:
                name = f"{scene.__name__.replace('_', ' ')}, {pool}, {transport}"
                if scene is unwritable:
                    for whose in ("ours", "foj"):
                        yield f"{name}, {whose}", scene, (pool, transport, url(server), whose)
                else:
                    yield name, scene, (pool, transport, url(server))


def perform(folder, ours=True):
    """The whole table: a stage with its cells filled."""
    stage = Stage(folder, ours)
    stage.play("odd files", judge_the_odd)
    brokers = Brokers(folder)
    begin = time.monotonic()
    try:
        stage.run(everything(brokers))
    finally:
        stage.end()
        brokers.end()
    stage.took = time.monotonic() - begin
    return stage
