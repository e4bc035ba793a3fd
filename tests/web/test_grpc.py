"""`grpc.health.v1` beside `checker serve`, asked by gRPC's own client.

The program `grpc_health_probe` comes from Go's registry alone, and is not asked here; it sends what this client's `Check` sends.
curl says what this client cannot: a deadline that it does not keep to itself, and questions as no client asks them.
"""

import contextlib
import queue
import signal
import socket
import subprocess
import threading
import time

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import harness

# For what comes as soon as the machine lets it.
SOON = 20
UNKNOWN, SERVING, NOT_SERVING, SERVICE_UNKNOWN = range(4)
Code = grpc.StatusCode


class Server:
    """`checker serve` with gRPC, whose check `switch` passes while a file is there, and `slow` while another is not."""

    def __init__(self, serve, folder, more="", grpc_at=None):
        self.folder = folder
        self.port = harness.free_port()
        self.grpc = grpc_at or f"127.0.0.1:{self.port}"
        self.more = more
        self.turn(True)
        self.program = serve(self.configuration(), "--log", "text")

    def configuration(self, access="", subsets=""):
        return f"""
            [server]
            grpc = '{self.grpc}'
            cache = '100ms'
            {self.more}
            [server.access]
            {access}
            [subsets]
            readiness = ['switch']
            slow = ['slow']
            other = ['good']
            {subsets}
            [checks.good]
            type = 'command'
            command = ['true']
            [checks.switch]
            type = 'command'
            command = ['sh', '-c', 'echo run >>{self.folder}/runs; test -e {self.folder}/on']
            [checks.slow]
            type = 'command'
            command = ['sh', '-c', 'while test -e {self.folder}/hangs; do sleep 0.1; done']
            timeout = '2s'
        """

    def turn(self, on):
        if on:
            (self.folder / "on").touch()
        else:
            (self.folder / "on").unlink()

    def configure(self, **changes):
        """Another configuration, which is in force after this."""
        before = self.program.output.count("another configuration is in force")
        self.program.file.write_text(self.configuration(**changes))
        harness.until(
            lambda: self.program.output.count("another configuration is in force") > before,
            timeout=SOON,
            what="the other configuration is in force",
        )

    @contextlib.contextmanager
    def asked(self):
        """A connection of its own. Of a Unix socket, this client would make its path the authority, which HTTP does not allow."""
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.default_authority", "localhost")]
        with grpc.insecure_channel(self.grpc, options=options) as channel:
            yield health_pb2_grpc.HealthStub(channel)


@pytest.fixture
def server(serve, tmp_path):
    return lambda *more, **options: Server(serve, tmp_path, *more, **options)


def check(stub, service="", timeout=SOON, metadata=()):
    """The status, or the code of the error."""
    try:
        question = health_pb2.HealthCheckRequest(service=service)
        return stub.Check(question, timeout=timeout, metadata=metadata, wait_for_ready=True).status
    except grpc.RpcError as error:
        assert "S3cret" not in error.details(), error
        return error.code()


class Watch:
    """A `Watch`, whose news come one after another; after its end, the code of that."""

    def __init__(self, stub, service="", timeout=None, metadata=()):
        question = health_pb2.HealthCheckRequest(service=service)
        self.call = stub.Watch(question, timeout=timeout, metadata=metadata, wait_for_ready=True)
        self.news = queue.Queue()
        threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self):
        try:
            for answer in self.call:
                self.news.put(answer.status)
            self.news.put(Code.OK)
        except grpc.RpcError as error:
            self.news.put(error.code())

    def next(self, timeout=SOON):
        return self.news.get(timeout=timeout)


def test_a_subset_serves_where_it_passes(server):
    it = server()
    with it.asked() as stub:
        for service, status in [
            ("", SERVING),
            ("readiness", SERVING),
            ("other", SERVING),
            ("liveness", SERVING),
            ("startup", Code.NOT_FOUND),
            ("nothing", Code.NOT_FOUND),
            ("grpc.health.v1.Health", Code.NOT_FOUND),
        ]:
            assert check(stub, service) == status, service
        it.turn(False)
        harness.until(lambda: check(stub) == NOT_SERVING, timeout=SOON)
        assert check(stub, "other") == SERVING
        # Of the protocol's third method, as of others, there is nothing.
        with pytest.raises(grpc.RpcError) as told:
            stub.List(health_pb2.HealthListRequest(), timeout=SOON)
        assert told.value.code() == Code.UNIMPLEMENTED


def test_what_needs_no_check_needs_no_place_to_wait(server):
    it = server("connections = 4")
    (it.folder / "hangs").touch()
    question = health_pb2.HealthCheckRequest(service="slow")
    with it.asked() as stub:
        waiting = [stub.Check.future(question, timeout=SOON, wait_for_ready=True) for _ in range(8)]
        harness.until(lambda: any(one.done() for one in waiting), timeout=SOON, what="there is no more place")
        assert (check(stub, "liveness"), check(stub, "nothing")) == (SERVING, Code.NOT_FOUND)
        assert check(stub, "other") == Code.UNAVAILABLE
        assert [one.code() for one in waiting].count(Code.UNAVAILABLE) == 5


def test_many_who_ask_at_once_are_answered_by_one_run(server):
    it = server("timeout = '20s'")
    it.program.file.write_text(it.configuration().replace("cache = '100ms'", "cache = '1m'"))
    harness.until(lambda: "another configuration is in force" in it.program.output, timeout=SOON)
    question = health_pb2.HealthCheckRequest()
    with it.asked() as one, it.asked() as other:
        asked = [stub.Check.future(question, timeout=SOON, wait_for_ready=True) for stub in (one, other) for _ in range(100)]
        assert {answer.result().status for answer in asked} == {SERVING}
    assert (it.folder / "runs").read_text() == "run\n"


def test_who_watches_is_told_at_once_and_then_of_changes_alone(server):
    it = server()
    with it.asked() as stub:
        watched, other, unknown = Watch(stub), Watch(stub, "other"), Watch(stub, "later")
        assert (watched.next(), other.next(), unknown.next()) == (SERVING, SERVING, SERVICE_UNKNOWN)
        for on, status in [(False, NOT_SERVING), (True, SERVING), (False, NOT_SERVING)]:
            it.turn(on)
            assert watched.next() == status
        # What there was not is there with another configuration, and what there was is there no more with the next.
        it.configure(subsets="later = ['good']")
        assert unknown.next() == SERVING
        it.configure()
        assert unknown.next() == SERVICE_UNKNOWN
        it.turn(True)
        assert watched.next() == SERVING
        assert all(one.news.empty() for one in (watched, other, unknown)), "nothing is told twice"
        ended = Watch(stub, timeout=0.5)
        assert (ended.next(), ended.next()) == (SERVING, Code.DEADLINE_EXCEEDED)


def test_a_check_that_hangs_costs_its_deadline_or_the_clients_and_nobody_else(server):
    it = server()
    with it.asked() as stub:
        assert check(stub, "slow") == SERVING
        (it.folder / "hangs").touch()
        # What was answered before is too old from then on.
        time.sleep(0.1)
        waits = stub.Check.future(health_pb2.HealthCheckRequest(service="slow"), timeout=SOON)
        assert check(stub, "slow", timeout=0.3) == Code.DEADLINE_EXCEEDED
        assert check(stub) == SERVING
        assert not waits.done(), "the others do not wait"
        assert waits.result().status == NOT_SERVING
        watched = Watch(stub, "slow")
        assert watched.next() == NOT_SERVING
        (it.folder / "hangs").unlink()
        assert watched.next() == SERVING


def test_the_server_keeps_a_clients_deadline_that_the_client_does_not(server):
    it = server()
    (it.folder / "hangs").touch()
    slow = b"\0\0\0\0\x06\x0a\x04slow"
    for patience, expected in [("200m", "grpc-status: 4"), ("garbage", "grpc-status: 0"), ("99999999H", "grpc-status: 0")]:
        told = curl(it, "Check", slow, "--header", f"grpc-timeout: {patience}")
        assert expected in told, told


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind, held=b""):
    """A frame of HTTP/2 without a flag: for SETTINGS (4) of the connection, for HEADERS (1) and CONTINUATION (9) of a stream."""
    return len(held).to_bytes(3) + bytes([kind, 0]) + (0 if kind == 4 else 1).to_bytes(4) + held


def curl(it, method, body, *options, media="application/grpc"):
    """What a bare client of HTTP/2 is told, trailers included."""
    command = ["curl", "--silent", "--include", "--max-time", str(SOON), "--http2-prior-knowledge", "--data-binary", "@-"]
    headers = ["--header", f"content-type: {media}", "--header", "te: trailers"]
    url = f"http://{it.grpc}/grpc.health.v1.Health/{method}"
    done = subprocess.run([*command, *headers, *options, url], input=body, capture_output=True, timeout=SOON + 10, check=False)
    return done.stdout.decode(errors="replace").lower()


def test_at_sigterm_readiness_serves_no_more_and_who_watches_is_told_before_the_end(server):
    it = server("drain = '1m'")
    with it.asked() as stub:
        watched, other = Watch(stub), Watch(stub, "other")
        assert (watched.next(), other.next()) == (SERVING, SERVING)
        it.program.signal(signal.SIGTERM)
        assert watched.next() == NOT_SERVING
        assert (check(stub), check(stub, "readiness"), check(stub, "other")) == (NOT_SERVING, NOT_SERVING, SERVING)
        assert other.news.empty()
        # The drain is over.
        begun = time.monotonic()
        it.program.signal(signal.SIGTERM)
        assert (watched.next(), other.next()) == (Code.UNAVAILABLE, Code.UNAVAILABLE)
        assert it.program.exit_status() == 0
        # Those who watch do not hold it up: it would wait for them as long as an answer may take, 10 s.
        assert time.monotonic() - begun < 8


def test_the_rules_of_access_are_those_of_http(server):
    it = server()
    refused = Code.PERMISSION_DENIED
    with it.asked() as stub:
        watched = Watch(stub, "other")
        assert (check(stub), watched.next()) == (SERVING, SERVING)
        it.configure(access="token = 'S3cret'")
        # Who watches is asked again by the new rules.
        assert watched.next() == refused
        for metadata, told in [
            ((), refused),
            ((("x-probe-token", "S3cret"),), SERVING),
            ((("authorization", "Bearer S3cret"),), SERVING),
            ((("authorization", "bearer S3cret"),), SERVING),
            ((("authorization", "S3cret"),), refused),
            ((("authorization", "Bearer S3cre"),), refused),
            ((("x-probe-token", "wrong"), ("authorization", "Bearer S3cret")), refused),
        ]:
            assert check(stub, metadata=metadata) == told, metadata
            assert Watch(stub, metadata=metadata).next() == told, metadata
        # A name that there is not is no secret's place to be guessed.
        assert check(stub, "nothing") == refused
        it.configure(access="networks = ['192.0.2.0/24']")
        assert check(stub) == refused
        it.configure(access="networks = ['192.0.2.0/24']\ntrusted_proxies = ['127.0.0.1']")
        assert check(stub, metadata=(("x-forwarded-for", "192.0.2.9"),)) == SERVING
        assert check(stub, metadata=(("x-forwarded-for", "192.0.2.9, garbage"),)) == refused


def test_so_many_may_watch_and_a_place_that_was_left_is_taken_by_the_next(server):
    it = server()
    with contextlib.ExitStack() as stack:
        stubs = [stack.enter_context(it.asked()) for _ in range(10)]
        watched = [Watch(stubs[number // 30], "other") for number in range(256)]
        assert {one.next() for one in watched} == {SERVING}
        assert Watch(stubs[9], "other").next() == Code.UNAVAILABLE
        assert check(stubs[9]) == SERVING, "who watches holds up nobody who asks"
        watched[7].call.cancel()
        harness.until(lambda: Watch(stubs[9], "other").next() == SERVING, timeout=SOON, what="a place is free")


def test_what_no_client_says_ends_its_own_stream_or_connection_and_nothing_else(server):
    it = server()
    # Other media types, endless names, messages that are none: an error, and never a status.
    assert "http/2 415" in curl(it, "Check", b"", media="application/json")
    assert "grpc-status: 13" in curl(it, "Check", b"")
    assert "grpc-status: 0" not in curl(it, "Check", b"\0\0\0\0\x06\xff\xff\xff\xff\xff\xff")
    assert "grpc-status: 0" not in curl(it, "Check", b"\0\0\0\x20\x05\x0a\x80\x40" + b"a" * 0x2000)
    settings, begun = frame(4), frame(1)
    for said in [
        b"GET / HTTP/1.1\r\nHost: it\r\n\r\n",
        b"\x16\x03\x01\x00\xa5\x01\x00\x00",
        PREFACE + b"\xff" * 4_096,
        # A head that never ends, of a frame after the other.
        PREFACE + settings + begun + frame(9, b"\0\1a\0" * 0x1000) * 100,
        PREFACE + settings + begun + frame(9) * 100_000,
    ]:
        with socket.create_connection(("127.0.0.1", it.port), timeout=SOON) as connection:
            with contextlib.suppress(ConnectionError):
                connection.sendall(said)
                while connection.recv(65_536):
                    pass
    with it.asked() as stub:
        large = (("x-large", "a" * 20_000),)
        assert check(stub, metadata=large) in (Code.RESOURCE_EXHAUSTED, Code.INTERNAL, Code.UNAVAILABLE, Code.UNKNOWN)
        assert check(stub, "a" * 5_000) != Code.NOT_FOUND, "it is not even read"
        assert check(stub) == SERVING
    assert "panic" not in it.program.output


def test_it_is_asked_over_a_unix_socket_too(server, tmp_path):
    it = server(grpc_at=f"unix:{tmp_path}/grpc.sock")
    with it.asked() as stub:
        assert check(stub) == SERVING
    it.program.signal(signal.SIGINT)
    assert it.program.exit_status() == 0
    assert not (tmp_path / "grpc.sock").exists()


def test_an_address_that_is_taken_is_told(start, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        file = tmp_path / "checker.toml"
        file.write_text(f"[server]\nlisten = '127.0.0.1:0'\ngrpc = '{place}'\n")
        program = start(harness.Program, [harness.CHECKER, "serve", "--config", file])
        assert program.exit_status() == 3
        assert f"gRPC at {place}: Address already in use" in program.output, program.output
