"""Where faults are played: real workers of every kind, each with its sinks, and all that the judge said of it.

A scene is one fault in one driver with one sink. It marks the moments at which something became true; which verdict is due
by when from then on stands in `matrix.py`, and the rules in `rules.py`.
"""

import contextlib
import importlib.util
import itertools
import os
import signal
import subprocess
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from network import Network
from scene import Server

import harness
from judging import EXAMPLES, Judge, wait_until
from rules import BUDGET, GRACE, INTERVAL, PATIENCE, PROMISE, ROUND, SINKS

# How many looks at each verdict there are, at least: for so long it is looked at once it is told.
SETTLE = 1.0
# For so long nothing may be told of a worker that is to stay alive: longer than any budget.
STAYS = PROMISE + 2

LIVE = ("starting", "draining", "cut off", "alive", "unknown")


def ms(seconds):
    return round(seconds * 1000)


# --- who works ------------------------------------------------------------------------------------------------------


class Faulty(harness.Program):
    """`faulty`, whose loop is a thread's or a tokio runtime's."""

    loop = True

    def __init__(self, scene, environment, under=(), start_deadline=None, drain_deadline=None, task_deadline=None):
        arguments = [scene.driver] if start_deadline is None else [scene.driver, ms(start_deadline)]
        super().__init__([*under, EXAMPLES / "faulty", *arguments], env=environment)

    def up(self):
        first = self.next_line(30)
        assert first.startswith("beating "), self.output
        return self

    @property
    def subject(self):
        """The process that the record speaks of."""
        return self.pid

    def say(self, *words):
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()

    def task(self, deadline, length):
        begun = time.monotonic()
        self.say("task", ms(deadline), ms(length))
        return begun

    def deadlock(self):
        self.say("deadlock")

    def stand(self, seconds):
        self.say("stand", ms(seconds))

    def drain(self, deadline):
        self.say("drain", ms(deadline))

    def finish(self):
        """Ends as a worker that has done all its work."""
        self.process.stdin.close()
        assert self.exit_status() == 0, self.output

    def end(self):
        with contextlib.suppress(BrokenPipeError, ValueError):
            self.process.stdin.close()
        self._ended or (harness.kill_session(self.pid), self.process.wait(10))
        self._ended = True
        self._reader.join(5)
        self.process.stdout.close()


class Wrapped(harness.Program):
    """A shell script under `heartbeat run`, which works on for so long once it is asked to end."""

    loop = False

    def __init__(self, _scene, environment, under=(), drain_deadline=None):
        # It works on until it is killed, where that is what it is about.
        ends_after, stop_timeout = (4, 60) if drain_deadline is None else (600, drain_deadline)
        script = f'trap "sleep {ends_after}; exit 0" TERM; echo "beating $$"; while :; do sleep 0.1; done'
        command = [harness.HEARTBEAT, "run", "--stop-timeout", f"{ms(stop_timeout)}ms", "--", "sh", "-c", script]
        super().__init__([*under, *command], env=environment)

    def drain(self, _deadline):
        self.signal(signal.SIGTERM)

    def finish(self):
        assert self.exit_status() == 0, self.output

    def up(self):
        first = self.next_line(30)
        self.subject = int(first.removeprefix("beating "))
        return self


def kinds():
    """Who works, by driver. The last two are known where their packages are."""
    known = {"thread": Faulty, "tokio": Faulty, "run": Wrapped}
    if has_python_package():
        from queue_workers import CeleryWorker, DjangoQ

        known |= {"celery": CeleryWorker, "django-q": DjangoQ}
    return known


def has_python_package():
    try:
        return importlib.util.find_spec("heartbeat._heartbeat") is not None
    except ModuleNotFoundError:
        return False


class Agent(harness.Program):
    def __init__(self, folder, url, under=()):
        command = [harness.HEARTBEAT, "agent", "--dir", folder, "--redis", url, "--interval", f"{ms(ROUND)}ms", "--owner", "any"]
        super().__init__([*under, *command])


# --- one fault, one driver, one sink --------------------------------------------------------------------------------


class Scene:
    def __init__(self, stage, fault, driver, sink):
        self.stage, self.fault, self.driver, self.sink = stage, fault, driver, sink
        self.key = (fault.key, driver, sink)
        self.id = self.cluster = f"s{next(stage.numbers)}"
        self.folder = stage.folder / self.id
        self.folder.mkdir()
        self.file = self.folder / "beat"
        self.server = self.proxy = self.agent = self.worker = self.network = None
        self.judge = stage.judge
        self.url = self.judges_url = None
        # By a socket, where there is no network to it.
        self.broker_nearby = False
        self.promise = PROMISE
        self.marks, self.told, self.facts, self.others = [], {}, {}, []
        self.steps = fault.by.get(driver, fault.steps)
        self.begun = self._at = None
        self._cleanup = contextlib.ExitStack()

    # What a scene may have to be begun with.

    @property
    def session(self):
        """That of all processes of the worker, and its first one."""
        return getattr(self.worker, "program", self.worker).pid

    def views(self):
        """The places at which this worker is judged, by the names that the rules have for them."""
        return [f"both: {view}" if self.sink == "both" else view for view in SINKS[self.sink]]

    @property
    def to_redis(self):
        return self.sink != "file"

    def start(self, kind=None, *, under=(), environment=(), promise=PROMISE, agent_under=None, wait="alive", file=None, **keywords):
        """Starts the worker, and waits until every place says that it is well."""
        if self.to_redis and not self.url:
            self.url = self.stage.redis.url
        self.judges_url = self.judges_url or self.url
        self.promise = promise
        variables = {
            "FILE": self.file, "CLUSTER": self.cluster, "WORKER": "w", "QUEUES": "mail", "INTERVAL": f"{ms(INTERVAL)}ms",
            "PROMISE": f"{ms(promise)}ms", "LOOP_BUDGET": f"{ms(BUDGET)}ms",
        }  # fmt: skip
        if self.sink in ("key", "both"):
            variables["REDIS_URL"] = self.url
        self.variables = variables = {f"HEARTBEAT_{name}": value for name, value in variables.items()} | dict(environment)
        if self.sink == "agent" and agent_under is not None:
            self.agent = self.keep(Agent(self.folder, self.url, agent_under))
        with self.stage.starting:
            kind = kind or kinds()[self.driver]
            launched = time.monotonic()
            self.worker = self.keep(kind(self, harness.environment(**variables), under, **keywords)).up()
            self.launched = launched, time.monotonic()
        self.file = file(self.worker) if file else self.file
        if self.sink == "agent" and self.agent is None:
            self.agent = self.keep(Agent(self.file.parent, self.url))
        self.watch(wait)
        return self.worker

    def watch(self, wait="alive"):
        for view in self.views():
            place = ("file", self.file) if view.endswith("file") else ("key", self.judges_url, self.cluster, "w")
            self.judge.watch(self.name(view), *place)
        for view in self.views():
            self.judge.until(self.name(view), wait, timeout=40)
        self.begun = time.monotonic()
        self.first = wait
        # As it is where nothing is wrong.
        time.sleep(SETTLE)

    def name(self, view):
        return f"{self.id}:{view.replace(' ', '')}"

    def keep(self, program):
        self._cleanup.callback(self._end, program)
        return program

    def later(self, what, *arguments):
        """Done at the scene's end, before what was kept until now ends."""
        self._cleanup.callback(what, *arguments)

    def _end(self, program):
        with contextlib.suppress(AssertionError):
            program.end()

    def own_judge(self):
        self.judge = self.keep(Judge())

    def own_redis(self):
        # The only one there, by the name that tests/outages gives rights to.
        self.cluster = "c"
        self.server = Server(self.folder)
        self.later(self.server.kill)
        self.url = f"redis://127.0.0.1:{self.server.port}"

    def returned(self):
        """Redis is itself again: what `tests/outages` looks at then, is looked at all the time here."""

    # What it marks.

    def now(self):
        """What is done next is what the next mark is of."""
        self._at = time.monotonic()
        return self._at

    def mark(self, at=None, since=None, brief=False):
        """The next step of the fault is true from this moment on. Waits until it is told everywhere, and looks on for a while."""
        at = at or self._at or time.monotonic()
        self._at = None
        step = self.steps[len(self.marks)]
        self.marks.append((at, since or at))
        views = [view for view in self.views() if view in step.verdicts]
        for view in views:
            latest = at + step.rule(view).within(view)
            with contextlib.suppress(AssertionError):
                remaining = max(0.1, latest - time.monotonic())
                harness.until(lambda view=view: self.judge.now(self.name(view)) == step.verdicts[view], remaining)
        if brief:
            return
        time.sleep(SETTLE)
        for view in views:
            self.ask_the_command(view, step.verdicts[view])
        self.ask_others(max((step.rule(view).by for view in views), default=0) + at)

    def ask_others(self, told_at):
        """What others say of a worker of theirs: FOJ's check of our file too. Once those must have told who go by an age."""
        if not hasattr(self.worker, "others"):
            return
        wait_until(told_at + PROMISE + GRACE)
        from judges import foj_passes

        said = dict(self.worker.others())
        if self.sink != "key":
            said["FOJ's check on our file"] = "alive" if foj_passes(self.file, PROMISE) else "dead"
        self.others.append((len(self.marks), said))

    def stays(self, seconds=STAYS):
        time.sleep(seconds)
        for view in self.views():
            self.ask_the_command(view, self.expected(view))

    def expected(self, view):
        """What is due now."""
        verdict = self.first
        for step, _ in zip(self.steps, self.marks):
            verdict = step.verdicts.get(view, verdict)
        return verdict

    def ask_the_command(self, view, verdict):
        """What the real command says of it, asked for live and for ready."""
        for want in ("live", "ready"):
            if view.endswith("file"):
                command = ["worker", "--file", self.file, "--for", want, "--owner", "any"]
                passes = verdict in LIVE if want == "live" else verdict == "alive"
            else:
                command = ["cluster", self.cluster, "--redis", self.judges_url, "--for", want]
                if verdict == "unknown":
                    command += ["--timeout", "1s"]
                # A cluster counts those that are fresh; none that cannot be asked is counted. Who is cut off from Redis alone,
                # and is read there, takes work.
                passes = verdict in ("alive", "cut off") if want == "ready" else verdict not in ("silent", "gone", "missing", "unknown")
            done = subprocess.run(
                [harness.CHECKER, *map(str, command)], capture_output=True, text=True, timeout=60, check=False, env=harness.environment()
            )
            self.facts.setdefault("commands", []).append((view, verdict, want, passes, done.returncode, done.stdout + done.stderr))

    # What came of it.

    def play(self):
        try:
            self.fault.play(self)
            for view in self.views():
                self.told[view] = self.judge.forget(self.name(view))
        finally:
            self._cleanup.close()
        self.over = time.monotonic()

    def timeline(self, view):
        """The verdicts that are due, each from its earliest moment to its latest, and what may pass by between two."""
        allowed = []
        since, verdict = self.begun - 1, self.first
        for step, (at, passing_since) in zip(self.steps, self.marks):
            if view not in step.verdicts:
                continue
            rule = step.rule(view)
            latest = at + rule.within(view)
            allowed.append((verdict, since, latest))
            allowed += [(passing, passing_since, latest) for passing in step.passing]
            since, verdict = at + rule.after, step.verdicts[view]
        allowed.append((verdict, since, float("inf")))
        return allowed

    @staticmethod
    def is_none(run):
        """Whether it is one look that had no answer from Redis while the machine was busy: the judge says that it cannot tell."""
        return run.verdict == "unknown" and run.looks == 1 and run.answered - run.asked > PATIENCE / 4

    def wrong(self, view):
        """The runs of looks that no rule allows, each as one line."""
        allowed = {}
        for verdict, since, until in self.timeline(view):
            spans = allowed.setdefault(verdict, [])
            if spans and since <= spans[-1][1]:
                since, until = min(since, spans[-1][0]), max(until, spans.pop()[1])
            spans.append((since, until))
        wrong = []
        for run in self.told[view]:
            if run.last_asked < self.begun or self.is_none(run):
                continue
            # The judge tells whole milliseconds.
            first, last = max(run.answered + 0.001, self.begun), run.last_asked
            if not any(since <= first and last <= until for since, until in allowed.get(run.verdict, [])):
                wrong.append(f"{run.verdict} from {run.asked - self.begun:.2f} to {run.last_answered - self.begun:.2f} ({run.looks} looks)")
        return wrong

    def story(self, view):
        due = [f"  may be {v} from {a - self.begun:.2f} to {b - self.begun:.2f}" for v, a, b in self.timeline(view)]
        said = [f"  {r.verdict} from {r.asked - self.begun:.2f} to {r.last_answered - self.begun:.2f} ({r.looks})" for r in self.told[view]]
        return "\n".join([f"{self.key} {view}", *due, "said:", *said, self.worker.output if self.worker else ""])

    def told_after(self, view):
        """For each step: how long after its moment it was told for good, and by when it had to be. Nothing of one that was not."""
        for step, (at, _) in zip(self.steps, self.marks):
            if verdict := step.verdicts.get(view):
                rule = step.rule(view)
                earliest, latest = at + rule.after, at + rule.within(view)
                fits = [
                    run for run in self.told[view] if run.verdict == verdict and run.last_answered >= earliest and run.asked <= latest
                ]
                if fits:
                    yield verdict, max(0.0, fits[-1].answered - at), latest - at


# --- all of them ----------------------------------------------------------------------------------------------------


class Stage:
    HOSTS = 8

    def __init__(self, folder, at_once=24):
        self.folder, self.at_once = Path(folder), at_once
        self.scenes, self.failures, self.not_here, self.took = {}, {}, {}, None
        self.numbers = itertools.count()
        self.network, self._free = None, []
        (self.folder / "network").mkdir()
        self._hosts_lock, self._hosts_changed = threading.Lock(), threading.Condition()
        # How many may start at a time.
        self.starting = threading.Semaphore(4)
        self.judge = Judge()
        self.redis = harness.start_redis(self.folder)
        self._broker, self._lock, self._tables = None, threading.Lock(), None

    def perform(self, cells, why_not):
        begun = time.monotonic()
        with ThreadPoolExecutor(self.at_once) as pool:
            for fault, driver, sink in cells:
                if reason := why_not(fault):
                    self.not_here[fault.key, driver, sink] = reason
                else:
                    pool.submit(self._play, fault, driver, sink)
        self.took = time.monotonic() - begun

    @property
    def broker_socket(self):
        return self.folder / "broker" / "socket"

    @property
    def broker(self):
        """Of all workers that have one, and never broken here: `tests/python/table` does that."""
        with self._lock:
            if self._broker is None:
                (self.folder / "broker").mkdir()
                self._broker = harness.start_redis(self.folder / "broker", "--unixsocket", self.broker_socket)
            return self._broker

    def tables(self):
        """A database with all tables of a Django-Q2 site, to be copied."""
        from django_q_cluster import template

        with self._lock:
            if self._tables is None:
                self._tables = template(self.folder)
            return self._tables

    def host(self):
        """A host of its own for a worker, wired to a Redis of all of them."""
        with self._hosts_lock:
            if self.network is None:
                self.network = Network(self.folder / "network", {f"n{number}": "+0" for number in range(self.HOSTS)})
                self.network.address = f"unix://{self.folder}/network/redis.sock"
                self._free = list(self.network.hosts.values())
        with self._hosts_changed:
            self._hosts_changed.wait_for(lambda: self._free)
            return self._free.pop(), self.network

    def give_back(self, host):
        with self._hosts_changed:
            self._free.append(host)
            self._hosts_changed.notify()

    def _play(self, fault, driver, sink):
        try:
            scene = Scene(self, fault, driver, sink)
            scene.play()
            self.scenes[scene.key] = scene
        except BaseException:
            self.failures[fault.key, driver, sink] = traceback.format_exc()

    def end(self):
        self.judge.end()
        self.redis.end()
        if self._broker:
            self._broker.end()
        if self.network:
            self.network.end()
