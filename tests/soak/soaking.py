"""Everything that runs for long, what it is asked meanwhile, and what was measured of it.

It runs and measures; what is right stands in the tests.
"""

import contextlib
import http.client
import os
import signal
import statistics
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import harness

SOAKED = Path(os.environ.get("SOAKED_BIN", harness.TARGET / "debug" / "examples" / "soaked")).absolute()
MEASURES = ("rss", "anonymous", "descriptors", "connections", "threads")
# What starts slowly, or fills a cache, does so in the first part.
WARM_UP = 1 / 4
SLOTS = 4


@dataclass(frozen=True)
class Counts:
    """How much is done to what runs."""

    seconds: float
    probes: int
    restarts: int
    redis_restarts: int


REDUCED = Counts(30, 30_000, 150, 6)
WHOLE = Counts(3600, 1_000_000, 10_000, 100)


@dataclass
class Growth:
    """A measure's medians in the first and in the last third of the time after the warm-up."""

    first: float
    last: float
    most: float

    @property
    def by(self):
        return self.last - self.first


def growth(series):
    """`series` is (moment, value) in order."""
    begun, ended = series[0][0], series[-1][0]
    warm = begun + (ended - begun) * WARM_UP
    third = (ended - warm) / 3
    first = [value for moment, value in series if warm <= moment < warm + third]
    last = [value for moment, value in series if moment >= ended - third]
    return Growth(statistics.median(first), statistics.median(last), max(value for _, value in series))


def measure(pid):
    """The moment, and the MEASURES of one process; memory in KiB."""
    memory = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, amount = line.split(":")
        memory[name] = int(amount.split()[0])
    descriptors = connections = 0
    for name in os.listdir(f"/proc/{pid}/fd"):
        # One may be closed meanwhile.
        with contextlib.suppress(FileNotFoundError):
            connections += os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:")
            descriptors += 1
    threads = len(os.listdir(f"/proc/{pid}/task"))
    return time.monotonic(), (memory["Rss"], memory["Anonymous"], descriptors, connections, threads)


@dataclass
class Asked:
    """How often something was done by other processes, and what was not as it should be."""

    done: int = 0
    wrong: list = field(default_factory=list)


class Serve(harness.Program):
    def __init__(self, folder, configuration):
        self.port = harness.free_port()
        file = folder / "checker.toml"
        file.write_text(configuration)
        super().__init__([harness.CHECKER, "serve", "--config", file, "--listen", f"127.0.0.1:{self.port}"])
        harness.until(lambda: "listening" in self.output, timeout=30, what="it listens")

    def get(self, connection, path):
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        return answer.status


class Scene:
    def __init__(self, folder, counts):
        self.folder, self.counts = folder, counts
        self.programs, self.series = {}, {}
        self.restarts, self.executed, self.requests, self.redis_restarts = Asked(), Asked(), Asked(), Asked()
        self.told = {}
        self._over = threading.Event()
        self._others = []

    # --- what runs ------------------------------------------------------------------------------------------------

    def start(self):
        (self.folder / "beats").mkdir()
        self.redis = self._beside(harness.start_redis(self.folder))
        self.postgres = self._beside(harness.Postgres())
        harness.until(self.postgres.answers, timeout=60, what="PostgreSQL answers")
        seconds = self.counts.seconds
        self._run("worker", [SOAKED, "worker"], self._place("worker"))
        self._run("leaking", [SOAKED, "leak"], self._place("leaking", redis=False))
        self._run("restarting", [SOAKED, "again", self.counts.restarts, seconds], self._place("restarting"))
        # What is looked at is there before the first look.
        harness.until(self.beat("worker").exists, what="the worker beats")
        self._run("judging", [SOAKED, "judge", self.beat("worker"), self.counts.probes, seconds])
        wrapped = [harness.HEARTBEAT, "run", "--interval", "100ms", "--", "sleep", "infinity"]
        self._run("heartbeat run", wrapped, self._place("wrapped"))
        agent = [harness.HEARTBEAT, "agent", "--dir", self.folder / "beats", "--interval", "100ms"]
        self._run("heartbeat agent", agent, {"REDIS_URL": self.redis.url})
        self.serve = self._beside(Serve(self.folder, self._checks()))
        self.programs["checker serve"] = self.serve
        self.series = {name: [] for name in self.programs}

    def _beside(self, program):
        self._others.append(program)
        return program

    def _run(self, name, command, variables=None):
        extra = {f"HEARTBEAT_{key}": value for key, value in (variables or {}).items()}
        self.programs[name] = self._beside(harness.Program(command, env=harness.environment(**extra)))

    def beat(self, name):
        return self.folder / "beats" / name

    def _place(self, worker, redis=True):
        place = {"FILE": self.beat(worker), "CLUSTER": "soak", "WORKER": worker, "QUEUES": "mail", "INTERVAL": "50ms", "PROMISE": "10s"}
        return place | ({"REDIS_URL": self.redis.url} if redis else {})

    def _checks(self):
        return f"""
            [server]
            cache = "50ms"
            page = true
            [subsets]
            readiness = ["worker", "fleet", "cache", "database", "place", "program"]
            [checks.worker]
            type = "worker"
            file = "{self.beat("worker")}"
            [checks.fleet]
            type = "cluster"
            cluster = "soak"
            redis = "{self.redis.url}"
            [checks.cache]
            type = "redis"
            url = "{self.redis.url}"
            [checks.database]
            type = "database"
            url = "{self.postgres.url}"
            [checks.place]
            type = "tcp"
            address = "127.0.0.1:{self.postgres.port}"
            [checks.program]
            type = "command"
            command = ["true"]
        """

    # --- what is done meanwhile -----------------------------------------------------------------------------------

    def run(self):
        begun = time.monotonic()
        parts = [self._sample, self._execute, *([self._restart_workers] * SLOTS), self._restart_redis, self._ask_kept, self._ask_anew]
        threads = []
        for number, part in enumerate(parts):
            threads.append(threading.Thread(target=part, args=(begun,) if part != self._restart_workers else (begun, number)))
        for thread in threads:
            thread.start()
        self._over.wait(self.counts.seconds)
        # A busy machine takes longer for what is counted.
        for thread, part in zip(threads, parts, strict=True):
            if part in (self._restart_workers, self._restart_redis):
                thread.join(4 * self.counts.seconds)
        self._over.set()
        for thread in threads:
            thread.join(60)
        self.lasted = time.monotonic() - begun

    def stop(self):
        # Who looks at a worker ends before it.
        for name, program in reversed(self.programs.items()):
            if program.command[0] == str(SOAKED):
                program.process.stdin.close()
            else:
                program.signal(signal.SIGTERM)
            self.told[name] = (program.exit_status(), program.output)

    def end(self):
        self._over.set()
        for program in reversed(self._others):
            program.end()

    def _pace(self, begun, times, first=0, step=1):
        """Numbers up to `times`, each when it is due, until all is over."""
        for number in range(first, times, step):
            if self._over.wait(max(0, begun + self.counts.seconds * number / times - time.monotonic())):
                return
            yield number

    def _sample(self, begun):
        every = max(0.2, self.counts.seconds / 1800)
        while not self._over.wait(every):
            for name, program in self.programs.items():
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    self.series[name].append(measure(program.pid))

    def _command(self, asked, command, right, **extra):
        done = subprocess.run(
            [str(part) for part in command], env=harness.environment(**extra), capture_output=True, text=True, timeout=60, check=False
        )
        asked.done += 1
        if done.returncode not in right:
            asked.wrong.append(f"{command}: {done.returncode}\n{done.stdout}{done.stderr}")

    def _execute(self, begun):
        """Commands, as many as fit. A Redis that is away is unknown, which is no pass for a cluster."""
        while not self._over.wait(0.02):
            self._command(self.executed, [harness.CHECKER, "worker", "--file", self.beat("worker")], [0])
            if self.executed.done % 20 == 0:
                self._command(self.executed, [harness.CHECKER, "cluster", "soak", "--redis", self.redis.url], [0, 1])

    def _restart_workers(self, begun, number):
        """Workers of one slot, one after another; every other one is killed."""
        slot = number % SLOTS
        for turn in self._pace(begun, self.counts.restarts, slot, SLOTS):
            end, status = ("stop", 0) if turn // SLOTS % 2 else ("kill", -signal.SIGKILL)
            place = {f"HEARTBEAT_{key}": value for key, value in self._place(f"slot-{slot}").items()}
            self._command(self.restarts, [SOAKED, "once", end], [status], **place)

    def _restart_redis(self, begun):
        for _ in self._pace(begun, self.counts.redis_restarts + 1, 1):
            self.redis.end()
            self._over.wait(min(0.5, self.counts.seconds / self.counts.redis_restarts / 4))
            self.redis.restart()
            self.redis_restarts.done += 1

    def _ask_kept(self, begun):
        """What is asked on a connection that is kept, while it holds."""
        self._ask(lambda connection: connection, ["/readyz", "/healthz", "/version"])

    def _ask_anew(self, begun):
        self._ask(lambda connection: connection.close(), ["/readyz", "/metrics", "/", "/readyz?format=text"])

    def _ask(self, after, paths):
        connection = http.client.HTTPConnection("127.0.0.1", self.serve.port, timeout=10)
        while not self._over.wait(0.05):
            for path in paths:
                try:
                    status = self.serve.get(connection, path)
                    if status not in (200, 503):
                        self.requests.wrong.append(f"{path}: {status}")
                except (OSError, http.client.HTTPException) as failure:
                    connection.close()
                    self.requests.wrong.append(f"{path}: {failure!r}")
                self.requests.done += 1
                after(connection)
        connection.close()
