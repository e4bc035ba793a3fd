"""The kinds of check `celery` and `django-q`, asked by `checker run` about real workers; each passes, fails and comes back."""

import os
import signal
import uuid

import pytest

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
    two = Asked(tmp_path, "celery", **of, min=2, queues={"nobodys": 1}, expect=["w@elsewhere"])
    one.until_passes()
    assert two().reason == "min 2: 1 worker takes work; queue nobodys needs 1: no workers take work; w@elsewhere does not count"

    worker.signal(signal.SIGSTOP)
    frozen = one()
    assert frozen.status == "fail" and f"queue {worker.queue} needs 1: no workers take work" in frozen.reason, frozen
    assert Asked(tmp_path, "celery", **of, min=0)().passes, "the broker is there"
    worker.signal(signal.SIGCONT)
    one.until_passes()
    worker.end()
    assert "min 1: no workers take work" in one.until_fails().reason


def test_celerys_result_backend_is_a_reason_of_its_own(own_broker, broker, tmp_path, start):
    def asked(backend):
        return Asked(tmp_path, "celery", timeout="2s", broker=broker.url, min=0, result_backend=backend)

    redis = asked(own_broker.url)
    assert redis().passes
    own_broker.signal(signal.SIGSTOP)
    assert redis().reason == "the result backend: Redis did not answer in time"
    own_broker.signal(signal.SIGCONT)
    redis.until_passes()
    denied = asked(f"redis://:S3cret@127.0.0.1:{own_broker.port}/0")()
    assert denied.reason == "the result backend: Redis denied access" and "S3cret" not in denied.output, denied
    own_broker.end()
    assert redis().reason == "the result backend: Redis cannot be reached"

    server = start(harness.Postgres)
    until(server.answers, timeout=60, what=f"{server.command} answers")
    database = f"db+{server.url.replace('postgres://', 'postgresql+psycopg://')}"
    asked(database).until_passes()
    denied = asked(database.replace(server.password, "S3cret-not"))()
    assert denied.reason == "the result backend: access is denied" and "S3cret" not in denied.output, denied
    server.end()
    assert asked(database)().reason == "the result backend: no connection can be made"


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
