"""`checker cluster --source celery` on real Celery workers, over Redis and over RabbitMQ; where it shows the difference,
beside Celery's own ping (`app.control.ping`) of the same workers."""

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import pytest

import harness
from celery_worker import CeleryWorker
from certificates import Authority
from harness import CHECKER, until

HERE = Path(__file__).parent


@dataclass
class Told:
    code: int
    answer: dict
    output: str
    seconds: float

    @property
    def status(self):
        return self.answer["status"]

    @property
    def reason(self):
        return self.answer["reason"]


def ask(url, *words):
    """What `checker cluster` answers; the URL, which may hold a password, goes through the environment."""
    command = [CHECKER, "cluster", "orders", "--source", "celery", "--format", "json", *map(str, words)]
    begun = time.monotonic()
    done = subprocess.run(
        command, env=harness.environment(CELERY_BROKER_URL=url), capture_output=True, text=True, timeout=60, check=False
    )
    seconds = time.monotonic() - begun
    assert done.returncode in (0, 1), f"{command}: exit {done.returncode}\n{done.stdout}{done.stderr}"
    return Told(done.returncode, json.loads(done.stdout), done.stdout + done.stderr, seconds)


@dataclass
class Cluster:
    """Two workers, one on each of two queues, that listen under a control exchange and on a host of their own."""

    broker: object
    start: object
    host: str
    workers: dict

    def add(self, queue, **keywords):
        name = f"{queue}-{self.host}"
        worker = self.start(
            CeleryWorker, self.broker, queue=name, host=self.host, CONTROL_EXCHANGE=self.host, **{"pool": "prefork"} | keywords
        )
        self.workers[queue] = worker
        return worker

    def ask(self, *words):
        return ask(self.broker.url, "--exchange", self.host, *words)

    def listen(self, *words):
        return ask(self.broker.url, "--events", "--host", self.host, *words)

    def queues(self):
        return [word for worker in self.workers.values() for word in ("--queue", worker.queue)]


@pytest.fixture(params=["redis", "amqp"])
def cluster(request, start):
    broker = request.getfixturevalue("broker" if request.param == "redis" else "rabbitmq")
    cluster = Cluster(broker, start, f"h{uuid.uuid4().hex[:8]}", {})
    for queue in ("mail", "pdf"):
        cluster.add(queue)
    for worker in cluster.workers.values():
        worker.ready()
    until(lambda: cluster.ask("--min", 2).code == 0, timeout=30, what="both workers are there")
    return cluster


def test_a_queue_that_loses_its_only_worker_is_named(cluster):
    told = cluster.ask(*cluster.queues(), "--list")
    assert told.code == 0, told
    assert [worker["queues"] for worker in told.answer["workers"]] == [[worker.queue] for worker in cluster.workers.values()]

    lost = cluster.workers["pdf"]
    lost.end()

    told = until(lambda: (told := cluster.ask(*cluster.queues(), "--timeout", "3s")).code == 1 and told, timeout=60)
    assert told.reason.startswith(f"queue {lost.queue} needs 1: no workers take work"), told
    told = cluster.ask("--expect", lost.name, "--timeout", "3s")
    assert (told.code, told.answer["missing"]) == (1, [lost.name]), told
    assert cluster.ask("--expect", cluster.workers["mail"].name, "--host", cluster.host).code == 0
    assert cluster.ask("--host", "elsewhere", "--timeout", "3s").code == 1


def test_a_busy_worker_replies_and_a_stopped_one_does_not(cluster, tmp_path):
    busy = cluster.workers["mail"]
    mark = tmp_path / "begun"
    busy.send_work(120, mark)
    until(mark.exists, timeout=30, what="the task runs")
    assert cluster.ask("--expect", busy.name, "--queue", busy.queue).code == 0

    busy.signal(signal.SIGSTOP)

    told = cluster.ask("--expect", busy.name, "--timeout", "3s")
    assert (told.code, told.answer["fresh"], told.answer["missing"]) == (1, 1, [busy.name]), told
    if cluster.broker.url.startswith("redis"):
        assert told.reason.endswith("; 1 more listens and has not replied"), told
    told = cluster.ask("--min", 1)
    assert told.code == 0, "who is there is enough, and is not kept waiting for who is not"
    busy.signal(signal.SIGCONT)
    until(lambda: cluster.ask("--expect", busy.name).code == 0, timeout=30)


def test_what_workers_say_of_themselves_is_enough_to_count_them(cluster):
    told = cluster.listen("--min", 2, "--list")
    assert told.code == 0, told
    assert [worker["tasks"]["running"] for worker in told.answer["workers"]] == [0, 0], told

    stopped, ended = cluster.workers.values()
    stopped.signal(signal.SIGSTOP)
    told = cluster.listen("--min", 2)
    assert (told.code, told.answer["fresh"]) == (1, 1), told
    stopped.signal(signal.SIGCONT)
    until(lambda: cluster.listen("--min", 2).code == 0, timeout=30)

    listening = threading.Timer(0.5, lambda: ended.signal(signal.SIGTERM))
    listening.start()
    told = cluster.listen("--expect", ended.name, "--list")
    assert told.code == 1 and ended.name in told.answer["missing"], told


def left_behind(broker):
    """All that an asker could leave at a broker, itself among it."""
    if broker.url.startswith("redis"):
        cli = ["redis-cli", "-u", broker.url]
        told = [subprocess.run([*cli, *words], capture_output=True, text=True, check=True).stdout for words in (["KEYS", "*"], ["CLIENT", "LIST"])]
        keys = {key for key in told[0].split() if "checker" in key}
        return keys, {line.split(" addr=")[0] for line in told[1].splitlines() if "cmd=client" not in line}
    return {broker.ctl(*words) for words in (["list_queues", "name"], ["list_connections", "name"], ["list_bindings"], ["list_exchanges", "name"])}


def test_nothing_is_left_at_the_broker(cluster):
    before = left_behind(cluster.broker)
    assert cluster.ask(*cluster.queues(), "--list").code == 0
    assert cluster.listen().code == 0
    assert cluster.ask("--min", 9, "--timeout", "2s").code == 1
    until(lambda: left_behind(cluster.broker) == before, timeout=30, what=f"{before} again")


@pytest.mark.parametrize("cluster", ["redis"], indirect=True)
def test_a_worker_that_wakes_up_late_leaves_nothing_either(cluster):
    """Its replies come when nobody waits for them any more. A list that they went to would stay for ever."""
    sleeper = cluster.workers["pdf"]
    sleeper.signal(signal.SIGSTOP)
    for _ in range(3):
        assert cluster.ask("--min", 2, "--timeout", "1s").code == 1
    sleeper.signal(signal.SIGCONT)
    until(lambda: cluster.ask("--min", 2).code == 0, timeout=30)
    until(lambda: left_behind(cluster.broker)[0] == set(), timeout=30)


def inspect_ping(cluster):
    """Celery's own ping, told the same names."""
    script = f"import sys; from celery import Celery; app = Celery(broker={cluster.broker.url!r}); app.conf.control_exchange = {cluster.host!r}; print(app.control.ping(timeout=1), flush=True)"
    return [sys.executable, "-c", script]


def test_it_finds_what_celerys_own_ping_finds_in_a_fraction_of_the_time(cluster):
    begun = time.monotonic()
    theirs = subprocess.run(inspect_ping(cluster), capture_output=True, text=True, timeout=60, check=True).stdout
    theirs_took = time.monotonic() - begun
    ours = cluster.ask("--list")
    names = {worker["worker"] for worker in ours.answer["workers"]}
    assert names == {worker.name for worker in cluster.workers.values()}
    assert all(name in theirs for name in names), theirs
    assert ours.seconds < theirs_took / 2, (ours.seconds, theirs_took)


def test_a_key_prefix_and_a_database_are_part_of_the_names(own_broker, start):
    own_broker.url = own_broker.url.removesuffix("0") + "3"
    worker = start(CeleryWorker, own_broker, KEY_PREFIX="shop:").ready()
    until(lambda: ask(own_broker.url, "--key-prefix", "shop:", "--expect", worker.name).code == 0, timeout=30)
    assert ask(own_broker.url, "--key-prefix", "shop:", "--events").code == 0
    assert "nobody listens" in ask(own_broker.url).reason
    assert "nobody listens" in ask(own_broker.url.removesuffix("3") + "0", "--key-prefix", "shop:").reason


def test_a_key_prefix_is_taken_as_it_stands_and_not_for_a_pattern(own_broker, start):
    """Events are listened to by a pattern, and in it the prefix of this worker would match that of another."""
    worker = start(CeleryWorker, own_broker, KEY_PREFIX="shop:").ready()
    starred = start(CeleryWorker, own_broker, KEY_PREFIX="s*[o]?\\:").ready()

    def heard(prefix):
        told = ask(own_broker.url, "--key-prefix", prefix, "--events", "--list")
        return [listed["worker"] for listed in told.answer.get("workers", [])]

    until(lambda: heard("shop:") == [worker.name], timeout=30)
    until(lambda: heard("s*[o]?\\:") == [starred.name], timeout=30)
    assert heard("s*:") == heard("sh[o]p:") == heard("sho?:") == []


# --- Redis over TLS, and behind Sentinel ---------------------------------------------------------------------------


def test_a_redis_over_tls_with_a_private_authority_and_a_client_certificate(start, tmp_path):
    authority = Authority(tmp_path)
    certificate, key = authority.sign("server", "DNS:localhost")
    client = authority.sign("client")
    port = harness.free_port()
    tls = ["--tls-port", port, "--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file", authority.path]
    server = harness.start_redis(tmp_path, *tls)
    try:
        files = f"ssl_ca_certs={authority.path}&ssl_certfile={client[0]}&ssl_keyfile={client[1]}"
        # As Celery takes it, and so do we.
        server.url = f"rediss://localhost:{port}/0?ssl_cert_reqs=required&{files}"
        worker = start(CeleryWorker, server).ready()
        for url in (server.url, f"rediss://localhost:{port}/0?ca={authority.path}&cert={client[0]}&key={client[1]}"):
            until(lambda url=url: ask(url, "--expect", worker.name, "--queue", worker.queue).code == 0, timeout=30)
            assert ask(url, "--expect", worker.name, "--events").code == 0
        stranger = Authority(tmp_path, "stranger")
        is_unknown(server.url.replace(str(authority.path), str(stranger.path)))
        is_unknown(f"rediss://:S3cret@localhost:{port}/0?ca={authority.path}")
        worker.end()
        told = ask(server.url, "--expect", worker.name, "--timeout", "2s")
        assert (told.code, told.status, told.answer["missing"]) == (1, "fail", [worker.name]), told
    finally:
        server.end()


def test_a_redis_behind_sentinel_is_found_by_celerys_own_url(own_broker, start, tmp_path):
    sentinels = [start(harness.Sentinel, tmp_path, own_broker, "orders") for _ in range(2)]
    for sentinel in sentinels:
        until(sentinel.answers, what=f"{sentinel.command} answers")
    port = own_broker.port
    own_broker.url = ";".join(f"sentinel://127.0.0.1:{sentinel.port}/2" for sentinel in sentinels)
    master = ("--master-name", "orders")
    worker = start(CeleryWorker, own_broker, MASTER_NAME="orders").ready()
    until(lambda: ask(own_broker.url, *master, "--expect", worker.name, "--queue", worker.queue).code == 0, timeout=30)
    assert ask(own_broker.url, *master, "--expect", worker.name, "--events").code == 0
    ours = f"redis+sentinel://127.0.0.1:{sentinels[0].port}/orders/2"
    assert ask(ours, "--expect", worker.name).code == 0
    assert ask(f"redis://127.0.0.1:{port}/2", "--expect", worker.name).code == 0, "there the worker is"
    one_gone = f"sentinel://127.0.0.1:{harness.free_port()}/2;{own_broker.url}"
    assert ask(one_gone, *master, "--expect", worker.name).code == 0

    assert ask(own_broker.url, "--master-name", "nobody", "--timeout", "2s").status == "unknown"
    command = [CHECKER, "cluster", "orders", "--source", "celery"]
    done = subprocess.run(command, env=harness.environment(CELERY_BROKER_URL=own_broker.url), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and "give its master_name" in done.stderr, done
    own_broker.signal(signal.SIGSTOP)
    for words in (master, (*master, "--events")):
        told = ask(own_broker.url, *words, "--timeout", "1500ms")
        assert (told.status, told.seconds < 2) == ("unknown", True), told
    own_broker.signal(signal.SIGCONT)
    worker.end()
    told = until(lambda: (told := ask(own_broker.url, *master, "--expect", worker.name, "--timeout", "2s")).status == "fail" and told, timeout=30)
    assert told.answer["missing"] == [worker.name], told


# --- brokers that do not answer -----------------------------------------------------------------------------------

FORMS = ["redis://:S3cret@{}/0", "amqp://me:S3cret@{}//", "rediss://:S3cret@{}/0", "amqps://me:S3cret@{}//"]


def is_unknown(url, says=None):
    for words in ([], ["--events"], ["--list", "--queue", "mail"] if says else ["--list"]):
        told = ask(url, "--timeout", "2500ms", *words)
        assert (told.code, told.status) == (1, "unknown"), told
        assert told.seconds < 2, told
        assert "S3cret" not in told.output, told
        assert not says or says in told.reason, told
        assert ask(url, "--timeout", "2500ms", "--unknown", "pass").code == 0


@pytest.mark.parametrize("form", FORMS)
def test_a_broker_that_accepts_and_never_answers_is_unknown(form):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        is_unknown(form.format(f"127.0.0.1:{listener.getsockname()[1]}"))


@pytest.mark.parametrize("form", FORMS)
def test_a_broker_that_is_not_there_is_unknown(form):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    is_unknown(form.format(f"127.0.0.1:{port}"), "cannot be reached")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("words", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x01\x00\x00\xff\xff\xff\xff" + b"\x00" * 4096, b"*999999999\r\n"])
def test_what_is_no_broker_is_unknown(form, words):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(words)

        threading.Thread(target=serve, daemon=True).start()
        is_unknown(form.format(f"127.0.0.1:{listener.getsockname()[1]}"))
        listener.shutdown(socket.SHUT_RDWR)


def test_a_wrong_password_is_unknown_and_never_shown(rabbitmq, own_broker):
    is_unknown(f"amqp://me:S3cret@127.0.0.1:{rabbitmq.port}//", "the broker denied access")
    subprocess.run(["redis-cli", "-u", own_broker.url, "CONFIG", "SET", "requirepass", "right"], check=True, capture_output=True)
    is_unknown(f"redis://:S3cret@127.0.0.1:{own_broker.port}/0", "denied access")
    assert ask(f"redis://:right@127.0.0.1:{own_broker.port}/0").status == "fail"


def test_a_virtual_host_that_is_not_there_is_unknown_and_one_without_celery_is_empty(rabbitmq):
    is_unknown(f"amqp://guest:guest@127.0.0.1:{rabbitmq.port}/nowhere", "the broker denied access")
    told = ask(rabbitmq.url, "--exchange", "nobody")
    assert (told.code, told.status) == (1, "fail") and "nobody listens" in told.reason, told
    assert told.seconds < 2, "nobody is waited for where nobody is"


def test_a_frozen_redis_is_unknown_while_celerys_own_ping_hangs(own_broker, start):
    cluster = Cluster(own_broker, start, "celery", {})
    theirs = start(harness.Program, inspect_ping(cluster))
    assert "[]" in until(lambda: theirs.output, timeout=30), "on a Redis that answers it ends"
    own_broker.signal(signal.SIGSTOP)
    theirs = start(harness.Program, inspect_ping(cluster))
    for words in ([], ["--events"]):
        told = ask(own_broker.url, "--timeout", "1500ms", *words)
        assert (told.status, told.seconds < 2) == ("unknown", True), told
    time.sleep(5)
    assert theirs.process.poll() is None, "asked with a timeout of 1 s, it still hangs"


def test_a_frozen_rabbitmq_is_unknown(rabbitmq):
    os.kill(rabbitmq.beam(), signal.SIGSTOP)
    try:
        is_unknown(rabbitmq.url)
    finally:
        os.kill(rabbitmq.beam(), signal.SIGCONT)
    until(lambda: ask(rabbitmq.url).status != "unknown", timeout=30)


# --- RabbitMQ over TLS ---------------------------------------------------------------------------------------------


@dataclass
class Encrypted:
    """A RabbitMQ that talks TLS alone to clients, and only to those whose certificate its own authority has signed."""

    server: harness.RabbitMQ
    authority: Authority
    place: str
    port: int

    @property
    def url(self):
        return f"amqps://guest:guest@{self.place}//"

    def trusting(self, authority, client=None, host="localhost", password="guest", ours=True):
        ca, cert, key = ("ca", "cert", "key") if ours else ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
        own = f"&{cert}={client[0]}&{key}={client[1]}" if client else ""
        return f"amqps://guest:{password}@{host}:{self.port}//?{ca}={authority.path}{own}"


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encrypted")
    authority = Authority(folder)
    certificate, key = authority.sign("server", "DNS:localhost")
    port = harness.free_port()
    settings = f"""
        listeners.ssl.1 = 127.0.0.1:{port}
        ssl_options.cacertfile = {authority.path}
        ssl_options.certfile = {certificate}
        ssl_options.keyfile = {key}
        ssl_options.verify = verify_peer
        ssl_options.fail_if_no_peer_cert = true
    """
    server = harness.start_rabbitmq(folder, settings)
    yield Encrypted(server, authority, f"localhost:{port}", port)
    server.end()


def test_over_tls_with_a_private_authority_and_a_client_certificate(encrypted, start):
    client = encrypted.authority.sign("client")
    theirs = {"ca_certs": str(encrypted.authority.path), "certfile": str(client[0]), "keyfile": str(client[1]), "cert_reqs": ssl.CERT_REQUIRED}
    worker = start(CeleryWorker, encrypted, BROKER_USE_SSL=json.dumps(theirs)).ready()
    for ours in (True, False):
        url = encrypted.trusting(encrypted.authority, client, ours=ours)
        until(lambda url=url: ask(url, "--expect", worker.name, "--queue", worker.queue).code == 0, timeout=30)
        assert ask(url, "--expect", worker.name, "--events").code == 0
    worker.end()
    told = ask(url, "--expect", worker.name, "--timeout", "2s")
    assert (told.code, told.status, told.answer["missing"]) == (1, "fail", [worker.name]), told


def test_over_tls_who_does_not_prove_to_be_the_broker_is_told_nothing(encrypted, tmp_path):
    client = encrypted.authority.sign("client")
    stranger = Authority(tmp_path, "stranger")
    untrusted = "invalid peer certificate"
    is_unknown(encrypted.trusting(stranger, client, password="S3cret"), "the broker cannot be reached")
    assert untrusted in ask(encrypted.trusting(stranger, client)).output
    assert untrusted in ask(encrypted.url).output, "the system trusts other authorities"
    assert untrusted in ask(encrypted.trusting(encrypted.authority, client, host="127.0.0.1")).output, "another name"
    is_unknown(encrypted.trusting(encrypted.authority, client, password="S3cret"), "the broker denied access")
    # It asks for a certificate of its own authority's.
    is_unknown(encrypted.trusting(encrypted.authority, password="S3cret"), "the broker cannot be reached")
    is_unknown(encrypted.trusting(encrypted.authority, stranger.sign("client"), password="S3cret"), "the broker cannot be reached")
    # TLS where there is none, and none where there is.
    is_unknown(f"amqps://guest:S3cret@localhost:{encrypted.server.port}//?ca={encrypted.authority.path}")
    is_unknown(f"amqp://guest:S3cret@localhost:{encrypted.port}//")
