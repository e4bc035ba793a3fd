"""The workers of heartbeat/queues, each on its real broker: working, hanging, draining, cut off, killed."""

import contextlib
import signal
import socket
import subprocess
import threading
from dataclasses import dataclass

import amqp
import pytest
import redis

import harness
from harness import CHECKER, Program, record, until, verdict

EXAMPLES = CHECKER.parent / "examples"


class Cut:
    """A way to a server that can be cut: connections are refused, those that are there end."""

    def __init__(self, port):
        self.behind = port
        self.pairs, self.listener = [], None
        self.port = harness.free_port()
        self.mend()

    def mend(self):
        self.listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self.listener,), daemon=True).start()

    def cut(self):
        # A listener that is only closed would still answer the thread that waits in it.
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        pairs, self.pairs = self.pairs, []
        for end in (end for pair in pairs for end in pair):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener):
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection(("127.0.0.1", self.behind))
                self.pairs.append((near, far))
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    @staticmethod
    def _carry(one, other):
        with contextlib.suppress(OSError):
            while part := one.recv(65536):
                other.sendall(part)
        for end in (one, other):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@dataclass
class Apalis:
    """Jobs by the example itself, which pushes them too."""

    broker: object
    cut: Cut
    program = EXAMPLES / "apalis_worker"
    task = "resize"
    # Past its limit at once, and past the loop's budget.
    hanging = {"text": "blocking", "milliseconds": 7000, "limit": 100}
    budget = "4s"

    def __post_init__(self):
        self.redis = redis.Redis.from_url(self.broker.url)
        self.redis.flushdb()
        self.environment = {"REDIS_URL": f"redis://127.0.0.1:{self.cut.port}/"}

    def push(self, text="a.png", milliseconds=0, limit=30_000):
        command = [self.program, "push", text, str(milliseconds), str(limit)]
        subprocess.run(command, env=harness.environment(REDIS_URL=self.broker.url), check=True, timeout=30)

    def waiting(self):
        return self.redis.llen("images:active") + self.redis.zcard("images:scheduled")


@dataclass
class Lapin:
    """Jobs over AMQP. One that nobody has acknowledged waits again once its worker has gone."""

    broker: object
    cut: Cut
    program = EXAMPLES / "lapin_worker"
    task = "letter"
    hanging = {"text": "blocking", "milliseconds": 9000}
    budget = "6s"

    def __post_init__(self):
        self.environment = {"AMQP_URL": f"amqp://127.0.0.1:{self.cut.port}/%2f?heartbeat=10"}
        with self.channel() as channel:
            channel.queue_declare("letters", durable=True, auto_delete=False)
            channel.queue_purge("letters")

    @contextlib.contextmanager
    def channel(self):
        with amqp.Connection(f"127.0.0.1:{self.broker.port}") as connection:
            yield connection.channel()

    def push(self, text="letter", milliseconds=0):
        with self.channel() as channel:
            channel.basic_publish(amqp.Message(f"{text} {milliseconds}"), routing_key="letters")

    def waiting(self):
        with self.channel() as channel:
            return channel.queue_declare("letters", passive=True).message_count


@pytest.fixture(params=[Apalis, Lapin], ids=lambda kind: kind.__name__.lower())
def queue(request):
    broker = request.getfixturevalue("broker" if request.param is Apalis else "rabbitmq")
    cut = Cut(broker.port)
    yield request.param(broker, cut)
    cut.cut()


class Worker(Program):
    def __init__(self, queue, file, **more):
        self.file = file
        settings = {"HEARTBEAT_FILE": file, "HEARTBEAT_WORKER": "w", "HEARTBEAT_INTERVAL": "50ms", "HEARTBEAT_PROMISE": "2s"}
        super().__init__([queue.program], harness.environment(**settings, **queue.environment, **more))

    def becomes(self, expected, timeout=30):
        def so():
            assert self.process.poll() is None or expected == "missing", self.output
            return verdict(self.file).name == expected

        until(so, timeout, what=f"{expected}, and is {verdict(self.file).answer}; {self.output}")

    def tasks(self):
        return record(self.file)["tasks"]

    def has_done(self, jobs):
        until(lambda: self.tasks()["done"] == jobs, timeout=30, what=f"{jobs} jobs done: {self.tasks()}; {self.output}")


@pytest.fixture
def begin(start, queue, tmp_path):
    def begin(**more):
        worker = start(Worker, queue, tmp_path / "beat", **more)
        worker.becomes("alive")
        return worker

    return begin


def test_jobs_are_tasks_with_their_deadline_and_a_stop_lets_them_end(queue, begin):
    worker = begin()
    queue.push()
    worker.has_done(1)
    queue.push(milliseconds=2500)
    nearest = until(lambda: worker.tasks()["running"] and worker.tasks(), what="the task runs")
    assert nearest["name"] == queue.task
    assert record(worker.file)["status"] == "busy"
    assert nearest["due_mono_ms"] > nearest["since_mono_ms"]

    worker.signal(signal.SIGTERM)
    worker.becomes("draining")
    assert verdict(worker.file).passes, "a draining worker is live"
    assert not verdict(worker.file, "--for", "ready").passes
    assert worker.exit_status() == 0, worker.output
    assert verdict(worker.file).name == "missing"
    assert queue.waiting() == 0, "none is left, and none was done twice"


def test_a_job_that_fails_counts_as_failed(queue, begin):
    worker = begin()
    # Longer than it may take.
    queue.push(**{"milliseconds": 60_000} | ({"limit": 100} if "limit" in queue.hanging else {}))
    until(lambda: worker.tasks()["failed"] == 1, timeout=30, what=f"it has failed: {worker.tasks()}")
    assert worker.tasks()["done"] == 0


def test_jobs_that_panic_have_failed_and_the_worker_goes_on(queue, begin):
    """More of them than run at once: none takes its place for ever."""
    worker = begin()
    for _ in range(9):
        queue.push("panicking")
    queue.push()
    worker.has_done(1)
    until(lambda: worker.tasks()["failed"] == 9, timeout=30, what=f"they have failed: {worker.tasks()}; {worker.output}")
    assert worker.process.poll() is None


@pytest.mark.parametrize("queue", [Lapin], ids=["lapin"], indirect=True)
def test_a_job_that_is_cut_off_with_its_connection_is_not_counted_as_done(queue, begin):
    worker = begin()
    queue.push(milliseconds=2500)
    until(lambda: worker.tasks()["running"] == 1, what="the job has begun")
    queue.cut.cut()
    until(lambda: worker.tasks()["running"] == 0, what="the job was given up")
    assert (worker.tasks()["done"], worker.tasks()["failed"]) == (0, 1)
    queue.cut.mend()
    worker.has_done(1)
    assert worker.tasks()["failed"] == 1, "the broker gave it out once more"


def test_a_job_that_blocks_its_thread_is_overdue_then_wedged_then_over(queue, begin):
    worker = begin(HEARTBEAT_LOOP_BUDGET=queue.budget)
    queue.push(**queue.hanging)
    worker.becomes("overdue")
    worker.becomes("wedged")
    worker.becomes("alive")
    worker.has_done(1)


def test_a_worker_whose_broker_is_away_is_cut_off_and_works_when_it_is_back(queue, begin):
    worker = begin()
    queue.cut.cut()
    worker.becomes("cut off")
    assert verdict(worker.file).passes, "a restart would help nobody"
    assert not verdict(worker.file, "--for", "ready").passes
    queue.cut.mend()
    worker.becomes("alive")
    queue.push()
    worker.has_done(1)
    assert worker.process.poll() is None


def test_a_worker_without_a_broker_at_its_start_ends_when_it_is_told_to(queue, start, tmp_path):
    queue.cut.cut()
    worker = start(Worker, queue, tmp_path / "beat")
    until(lambda: "once more" in worker.output, timeout=60)
    worker.signal(signal.SIGTERM)
    assert worker.exit_status() == 0, worker.output


def test_a_killed_worker_is_told_at_once(queue, begin):
    worker = begin()
    queue.push(milliseconds=2900)
    until(lambda: worker.tasks()["running"] == 1, what="the job has begun")
    worker.signal(signal.SIGKILL)
    worker.exit_status()
    assert verdict(worker.file).name == "gone"
    if isinstance(queue, Lapin):
        begin().has_done(1)
