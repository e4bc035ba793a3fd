"""The kinds of check `celery` and `django-q`, asked by `checker run` about real workers; each passes, fails and comes back."""

import contextlib
import json
import os
import signal
import sqlite3
import uuid

import psycopg
import pytest
import redis

import harness
from asked import Asked
from celery_worker import CeleryWorker
from djangoq import SECRET_KEY, Site
from harness import until


@pytest.mark.parametrize("over", ["redis", "amqp"])
def test_celerys_workers_are_asked_over_their_broker(request, start, tmp_path, over):
    broker = request.getfixturevalue("broker" if over == "redis" else "rabbitmq")
    host = f"h{uuid.uuid4().hex[:8]}"
    worker = start(CeleryWorker, broker, host=host, pool="prefork", CONTROL_EXCHANGE=host).ready()
    of = {"broker": broker.url, "exchange": host, "timeout": "3s"}
    one = Asked(tmp_path, "celery", **of, queues={worker.queue: 1}, expect=[worker.name], host=host)
    heard = Asked(tmp_path, "celery", **of | {"timeout": "5s"}, events=True, expect=[worker.name], min_percent=50, expected=2)
    two = Asked(tmp_path, "celery", **of, min=2, queues={"nobodys": 1}, expect=["w@elsewhere"])
    one.until_passes()
    assert heard().passes
    assert two().reason == "min 2: 1 worker takes work; queue nobodys needs 1: no workers take work; w@elsewhere does not count"

    worker.signal(signal.SIGSTOP)
    frozen = one()
    assert frozen.status == "fail" and f"queue {worker.queue} needs 1: no workers take work" in frozen.reason, frozen
    assert Asked(tmp_path, "celery", **of, min=0)().passes, "the broker is there"
    assert heard().reason == f"50 % of 2 is 1: no workers take work; {worker.name} does not count"
    worker.signal(signal.SIGCONT)
    one.until_passes()
    worker.end()
    assert "min 1: no workers take work" in one.until_fails().reason


def test_celerys_result_backend_is_a_reason_of_its_own(own_broker, broker, tmp_path, start):
    def asked(backend):
        return Asked(tmp_path, "celery", timeout="2s", broker=broker.url, min=0, result_backend=backend)

    kept = asked(own_broker.url)
    assert kept().passes
    own_broker.signal(signal.SIGSTOP)
    assert kept().reason == "the result backend: Redis did not answer in time"
    own_broker.signal(signal.SIGCONT)
    kept.until_passes()
    denied = asked(f"redis://:S3cret@127.0.0.1:{own_broker.port}/0")()
    assert denied.reason == "the result backend: Redis denied access" and "S3cret" not in denied.output, denied
    own_broker.end()
    assert kept().reason == "the result backend: Redis cannot be reached"

    server = start(harness.Postgres)
    until(server.answers, timeout=60, what=f"{server.command} answers")
    database = f"db+{server.url.replace('postgres://', 'postgresql+psycopg://')}"
    kept = asked(database)
    kept.until_passes()
    denied = asked(database.replace(server.password, "S3cret-not"))()
    assert denied.reason == "the result backend: access is denied" and "S3cret" not in denied.output, denied
    server.kill()
    assert kept().reason == "the result backend: no connection can be made"
    server.restart()
    kept.until_passes()


def backend_of(over, request, start, own_broker):
    """A result backend: as Celery is told of it, and as we are."""
    if over in ("redis", "redis results of amqp"):
        return own_broker.url, own_broker.url
    if over == "rpc":
        return "rpc://", "rpc://"
    server = start(harness.Postgres)
    until(server.answers, timeout=60, what=f"{server.command} answers")
    database = f"db+{server.url.replace('postgres://', 'postgresql+psycopg://')}"
    return database, database


@pytest.mark.parametrize("over", ["redis", "redis results of amqp", "rpc", "postgres results of amqp"])
def test_a_task_goes_to_a_worker_and_its_result_comes_back(request, start, own_broker, tmp_path, over):
    broker = own_broker if over == "redis" else request.getfixturevalue("rabbitmq")
    theirs, ours = backend_of(over, request, start, own_broker)
    worker = start(CeleryWorker, broker, pool="prefork", RESULT_BACKEND=theirs).ready()
    of = {"broker": broker.url, "min": 0, "result_backend": ours, "queue": worker.queue}
    trip = Asked(tmp_path, "celery", **of, task="shop.ping", timeout="8s")
    trip.until_passes()
    assert trip().passes
    # Empty where the results are elsewhere, too.
    assert list(redis.Redis.from_url(own_broker.url).scan_iter("celery-task-meta-*")) == []

    broken = Asked(tmp_path, "celery", **of, task="shop.broken", timeout="8s")()
    assert broken.reason.startswith("the task shop.broken failed"), broken
    unknown = Asked(tmp_path, "celery", **of, task="shop.nothing", timeout="8s")()
    assert unknown.reason.startswith("the task shop.nothing failed"), unknown

    in_time = Asked(tmp_path, "celery", **of, task="shop.ping", timeout="2s")
    for pid in list(harness.session_members(worker.pid)):
        os.kill(pid, signal.SIGSTOP)
    assert in_time().reason == "the task shop.ping was not done in time"
    for pid in list(harness.session_members(worker.pid)):
        os.kill(pid, signal.SIGCONT)
    trip.until_passes()

    worker.end()
    wanted = "the task shop.ping was not done in time" if over == "redis" else f"the task shop.ping: queue {worker.queue} has no consumer"
    until(lambda: in_time().reason == wanted, timeout=30, what=in_time)
    nothing_waits(broker, worker.queue, over)
    start(CeleryWorker, broker, queue=worker.queue, pool="prefork", RESULT_BACKEND=theirs).ready()
    trip.until_passes()


def nothing_waits(broker, queue, over):
    """No probe of a dead fleet waits for a worker, and no result that was read is kept."""
    if over == "redis":
        client = redis.Redis.from_url(broker.url)
        assert client.llen(queue) == 0
        assert all(client.ttl(key) > 0 for key in client.scan_iter("celery-task-meta-*")), "what came too late expires"
    else:
        told = until(lambda: [line for line in broker.ctl("list_queues", "name", "messages").splitlines() if line.startswith(queue)])
        assert told == [f"{queue}\t0"], told


def test_a_result_backend_that_is_frozen_or_has_no_result_fails_the_task_in_time(start, broker, own_broker, tmp_path):
    worker = start(CeleryWorker, broker, pool="prefork").ready()
    of = {"broker": broker.url, "min": 0, "queue": worker.queue, "task": "shop.ping", "timeout": "2s"}
    elsewhere = Asked(tmp_path, "celery", **of, result_backend=own_broker.url)
    assert elsewhere().reason == "the task shop.ping was not done in time", "its result is in another Redis"
    own_broker.signal(signal.SIGSTOP)
    assert elsewhere().reason == "the result backend: Redis did not answer in time"
    own_broker.signal(signal.SIGCONT)
    file = f"db+sqlite:///{tmp_path}/results.db"
    missing = Asked(tmp_path, "celery", **of, result_backend=file)()
    assert missing.status == "fail" and missing.reason.startswith("the result backend: "), missing


def test_the_result_of_a_task_in_a_sqlite_file_is_read_and_deleted(start, broker, tmp_path):
    file = tmp_path / "results.db"
    sqlite3.connect(file).close()
    backend = f"db+sqlite:///{file}"
    worker = start(CeleryWorker, broker, pool="prefork", RESULT_BACKEND=backend).ready()
    trip = Asked(tmp_path, "celery", broker=broker.url, min=0, queue=worker.queue, task="shop.ping", timeout="8s", result_backend=backend)
    trip.until_passes()
    assert trip().passes
    with sqlite3.connect(file) as results:
        assert results.execute("SELECT count(*) FROM celery_taskmeta").fetchall() == [(0,)]


@pytest.mark.parametrize("prefix", ["shop", "shop:"])
def test_the_result_of_a_task_under_a_prefix_is_read_and_deleted(start, own_broker, tmp_path, prefix):
    worker = start(CeleryWorker, own_broker, pool="prefork", RESULT_KEY_PREFIX=prefix).ready()
    of = {"broker": own_broker.url, "min": 0, "queue": worker.queue, "task": "shop.ping", "result_backend": own_broker.url}
    trip = Asked(tmp_path, "celery", **of, result_key_prefix=prefix, timeout="8s")
    trip.until_passes()
    assert trip().passes
    client = redis.Redis.from_url(own_broker.url, decode_responses=True)
    assert list(client.scan_iter("*celery-task-meta-*")) == []
    assert Asked(tmp_path, "celery", **of, timeout="2s")().reason == "the task shop.ping was not done in time"
    (missed,) = client.scan_iter("*celery-task-meta-*")
    assert missed.startswith("shop"), missed


def test_the_result_of_a_task_in_djangos_database_is_read_and_deleted(start, broker, tmp_path, database):
    django, url = database
    backend = f"db+sqlite:///{django['NAME']}" if url.startswith("sqlite") else f"db+{url.replace('postgres://', 'postgresql://')}"
    worker = start(CeleryWorker, broker, pool="prefork", RESULT_BACKEND="django-db", DJANGO_DATABASE=json.dumps(django)).ready()
    of = {"broker": broker.url, "min": 0, "queue": worker.queue, "result_backend": backend}
    table = "django_celery_results_taskresult"
    trip = Asked(tmp_path, "celery", **of, result_table=table, task="shop.ping", timeout="8s")
    trip.until_passes()
    assert trip().passes
    broken = Asked(tmp_path, "celery", **of, result_table=table, task="shop.broken", timeout="8s")()
    assert broken.reason == "the task shop.broken failed", broken
    connect = sqlite3.connect(django["NAME"]) if url.startswith("sqlite") else psycopg.connect(url)
    with contextlib.closing(connect) as connection:
        assert connection.cursor().execute(f"SELECT count(*) FROM {table}").fetchall() == [(0,)]
    elsewhere = Asked(tmp_path, "celery", **of, task="shop.ping", timeout="2s")()
    assert elsewhere.reason == "the result backend: a table is missing" and "celery_taskmeta" in elsewhere.output, elsewhere


def test_a_task_to_a_queue_that_is_not_there_says_so(rabbitmq, tmp_path):
    trip = Asked(tmp_path, "celery", broker=rabbitmq.url, min=0, queue="nobodys", task="shop.ping", result_backend="rpc://")
    for _ in range(2):
        assert trip().reason == "the task shop.ping: queue nobodys is not there"


def test_a_frozen_broker_fails_the_check_of_celery_in_time(own_broker, rabbitmq, tmp_path):
    for url, freeze in ((own_broker.url, own_broker.pid), (rabbitmq.url, rabbitmq.beam())):
        asked = Asked(tmp_path, "celery", timeout="1500ms", broker=url, min=0)
        asked.until_passes()
        os.kill(freeze, signal.SIGSTOP)
        try:
            told = asked()
        finally:
            os.kill(freeze, signal.SIGCONT)
        assert told.status == "fail" and "in time" in told.reason, told
        asked.until_passes()


@pytest.mark.parametrize("place", ["broker", "cache"])
def test_django_qs_cluster_is_read_where_its_stats_are(start, own_broker, tmp_path, place):
    if place == "broker":
        shop, where = Site(start, tmp_path, [], {"redis": own_broker.url}), {"redis": own_broker.url}
    else:
        cache = {"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": "q cache"}
        shop = Site(start, tmp_path, [], {"orm": "default", "poll": 0.2}, cache)
        where = {"cache": f"sqlite://{tmp_path}/db.sqlite3", "cache_table": "q cache"}
    shop.migrated()

    def asked(**settings):
        return Asked(tmp_path, "django-q", **({"cluster": "shop", "secret_key": SECRET_KEY} | where | settings))

    here = asked(host="self")
    assert here().reason == "min 1: no workers take work"
    cluster = shop.cluster()
    here.until_passes()
    assert asked(host="elsewhere")().reason == "min 1: no workers take work"
    assert asked(min=2)().reason == "min 2: 1 worker takes work"
    wrong = asked(secret_key="S3cret")()
    assert wrong.status == "fail" and "S3cret" not in wrong.output and SECRET_KEY not in wrong.output, wrong
    if place == "broker":
        own_broker.signal(signal.SIGSTOP)
        assert asked(timeout="1s")().status == "unknown"
        own_broker.signal(signal.SIGCONT)
        here.until_passes()
    cluster.signal(signal.SIGTERM)
    here.until_fails()
    assert cluster.exit_status(40) == 0, cluster.output
