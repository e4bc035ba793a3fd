"""`checker serve` behind real proxies: who asks is known, and nobody is sent to an instance that is about to end."""

import contextlib
import http.client
import signal
import socket
import threading
import time

import pytest

import harness
import proxies

# All of 127.0.0.0/8 is this machine: there the proxies are .1, who may ask .2, and strangers .3.
FRIEND, STRANGER, PROXY = "127.0.0.2", "127.0.0.3", "127.0.0.1"

every_proxy = pytest.mark.parametrize("kind", proxies.ALL, ids=lambda kind: kind.name)


def open_to(networks, header="X-Forwarded-For"):
    return f"""
        [server.access]
        networks = {networks}
        trusted_proxies = ['{PROXY}']
        client_ip_header = '{header}'
        [subsets]
        readiness = ['it']
        [checks.it]
        type = 'command'
        command = ['true']
    """


@pytest.fixture
def behind(start, tmp_path):
    """Starts a proxy in front of instances."""

    def begin(kind, *instances, **keywords):
        return start(kind, tmp_path, [instance.place for instance in instances], **keywords)

    return begin


def ask(proxy, source, headers=(), path="/readyz"):
    """The status of the answer to who asks from this address, with these lines in the question's head."""
    connection = http.client.HTTPConnection(proxy.address, proxy.port, timeout=20, source_address=(source, 0))
    with contextlib.closing(connection):
        connection.putrequest("GET", path)
        for name, value in headers:
            connection.putheader(name, value)
        connection.endheaders()
        return connection.getresponse().status


def said(value, header="X-Forwarded-For"):
    return [(header, value)]


CLAIMS = ["garbage, 8.8.8.8", "garbage", FRIEND, f"{FRIEND}, {PROXY}", f"{FRIEND}, garbage", "::1", "", ","]


@every_proxy
def test_a_client_is_known_by_its_own_address_and_not_by_what_it_says(serve, behind, kind):
    proxy = behind(kind, serve(open_to([FRIEND])))
    asked = {source: ask(proxy, source) for source in (FRIEND, STRANGER, PROXY)}
    assert asked == {FRIEND: 200, STRANGER: 403, PROXY: 403}
    assert ask(proxy, STRANGER, path="/healthz") == 200
    for claim in CLAIMS:
        asked = {source: ask(proxy, source, said(claim)) for source in (FRIEND, STRANGER)}
        assert asked == {FRIEND: 200, STRANGER: 403}, claim
        assert ask(proxy, STRANGER, said(claim) + said(FRIEND)) == 403, claim
        assert ask(proxy, STRANGER, said(f"for={FRIEND}", "Forwarded")) == 403
        assert ask(proxy, STRANGER, said(FRIEND, "X-Real-IP")) == 403


@every_proxy
def test_it_is_the_same_over_a_unix_socket(serve, behind, tmp_path, kind):
    instance = serve(open_to([FRIEND]), listen=f"unix:{tmp_path}/s")
    proxy = behind(kind, instance)
    asked = {source: ask(proxy, source, said(FRIEND)) for source in (FRIEND, STRANGER)}
    assert asked == {FRIEND: 200, STRANGER: 403}


@every_proxy
def test_a_client_with_an_ipv6_address_is_known(serve, behind, kind):
    if not has_ipv6():
        pytest.skip("this machine has no ::1")
    for networks, status in [(["::1"], 200), (["2001:db8::/32", FRIEND], 403)]:
        proxy = behind(kind, serve(open_to(networks)), address="::1")
        assert ask(proxy, "::1", said(FRIEND)) == status


def has_ipv6():
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


@pytest.mark.parametrize(("kind", "header"), [(proxies.HAProxy, "Forwarded"), (proxies.Nginx, "X-Real-IP")])
def test_other_headers_are_read_where_they_are_agreed_upon(serve, behind, kind, header):
    proxy = behind(kind, serve(open_to([FRIEND], header)), header=header)
    claims = [f"for={FRIEND}", FRIEND, f'for="{FRIEND}', f'for={FRIEND}, for="', "garbage"]
    for headers in [[], *(said(claim, header) for claim in claims), said(FRIEND)]:
        asked = {source: ask(proxy, source, headers) for source in (FRIEND, STRANGER)}
        assert asked == {FRIEND: 200, STRANGER: 403}, headers


def test_an_ipv6_address_is_read_in_forwarded(serve, behind):
    if not has_ipv6():
        pytest.skip("this machine has no ::1")
    instance = serve(open_to(["::1"], "Forwarded"))
    assert ask(behind(proxies.HAProxy, instance, header="Forwarded", address="::1"), "::1") == 200
    assert ask(behind(proxies.HAProxy, instance, header="Forwarded"), FRIEND) == 403


def test_behind_two_proxies_the_client_is_the_one_that_asks_the_first(serve, behind, start, tmp_path):
    inner = behind(proxies.Nginx, serve(open_to([FRIEND])))
    outer = start(proxies.HAProxy, tmp_path, [inner.listen])
    for claim in CLAIMS:
        asked = {source: ask(outer, source, said(claim)) for source in (FRIEND, STRANGER)}
        assert asked == {FRIEND: 200, STRANGER: 403}, claim


@pytest.mark.parametrize("kind", [proxies.Nginx, proxies.HAProxy], ids=lambda kind: kind.name)
def test_what_a_proxy_hands_on_unread_is_never_taken_for_the_proxys_own_question(serve, behind, kind):
    proxy = behind(kind, serve(open_to([FRIEND, PROXY])), header=None)
    for claim in ["garbage, 8.8.8.8", "8.8.8.8, garbage", "garbage", ",", "127.0.0.1.", "127.0.0.1:", "localhost"]:
        assert ask(proxy, FRIEND, said(claim)) == 403, claim
    for header in ["Forwarded", "X-Real-IP"]:
        assert ask(proxy, FRIEND, said("127.0.0.1", header)) == 403, header
    assert ask(proxy, FRIEND) == 200


# --- the page, live ---------------------------------------------------------------------------------------------------


@every_proxy
def test_a_change_comes_through_at_once(serve, behind, tmp_path, kind):
    server = serve(f"""
        [server]
        page = true
        cache = '0ms'
        [subsets]
        readiness = ['it']
        [checks.it]
        type = 'command'
        command = ['test', '-e', '{tmp_path}/good']
    """)
    proxy = behind(kind, server)
    # Who gathers an answer before it is passed on waits for its end, which is not to come.
    connection = http.client.HTTPConnection(proxy.address, proxy.port, timeout=20)
    with contextlib.closing(connection):
        connection.request("GET", "/", headers={"Accept": "text/event-stream"})
        events = connection.getresponse()
        assert (events.status, events.getheader("Content-Type")) == (200, "text/event-stream")
        before = event(events)
        assert ask(proxy, FRIEND) == 503
        assert event(events) != before


def event(events):
    """What the next event says."""
    said = b""
    while line := events.readline().strip():
        said += line if line.startswith(b"data:") else b""
    assert said
    return said


# --- the end of one of two ----------------------------------------------------------------------------------------------

DRAIN = 2.0


def instance(name):
    return f"""
        [service]
        version = '{name}'
        [server]
        drain = '{DRAIN:.0f}s'
        [subsets]
        readiness = ['{name}']
        [checks.{name}]
        type = 'command'
        command = ['true']
    """


class Asking:
    """Some who ask without a pause, each on a connection that it keeps, for as long as the `with` lasts. Every answer is noted."""

    CLIENTS = 4

    def __init__(self, proxy, path):
        self.proxy, self.path = proxy, path
        # When it came, its status or what went wrong, and its text.
        self.told = []
        self._stop = threading.Event()
        self._clients = [threading.Thread(target=self._ask) for _ in range(self.CLIENTS)]

    def __enter__(self):
        for client in self._clients:
            client.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for client in self._clients:
            client.join(60)

    def _ask(self):
        connection = http.client.HTTPConnection(self.proxy.address, self.proxy.port, timeout=20)
        with contextlib.closing(connection):
            while not self._stop.wait(0.005):
                try:
                    connection.request("GET", self.path)
                    answer = connection.getresponse()
                    status, text = answer.status, answer.read().decode()
                except (OSError, http.client.HTTPException) as error:
                    status, text = repr(error), ""
                    connection.close()
                self.told.append((time.monotonic(), status, text))

    def hears_of(self, *names):
        begin = len(self.told)
        for name in names:
            harness.until(
                lambda name=name: any(f'"{name}"' in text for _, _, text in self.told[begin:]),
                timeout=30,
                what=f"{name} answers; last: {self.told[-3:]}",
            )


# nginx asks no instance by itself: an answer of 503 to who asks whether it is ready lets it go to the other one.
@pytest.mark.parametrize(
    ("kind", "path"),
    [(proxies.HAProxy, "/version"), (proxies.Caddy, "/version"), (proxies.Nginx, "/readyz")],
    ids=lambda value: getattr(value, "name", None),
)
def test_an_instance_ends_and_comes_back_and_no_question_fails(serve, behind, kind, path):
    one, two = serve(instance("one")), serve(instance("two"))
    proxy = behind(kind, one, two, checked=True)
    with Asking(proxy, path) as asking:
        asking.hears_of("one", "two")
        one.signal(signal.SIGTERM)
        assert one.exit_status() == 0, one.output
        ended = time.monotonic()
        asking.hears_of("two")
        again = serve(instance("one"), listen=one.place)
        asking.hears_of("one", "two")
    wrong = [(status, text) for _, status, text in asking.told if status != 200]
    assert not wrong, f"{len(wrong)} of {len(asking.told)}: {wrong[:5]}\n{again.output}{proxy.output}"
    last = max(at for at, _, text in asking.told if '"one"' in text and at < ended)
    print(f"{kind.name}: the last of {len(asking.told)} questions came {ended - last:.2f} s before the end, of {DRAIN} s of drain")
    assert ended - last > DRAIN / 4
