"""`heartbeat.celery.LivenessProbe` in real workers, on real brokers, judged by the real checker."""

import json
import os
import signal
import socket
import sys
import time
import urllib.request
import uuid
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import pytest
from celery import Celery
from celery.concurrency import prefork
from celery.concurrency.solo import TaskPool as SoloPool
from redis import Redis

import harness
from harness import until
from heartbeat.celery import _is_prefork, _waits_for_a_broker, _Watch
from signing import NO_KEYS

HERE = Path(__file__).parent
POOLS = ["prefork", "solo", "threads", "gevent"]


class Worker(harness.Program):
    """A worker with a queue and a beat file of its own."""

    def __init__(self, folder, url, *, pool="prefork", slots=1, level="INFO", arguments=(), env=(), file=None, **settings):
        self.file = Path(file or folder / f"beat-{uuid.uuid4().hex[:8]}")
        self.queue = f"q-{uuid.uuid4().hex[:12]}"
        self.name = f"{self.queue}@probed"
        settings = {"heartbeat_file": str(self.file), "heartbeat_interval": 0.1, "heartbeat_promise": 3} | settings
        settings = {name: value for name, value in settings.items() if value is not None}
        variables = {"BROKER_URL": url, "QUEUE": self.queue, "SETTINGS": json.dumps(settings), "PYTHONUNBUFFERED": 1}
        command = [sys.executable, "-m", "celery", "-A", "probed_app", "worker", "--loglevel", level]
        command += ["--pool", pool, "--concurrency", slots, "--hostname", self.name, *arguments]
        super().__init__(command, harness.environment(PYTHONDONTWRITEBYTECODE=1, **variables, **dict(env)), HERE)
        self.client = Celery("tests", broker=url)
        self.client.conf.task_default_queue = self.queue

    def ready(self):
        self.says(" ready.")
        until(lambda: self.verdict == "alive", what="it is alive")
        return self

    def send(self, task, *arguments, **options):
        return self.client.send_task(task, args=arguments, **options)

    @property
    def verdict(self):
        return harness.verdict(self.file).name

    @property
    def tasks(self):
        return harness.record(self.file)["tasks"]

    def is_always(self, seconds, *verdicts):
        """Looks again and again; gives the last verdict."""
        end, seen = time.monotonic() + seconds, []
        while time.monotonic() < end:
            looked = harness.verdict(self.file)
            if seen[-1:] != [looked.name]:
                seen.append(looked.name)
            assert looked.name in verdicts, (seen, looked.answer, self.output)
            time.sleep(0.05)
        return seen[-1]

    def becomes(self, verdict, *before, timeout=20):
        """Waits for a verdict, and for nothing else to be said before it."""
        end = time.monotonic() + timeout
        while (looked := harness.verdict(self.file)).name != verdict:
            assert looked.name in before and time.monotonic() < end, (verdict, looked.answer, self.output)
            time.sleep(0.05)
        return looked


@pytest.fixture
def worker(start, tmp_path, broker):
    def begin(url=None, **options):
        return start(Worker, tmp_path, url or broker.url, **options)

    return begin


@pytest.mark.parametrize(("transport", "pool"), [*product(["redis"], POOLS), ("rabbitmq", "prefork")])
def test_a_worker_shows_its_queues_and_its_tasks_and_drains(worker, request, pool, transport):
    url = request.getfixturevalue("broker" if transport == "redis" else "rabbitmq").url
    one = worker(url, pool=pool, heartbeat_drain_deadline=60).ready()
    record = harness.record(one.file)
    assert (record["queues"], record["worker"], record["cluster"]) == ([one.queue], one.name, "default")
    one.send("nap", 4, soft_time_limit=50)
    nearest = until(lambda: one.tasks if "name" in one.tasks else None)
    assert nearest["name"] == "nap" and nearest["running"] == 1
    assert nearest["due_mono_ms"] - nearest["since_mono_ms"] == 51_200
    one.signal(signal.SIGTERM)
    one.becomes("draining", "alive")
    assert harness.record(one.file)["until_mono_ms"] > harness.record(one.file)["at_mono_ms"] + 50_000
    assert one.exit_status() == 0, one.output
    assert not one.file.exists()
    assert "heartbeat" not in "".join(line for line in one.lines if "WARN" in line or "ERROR" in line), one.output


@pytest.mark.parametrize("pool", ["solo", "threads", "gevent"])
def test_a_loop_that_runs_tasks_itself_is_as_late_as_they_are(worker, pool):
    one = worker(pool=pool, heartbeat_loop_budget=3 if pool == "gevent" else 1).ready()
    one.send("hold_gil", 5)
    until(lambda: one.tasks["running"] == 1)
    assert "due_mono_ms" not in one.tasks
    one.is_always(4, "alive")
    until(lambda: one.tasks["running"] == 0)
    one.send("hold_gil", 5, soft_time_limit=1)
    one.becomes("overdue", "alive", timeout=4)
    one.becomes("alive", "overdue")


@pytest.mark.parametrize("pool", ["gevent", "prefork"])
def test_a_pool_without_a_free_slot_keeps_its_loop_and_that_is_right(worker, tmp_path, pool):
    if pool == "gevent":
        one = worker(pool=pool, slots=1, heartbeat_loop_budget=4).ready()
    else:
        # A transport without an event loop: then the pool waits for a slot.
        places = {name: str(tmp_path / "broker") for name in ("data_folder_in", "data_folder_out", "control_folder")}
        (tmp_path / "broker").mkdir()
        one = worker("filesystem://", pool=pool, slots=1, heartbeat_loop_budget=4, broker_transport_options=places).ready()
        one.client.conf.broker_transport_options = places
    for _ in range(3):
        one.send("nap", 6, time_limit=60)
    until(lambda: one.tasks["running"] == 1)
    # A pool of children without a hub looks at its limits once a second.
    nearest = one.tasks
    assert nearest["due_mono_ms"] - nearest["since_mono_ms"] == (62_200 if pool == "prefork" else 61_200)
    one.is_always(14, "alive")
    until(lambda: one.tasks["done"] == 3)
    one.send("wedge")
    one.becomes("wedged", "alive")


@pytest.mark.parametrize("pool", ["solo", "threads"])
def test_limits_that_are_none_do_no_harm(worker, pool):
    one = worker(pool=pool, slots=2, heartbeat_task_deadline=5).ready()
    limits = [["60", None], [float("inf"), None], [-5, None], [float("nan"), 1]]
    with one.client.connection_for_write() as connection:
        producer = one.client.amqp.Producer(connection)
        for limit in limits:
            headers, properties, body, _ = one.client.amqp.create_task_message(uuid.uuid4().hex, "nap", [0], {})
            headers["timelimit"] = limit
            producer.publish(body, exchange="", routing_key=one.queue, headers=headers, serializer="json", **properties)
    until(lambda: one.tasks["done"] == len(limits))
    one.is_always(3, "alive")
    assert "missed something" not in one.output


@pytest.mark.parametrize(("pool", "how"), [("prefork", "wedge"), ("prefork", "wedge_in_a_client"), ("threads", "wedge")])
def test_a_loop_that_a_receiver_keeps_is_wedged_whatever_tasks_run_beside_it(worker, pool, how):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        env = {"SILENT_PORT": silent.getsockname()[1]}
        one = worker(pool=pool, slots=2, heartbeat_loop_budget=2, env=env).ready()
        one.send("nap", 60)
        until(lambda: one.tasks["running"] == 1)
        one.is_always(3, "alive")
        one.send(how)
        one.becomes("wedged", "alive")


def stack(*modules):
    """Frames of these modules, the innermost first."""
    return [SimpleNamespace(f_globals={"__name__": module}) for module in modules]


@pytest.mark.parametrize(
    ("modules", "waits"),
    [
        (["socket", "redis.connection", "kombu.transport.redis", "celery.worker.loops"], True),
        (["ssl", "amqp.transport", "kombu.transport.pyamqp", "kombu.asynchronous.hub"], True),
        (["redis.connection", "celery.backends.redis", "celery.worker.request"], True),
        # What traces a client.
        (["redis.connection", "opentelemetry.instrumentation.redis", "wrapt", "redis.client", "kombu.transport.redis"], True),
        (["kombu.utils.functional", "kombu.connection", "celery.worker.consumer.consumer"], True),
        (["select", "kombu.utils.eventio", "kombu.asynchronous.hub"], True),
        # Waits for another greenlet, which waits for the broker.
        (["gevent.event", "threading", "celery.worker.pidbox", "celery.bootsteps"], True),
        (["gevent.thread", "celery.events.dispatcher", "celery.worker.heartbeat", "celery.bootsteps"], True),
        (["shop.metrics", "celery.events.dispatcher", "celery.worker.heartbeat"], False),
        (["redis.connection", "shop.metrics", "celery.utils.dispatch.signal", "celery.worker.strategy"], False),
        (["psycopg.connection", "shop.consumer", "kombu.messaging", "kombu.transport.virtual.base"], False),
        (["shop.metrics", "celery.utils.dispatch.signal", "celery.worker.strategy"], False),
        (["shop.timers", "kombu.asynchronous.timer", "kombu.asynchronous.hub"], False),
        (["kombu.asynchronous.hub", "celery.worker.loops"], False),
        (["celery.worker.loops"], False),
    ],
)
def test_who_waits_for_a_broker_is_known_by_the_stack(modules, waits):
    assert _waits_for_a_broker(stack(*modules)) is waits


def test_a_loop_that_turns_while_its_loss_is_told_takes_it_back_with_its_next_turn():
    class Told:
        lost = False

        def broker_lost(self):
            watch.turn(None)
            self.lost = True

        def broker_back(self):
            self.lost = False

        def pulse(self):
            pass

    told = Told()
    watch = _Watch(told, 30, lambda frames: False, lambda frames: True)
    watch.lost()
    assert told.lost
    watch.turn(None)
    assert not told.lost


def test_the_watch_sleeps_while_the_loop_turns_and_looks_as_soon_as_it_is_late():
    looks, late = [], []
    watch = _Watch(SimpleNamespace(pulse=lambda: None), 30, lambda frames: False, lambda frames: False)
    look, watch.on_late = watch.look, lambda: late.append(time.monotonic())
    watch.look = lambda: (looks.append(None), look())
    watch.begin()
    try:
        for _ in range(20):
            watch.turn(None)
            time.sleep(0.1)
        assert 1 <= len(looks) <= 4 and not late
        until(lambda: len(late) > 2)
        first, _, third = late[:3]
        assert first - watch.turned < watch.late + 0.15
        assert third - first < 3 * watch.period
    finally:
        watch.end()


def test_a_pool_that_is_made_from_prefork_has_children_too():
    class Pool(prefork.TaskPool):
        pass

    assert _is_prefork(Pool.__new__(Pool))
    assert not _is_prefork(SoloPool.__new__(SoloPool))


def test_a_child_that_is_stopped_in_a_task_is_told_before_any_deadline_and_forgiven(worker, tmp_path):
    one = worker().ready()
    mark = tmp_path / "mark"
    one.send("nap", 9, str(mark))
    until(mark.exists)
    child = int(mark.read_text())
    until(lambda: one.tasks["running"] == 1)
    os.kill(child, signal.SIGSTOP)
    one.is_always(3, "alive")
    one.becomes("overdue", "alive")
    os.kill(child, signal.SIGCONT)
    one.becomes("alive", "overdue")
    until(lambda: one.tasks["running"] == 0)


def test_children_that_all_reach_their_limit_at_once_are_no_fault_while_celery_ends_them(worker):
    one = worker(slots=12).ready()
    for _ in range(12):
        one.send("nap", 60, time_limit=4)
    until(lambda: one.tasks["running"] == 12, timeout=40)
    nearest = one.tasks
    assert nearest["due_mono_ms"] - nearest["since_mono_ms"] == 5_200, "each by itself has what one has"
    end = time.monotonic() + 30
    while one.tasks["running"]:
        assert one.is_always(0.1, "alive") and time.monotonic() < end
    assert one.tasks["failed"] == 12


def test_a_child_that_is_killed_at_work_fails_its_task_and_the_worker_lives(worker, tmp_path):
    one = worker().ready()
    mark = tmp_path / "mark"
    one.send("nap", 60, str(mark))
    until(mark.exists)
    until(lambda: one.tasks["running"] == 1)
    os.kill(int(mark.read_text()), signal.SIGKILL)
    until(lambda: one.tasks["failed"] == 1)
    assert one.tasks["running"] == 0
    one.is_always(1, "alive")
    # Its place is taken.
    one.send("nap", 0)
    until(lambda: one.tasks["done"] == 1)


def test_an_outage_hides_no_task_that_is_overdue_and_counts_none_twice(worker, own_broker):
    one = worker(own_broker.url, slots=2, heartbeat_task_deadline=3).ready()
    one.send("nap", 60)
    one.becomes("overdue", "alive")
    one.send("nap", 60, time_limit=50)
    until(lambda: one.tasks["running"] == 2)
    own_broker.signal(signal.SIGSTOP)
    until(lambda: "broker" in harness.record(one.file))
    own_broker.signal(signal.SIGCONT)
    until(lambda: "broker" not in harness.record(one.file))
    one.is_always(2, "overdue")
    tasks = one.tasks
    assert (tasks["running"], tasks["done"], tasks["failed"]) == (2, 0, 0)


def test_a_child_that_is_stopped_before_it_can_accept_a_task_is_told_too(worker, tmp_path):
    one = worker().ready()
    mark = tmp_path / "mark"
    one.send("nap", 0, str(mark))
    until(mark.exists)
    until(lambda: one.tasks["done"] == 1)
    child = int(mark.read_text())
    os.kill(child, signal.SIGSTOP)
    one.is_always(2, "alive")
    one.send("nap", 1)
    one.becomes("overdue", "alive")
    os.kill(child, signal.SIGCONT)
    one.becomes("alive", "overdue")
    until(lambda: one.tasks["running"] == 0)


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_after_a_thousand_tasks_that_end_in_every_way_none_is_left_running(worker, pool):
    one = worker(pool=pool, slots=4, level="CRITICAL")
    until(lambda: one.verdict == "alive", timeout=40)
    ways = ["nap", "fails", "retries", "ignored", "rejected", "late"]
    with one.client.connection_for_write() as connection:
        producer = one.client.amqp.Producer(connection)
        for number in range(990):
            way = ways[number % len(ways)]
            one.send(way, *([0] if way == "nap" else []), producer=producer, expires=300)
        for _ in range(5):
            # Expired, so never run.
            one.send("nap", 0, producer=producer, expires=-1)
        if pool == "prefork":
            one.send("nap", 30, producer=producer, time_limit=1)
            one.send("nap", 30, producer=producer, soft_time_limit=1)
            one.send("dies", producer=producer)
            revoked = one.send("nap", 30, producer=producer)
            # All others have ended.
            until(lambda: one.tasks["done"] + one.tasks["failed"] == 990 + 165 + 3, timeout=60)
            one.client.control.revoke(revoked.id, terminate=True)
    # 165 of each way; a task that retries runs twice.
    ended = 990 + 165 + (4 if pool == "prefork" else 0)
    until(lambda: one.tasks["done"] + one.tasks["failed"] >= ended, timeout=60, what="all have ended")
    until(lambda: one.tasks["running"] == 0, what="nothing runs")
    time.sleep(1)
    tasks = one.tasks
    assert tasks["running"] == 0 and tasks["done"] + tasks["failed"] == ended, tasks
    # A retry is no failure, and neither is what the task itself wants to be ignored.
    assert tasks["failed"] == 165 * 3 + (4 if pool == "prefork" else 0), tasks
    assert one.verdict == "alive"


@pytest.mark.parametrize(
    ("fault", "pool"),
    [("killed", "prefork"), ("killed", "gevent"), ("frozen", "prefork"), ("frozen", "solo"), ("frozen", "threads"), ("frozen", "gevent")],
)
def test_a_broker_that_is_away_cuts_a_worker_off_and_never_kills_it(worker, own_broker, pool, fault):
    one = worker(own_broker.url, pool=pool, slots=2, heartbeat_loop_budget=4 if pool == "gevent" else 2, heartbeat_promise=3).ready()
    one.send("nap", 4, time_limit=5)
    one.send("nap", 6)
    until(lambda: one.tasks["running"] == (1 if pool == "solo" else 2))
    if fault == "killed":
        own_broker.signal(signal.SIGKILL)
        own_broker.exit_status()
    else:
        own_broker.signal(signal.SIGSTOP)
    # Longer than any limit and budget that it has.
    last = one.is_always(14 if pool == "solo" else 9, "alive", "cut off")
    if fault == "killed" or pool != "gevent":
        assert last == "cut off", one.output
        assert not harness.verdict(one.file, "--for", "ready").passes
    if fault == "killed":
        again = harness.Redis.__new__(harness.Redis)
        harness.Program.__init__(again, own_broker.command)
        try:
            one.becomes("alive", "cut off", timeout=40)
        finally:
            again.end()
    else:
        own_broker.signal(signal.SIGCONT)
        one.becomes("alive", "cut off", timeout=40)
        until(lambda: one.tasks["running"] == 0, timeout=20)


def test_a_loop_that_waits_for_a_greenlet_that_waits_for_the_broker_is_cut_off_for_as_long_as_that_is_down(worker, own_broker):
    arguments = ["--heartbeat-interval", 1]
    one = worker(own_broker.url, pool="gevent", heartbeat_loop_budget=4, heartbeat_promise=3, arguments=arguments).ready()
    events = Redis.from_url(own_broker.url).pubsub()
    events.psubscribe("*worker.heartbeat")
    until(lambda: (events.get_message(timeout=1) or {}).get("type") == "pmessage", what="Celery sends its own heartbeat")
    # The next one is sent meanwhile, and from then on holds the lock of all events until the broker is back.
    own_broker.signal(signal.SIGSTOP)
    one.is_always(1.5, "alive")
    own_broker.signal(signal.SIGKILL)
    own_broker.exit_status()
    # It comes to that wait within some 4 s; it was alive again after 10 s of it, and wedged after the loop's budget.
    assert one.is_always(18, "alive", "cut off") == "cut off", one.output
    own_broker.restart()
    one.becomes("alive", "cut off", timeout=40)


def test_a_rabbitmq_that_is_frozen_cuts_every_worker_off_with_celery_s_own_settings(worker, tmp_path):
    server = harness.start_rabbitmq(tmp_path)
    try:
        workers = {pool: worker(server.url, pool=pool, slots=2) for pool in POOLS}
        for one in workers.values():
            one.ready()
            assert one.client.connection().heartbeat is None, "nobody has set it"
            one.send("nap", 12)
        for pool in ("prefork", "threads", "gevent"):
            until(lambda one=workers[pool]: one.tasks["running"] == 1)
        server.signal_all(signal.SIGSTOP)
        # 5 s until it is asked, 5 s for an answer, and the promise; in solo the task first.
        for pool, one in workers.items():
            one.becomes("cut off", "alive", timeout=60)
            assert not harness.verdict(one.file, "--for", "ready").passes
            assert "Connection to broker lost" not in one.output, f"{pool}: nor has Celery noticed"
        for one in workers.values():
            one.is_always(1, "cut off")
        server.signal_all(signal.SIGCONT)
        for one in workers.values():
            one.becomes("alive", "cut off", timeout=40)
            one.send("nap", 0)
            until(lambda one=one: one.tasks["done"] == 2, timeout=40)
            assert "missed something" not in one.output
    finally:
        server.end()


def test_queues_that_come_and_go_while_a_worker_runs_are_shown(worker, broker):
    one = worker(heartbeat_redis_url=broker.url, heartbeat_cluster="moving").ready()
    mail = f"{one.queue}-mail"

    def ready(queue):
        # Those that take work from it, by the moment until which that is so.
        client = Redis.from_url(broker.url)
        now = client.time()[0] * 1_000
        return client.zcount(f"heartbeat:{{moving}}:queue:{queue}", now, "+inf")

    until(lambda: ready(one.queue) == 1)
    one.client.control.add_consumer(mail, destination=[one.name])
    until(lambda: harness.record(one.file)["queues"] == [one.queue, mail])
    until(lambda: ready(mail) == 1)
    one.client.control.cancel_consumer(one.queue, destination=[one.name])
    until(lambda: harness.record(one.file)["queues"] == [mail])
    until(lambda: ready(one.queue) == 0)
    assert ready(mail) == 1
    # More than a record can hold.
    for number in range(8):
        one.client.control.add_consumer(f"{number}-" + "x" * 500, destination=[one.name])
    one.says("the record keeps the queues that it had")
    assert one.verdict == "alive"


def test_a_worker_that_starts_without_its_broker_is_starting_until_it_has_it(start, tmp_path):
    port = harness.free_port()
    one = start(Worker, tmp_path, f"redis://127.0.0.1:{port}/0", heartbeat_start_deadline=2)
    until(one.file.exists, timeout=40)
    one.is_always(6, "starting")
    server = start(harness.Program, [harness.REDIS_SERVER, "--port", port, "--bind", "127.0.0.1", "--dir", tmp_path, "--save", ""])
    one.becomes("alive", "starting", timeout=40)
    server.end()


def test_a_start_that_hangs_after_a_slow_connection_is_told_by_its_deadline(worker, own_broker):
    own_broker.signal(signal.SIGSTOP)
    one = worker(own_broker.url, env={"HANG": 1}, heartbeat_start_deadline=2)
    until(lambda: one.file.exists() and "broker" in harness.record(one.file), timeout=40, what="it waits for its broker")
    own_broker.signal(signal.SIGCONT)
    one.says("hanging")
    # And not only after its loop's budget, which is 30 s.
    one.becomes("start overdue", "starting", timeout=15)


@pytest.mark.parametrize("obstacle", ["folder", "other", "nowhere"])
def test_a_file_that_cannot_be_had_keeps_no_worker_from_its_work(worker, tmp_path, obstacle):
    file = tmp_path / "taken" / "beat" if obstacle == "nowhere" else tmp_path / "taken"
    if obstacle == "folder":
        file.mkdir()
    elif obstacle == "other":
        first = worker(file=file).ready()
    one = worker(file=file)
    one.says(" ready.")
    mark = tmp_path / "mark"
    one.send("nap", 0, str(mark))
    until(mark.exists, timeout=20)

    def told():
        return [line for line in one.lines if str(file) in line]

    until(told)
    assert len(told()) == 1 and "WARNING" in told()[0], told()
    # Once it is no longer in the way, the worker has its file: whatever it was.
    if obstacle == "nowhere":
        file.parent.mkdir()
    elif obstacle == "folder":
        file.rmdir()
    else:
        assert harness.record(file)["pid"] == first.pid
        first.signal(signal.SIGTERM)
        first.exit_status()
    until(lambda: file.exists() and harness.record(file)["pid"] == one.pid)
    assert one.verdict == "alive"
    until(lambda: [line for line in told() if "is written again" in line])


def test_settings_come_from_a_namespace_and_from_the_environment(worker, tmp_path):
    file = tmp_path / "beat-%n-%i"
    env = {"HEARTBEAT_CLUSTER": "shop", "HEARTBEAT_QUEUES": "mail", "HEARTBEAT_INTERVAL": "100ms"}
    port = harness.free_port()
    env |= {"HEARTBEAT_START_DEADLINE": "5m", "HEARTBEAT_TASK_DEADLINE": "9s", "HEARTBEAT_DRAIN_DEADLINE": "1m30s"}
    env |= {"HEARTBEAT_ENDPOINT": f"127.0.0.1:{port}"}
    names = {"heartbeat_file": None, "heartbeat_interval": None, "heartbeat_promise": None}
    one = worker(env=env, CELERY_HEARTBEAT_FILE=str(file), CELERY_HEARTBEAT_TASK_DEADLINE=7, **names)
    one.file = tmp_path / f"beat-{one.queue}-0"
    starting = until(lambda: one.file.exists() and harness.record(one.file), timeout=40)
    if starting["status"] == "starting":
        assert 290_000 < starting["until_mono_ms"] - starting["at_mono_ms"] <= 300_000
    one.ready()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/livez", timeout=10) as answer:
        assert answer.status == 200
    record = harness.record(one.file)
    assert (record["cluster"], record["queues"], record["interval_ms"], record["promise_ms"]) == ("shop", ["mail"], 100, 30_000)
    one.send("nap", 3)
    nearest = until(lambda: one.tasks if "name" in one.tasks else None)
    assert nearest["due_mono_ms"] - nearest["since_mono_ms"] == 7_000, "what is set goes before the environment"
    one.signal(signal.SIGTERM)
    one.becomes("draining", "alive")
    record = harness.record(one.file)
    assert 80_000 < record["until_mono_ms"] - record["at_mono_ms"] <= 90_000


@pytest.mark.parametrize("name", ["START_DEADLINE", "TASK_DEADLINE", "DRAIN_DEADLINE", "ENDPOINT"])
def test_a_variable_that_cannot_be_is_told_and_stops_the_start(worker, name):
    one = worker(env={f"HEARTBEAT_{name}": "soon"})
    assert one.exit_status(40) == 1, one.output
    assert "soon" in one.output and ("endpoint" if name == "ENDPOINT" else f"HEARTBEAT_{name}") in one.output


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"heartbeat_promise": "soon"}, "heartbeat_promise is a number of seconds or a timedelta, not 'soon'"),
        ({"heartbeat_promise": 0.1}, "the promise is two intervals at least"),
        ({"heartbeat_redis_url": "http://S3cret@x"}, "the Redis URL is refused"),
        ({"heartbeat_file": "/tmp/%n/%(x", "heartbeat_cluster": 7}, "heartbeat_cluster is a text, not int"),
    ],
)
def test_a_setting_that_cannot_be_is_told_and_stops_the_start(worker, setting, words):
    one = worker(**setting)
    assert one.exit_status(40) == 1, one.output
    assert words in one.output and "S3cret" not in one.output


def test_a_worker_signs_with_the_key_in_its_environment(worker, signing):
    one = worker(signing.url, pool="solo", env=signing.environment, heartbeat_promise=300).ready()
    assert "mac" not in harness.record(one.file), "a file is not signed"
    signing.play(one)


def test_a_key_that_cannot_be_is_told_stops_the_start_and_is_not_shown(worker):
    key, words = next(iter(NO_KEYS.items()))
    one = worker(pool="solo", env={"HEARTBEAT_KEY": key})
    assert one.exit_status(40) == 1, one.output
    assert words in one.output and key not in one.output


def test_a_cold_shutdown_drains_too_and_removes_the_file(worker):
    one = worker(worker_soft_shutdown_timeout=3).ready()
    one.send("nap", 30)
    until(lambda: one.tasks["running"] == 1)
    one.signal(signal.SIGQUIT)
    one.becomes("draining", "alive")
    record = harness.record(one.file)
    assert 5_000 < record["until_mono_ms"] - record["at_mono_ms"] <= 13_000
    one.exit_status(30)
    assert not one.file.exists(), one.output


def test_further_signals_while_it_drains_change_nothing_but_how_it_ends(worker):
    one = worker(heartbeat_drain_deadline=60, worker_soft_shutdown_timeout=2).ready()
    one.send("nap", 60)
    until(lambda: one.tasks["running"] == 1)
    one.signal(signal.SIGTERM)
    one.becomes("draining", "alive")
    until_when = harness.record(one.file)["until_mono_ms"]
    one.signal(signal.SIGTERM)
    one.is_always(2, "draining")
    assert harness.record(one.file)["until_mono_ms"] == until_when
    one.signal(signal.SIGQUIT)
    end = time.monotonic() + 30
    while one.process.poll() is None:
        seen = harness.verdict(one.file).name
        assert seen in ("draining", "missing", "gone") and time.monotonic() < end, (seen, one.output)
    assert not one.file.exists(), one.output


def test_an_interrupt_while_it_drains_ends_it_and_removes_the_file(worker):
    one = worker(worker_soft_shutdown_timeout=3).ready()
    one.send("nap", 60)
    until(lambda: one.tasks["running"] == 1)
    one.signal(signal.SIGINT)
    one.becomes("draining", "alive")
    assert "until_mono_ms" not in harness.record(one.file)
    one.signal(signal.SIGINT)
    # A cold one has a deadline of its own.
    until(lambda: "until_mono_ms" in harness.record(one.file))
    one.exit_status(30)
    assert not one.file.exists(), one.output


def test_a_shutdown_by_remote_control_drains_too(worker):
    one = worker(pool="threads").ready()
    one.send("nap", 3)
    until(lambda: one.tasks["running"] == 1)
    one.client.control.shutdown(destination=[one.name])
    one.becomes("draining", "alive")
    assert one.exit_status() == 0
    assert not one.file.exists()
