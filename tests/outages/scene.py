"""A Redis of its own, its workers, and everybody who looks at them, for each kind of outage.

It makes outages and writes down what was seen; what is right stands in the tests.
"""

import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import redis

import harness

INTERVAL = 1.0
WORKERS = 5
TASK_MS = 100
STEADY = Path(os.environ.get("STEADY_BIN", harness.TARGET / "debug" / "examples" / "steady")).absolute()


def rights(of):
    """The commands that heartbeat/README.md allows to this user."""
    lines = (harness.REPOSITORY / "heartbeat" / "README.md").read_text().splitlines()
    [line] = [line for line in lines if line.startswith(f"ACL SETUSER {of} ")]
    return [word for word in line.split() if word.startswith("+")]


class Server:
    """A Redis that can be killed and started again on its port. The test itself talks to its socket."""

    def __init__(self, folder):
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.program = None
        self.start()

    def start(self):
        socket_path = self.folder / "redis.sock"
        socket_path.unlink(missing_ok=True)
        command = [harness.REDIS_SERVER, "--port", self.port, "--bind", "127.0.0.1", "--unixsocket", socket_path]
        self.program = harness.Program([*command, "--dir", self.folder, "--save", "", "--appendonly", "no"])
        self.client = redis.Redis(unix_socket_path=str(socket_path), socket_timeout=5, decode_responses=True)
        try:
            harness.until(self.answers, what="redis-server answers")
        except AssertionError:
            self.kill()
            raise

    def answers(self):
        if self.program.process.poll() is not None:
            raise AssertionError(f"redis-server ended:\n{self.program.output}")
        with contextlib.suppress(redis.RedisError, OSError):
            return self.client.ping()

    def kill(self):
        self.client.close()
        self.program.end()

    def ask(self, *words):
        return self.client.execute_command(*words)


class Proxy:
    """Carries bytes to a server and back. While `delay` is not 0, each answer trickles in over so many seconds."""

    def __init__(self, port):
        self.target = port
        self.delay = 0.0
        self._changed = threading.Condition()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def set_delay(self, seconds):
        """What is held back when it becomes 0 goes on at once."""
        with self._changed:
            self.delay = seconds
            self._changed.notify_all()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self.target))
                threading.Thread(target=self._carry, args=(client, server, False), daemon=True).start()
                threading.Thread(target=self._carry, args=(server, client, True), daemon=True).start()

    def _carry(self, source, sink, slowly):
        with contextlib.suppress(OSError), source:
            while data := source.recv(65536):
                delay = self.delay if slowly else 0.0
                pieces = [data] if not delay else [data[:1], data[1:-1], data[-1:]]
                for piece in pieces:
                    if delay:
                        with self._changed:
                            self._changed.wait_for(lambda: not self.delay, delay / len(pieces))
                    sink.sendall(piece)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)

    def end(self):
        self._listener.close()
        self.set_delay(0.0)


@dataclass
class Answer:
    """What a checker said, and when it was asked and had answered, in seconds of the monotonic clock."""

    asked: float
    answered: float
    code: int
    said: dict


@dataclass
class Return:
    """One moment at which Redis was itself again, by the wall clock, and each worker's first beat after it."""

    at_unix: float
    back: dict = field(default_factory=dict)

    def slowest(self):
        return max(self.back.values()) if len(self.back) == WORKERS else None


class Group:
    """The workers of one outage, each of which beats to Redis by itself, and all that was seen of them."""

    suffix = ""
    # Between two looks at a worker's file.
    look_every = INTERVAL

    def __init__(self, outage, folder, seconds, promise):
        self.outage, self.seconds, self.promise = outage, seconds, promise
        self.name = outage.name + self.suffix
        self.folder = folder / self.name
        self.server = self.proxy = None
        self.workers, self.beats = [], {}
        self.live, self.ready, self.cluster, self.returns = [], [], [], []
        self.tasks, self.counters = [], []
        self.begun = self.ended = self.over = None
        self.failure = None
        self._looking = threading.Event()
        self._looking.set()

    def start(self):
        (self.folder / "beats").mkdir(parents=True)
        self.server = Server(self.folder)
        self.outage.prepare(self)
        for n in range(WORKERS):
            self.workers.append(self._worker(n))

    def _worker(self, n):
        file = self.folder / "beats" / f"w{n}"
        self.beats[file] = []
        variables = {
            "FILE": file, "CLUSTER": "c", "WORKER": f"w{n}", "QUEUES": "mail",
            "INTERVAL": f"{round(INTERVAL * 1000)}ms", "PROMISE": f"{round(self.promise * 1000)}ms",
        }  # fmt: skip
        extra = {f"HEARTBEAT_{name}": value for name, value in variables.items()}
        return harness.Program([STEADY, TASK_MS], env=harness.environment(**extra, **self._way_to_redis()))

    def _way_to_redis(self):
        """What a worker is told of Redis."""
        return {"HEARTBEAT_REDIS_URL": self.outage.url(self, "publisher")}

    def wait_published(self):
        harness.until(lambda: self.server.ask("ZCARD", "heartbeat:{c}:ready") == WORKERS, 30, f"{self.name}: all beat")

    def run(self):
        """The outage, from its begin to what comes after; every look at it goes on beside."""
        looks = [threading.Thread(target=look) for look in (self._ask_worker, self._ask_cluster)]
        for look in looks:
            look.start()
        try:
            time.sleep(3 * INTERVAL)
            self.begun = time.monotonic()
            self.outage.begin(self)
            while (left := self.begun + self.seconds - time.monotonic()) > 0:
                time.sleep(min(left, self.outage.tick_every))
                self.outage.tick(self)
            self.ended = time.monotonic()
            self.outage.end(self)
            time.sleep(4 * INTERVAL)
            self.over = time.monotonic()
            time.sleep(4 * INTERVAL)
        except Exception as failure:  # told by the test of this group
            self.failure = failure
        self._looking.clear()
        for look in looks:
            look.join(20)

    def returned(self):
        """Redis is itself again, now: waits until every worker is back, or long past that."""
        moment = Return(time.time())
        self.returns.append(moment)
        end = time.monotonic() + 6 * INTERVAL
        while len(moment.back) < WORKERS and time.monotonic() < end:
            for worker, lost_at in self.server.client.zrange("heartbeat:{c}:ready", 0, -1, withscores=True):
                beaten = lost_at / 1000 - self.promise
                if beaten >= moment.at_unix:
                    moment.back.setdefault(worker, beaten - moment.at_unix)
            time.sleep(0.03)

    def _ask(self, answers, *words):
        asked = time.monotonic()
        command = [harness.CHECKER, *words, "--format", "json"]
        done = subprocess.run(
            [str(word) for word in command], capture_output=True, text=True, timeout=30, env=harness.environment(), check=False
        )
        said = json.loads(done.stdout) if done.stdout else {"status": "none", "reason": done.stderr}
        answers.append(Answer(asked, time.monotonic(), done.returncode, said))

    def _ask_worker(self):
        files = list(self.beats)
        turn = 0
        while self._looking.is_set():
            file = files[turn % len(files)]
            self._ask(self.live, "worker", "--file", file)
            self._ask(self.ready, "worker", "--file", file, "--for", "ready")
            turn += 1
            time.sleep(self.look_every)

    def _ask_cluster(self):
        url = self.outage.url(self, "checker")
        while self._looking.is_set():
            self._ask(self.cluster, "cluster", "c", "--redis", url, "--min", WORKERS)
            time.sleep(INTERVAL)

    def look_at_beats(self):
        """Notes each worker's latest beat; it must be called more often than they beat."""
        for file, beats in self.beats.items():
            with contextlib.suppress(FileNotFoundError):
                record = json.loads(file.read_text())
                if not beats or beats[-1][0] != record["seq"]:
                    beats.append((record["seq"], record["at_mono_ms"]))

    def stop(self):
        for worker in self.workers:
            worker.process.stdin.close()
        for worker in self.workers:
            assert worker.exit_status() == 0, worker.output
            lines = [line.split() for line in worker.lines]
            self.tasks.append([(int(line[1]), int(line[2])) for line in lines if line[0] == "task"])
            self.counters.append({line[0]: int(line[1]) for line in lines if line[0] not in ("task", "beating")})

    def end(self):
        for worker in self.workers:
            with contextlib.suppress(OSError):
                worker.end()
        if self.proxy:
            self.proxy.end()
        if self.server:
            self.server.kill()

    # --- what it amounts to ---------------------------------------------------------------------------------------

    def longest_gap(self):
        """The longest time between two beats of a file that follow each other, in seconds."""
        pairs = (pair for beats in self.beats.values() for pair in zip(beats, beats[1:], strict=False))
        return max(later[1] - earlier[1] for earlier, later in pairs if later[0] == earlier[0] + 1) / 1000

    def delays(self):
        """By how much each task, with the pause before it, was longer than it is, in ms; sorted."""
        return sorted((ended[1] - begun[1]) / 1000 - TASK_MS for tasks in self.tasks for begun, ended in zip(tasks, tasks[1:], strict=False))

    def median_of_tasks(self):
        return statistics.median(len(tasks) for tasks in self.tasks)

    def slowest_return(self):
        slowest = [moment.slowest() for moment in self.returns]
        return None if not slowest or None in slowest else max(slowest)

    def within(self, answers, after, before):
        """Asked later than `after` seconds into the outage, and answered before so many seconds after its end."""
        return [answer for answer in answers if answer.asked >= self.begun + after and answer.answered <= self.ended + before]


class AgentGroup(Group):
    """The same with workers that know nothing of Redis, and one agent that publishes what is in their files."""

    suffix = "-by-agent"
    # All groups share the machine.
    look_every = 2 * INTERVAL
    agent = None

    def start(self):
        super().start()
        command = [harness.HEARTBEAT, "agent", "--dir", self.folder / "beats", "--interval", f"{round(INTERVAL * 1000)}ms"]
        url = self.outage.url(self, "publisher")
        self.agent = harness.Program(command, env=harness.environment(HEARTBEAT_REDIS_URL=url))

    def _way_to_redis(self):
        return {}

    def stop(self):
        super().stop()
        self.agent.signal(signal.SIGTERM)
        assert self.agent.exit_status() == 0, self.agent.output

    def end(self):
        if self.agent:
            self.agent.end()
        super().end()
