"""`heartbeat.django` served by real servers: the same answers as `checker serve`, for whoever asks and whatever happens."""

import json
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import django
import pytest

import harness
from django_site import URLS, Gunicorn, Site, Uvicorn

TOML = """
[service]
name = "shop"
version = "1.2.3"

[server]
cache = "100ms"
detail = "safe"
timeout = "3s"

[subsets]
readiness = ["file"]
startup = ["file"]
both = ["@readiness", "closed"]

[checks.file]
type = "command"
command = ["test", "-e", "is-there"]

[checks.closed]
type = "tcp"
address = "127.0.0.1:1"
critical = false
"""


@pytest.fixture
def site(tmp_path):
    """A site with a configuration file, whose one dependency is a file."""

    def make(toml=TOML, folder=tmp_path / "site", **settings):
        made = Site(folder, {"HEALTH_CHECK": {"CONFIG": "checker.toml"}} | settings)
        made.write("checker.toml", toml)
        made.write("is-there", "")
        return made

    return make


def serve_beside(start, site):
    """`checker serve` with the same configuration."""
    port = harness.free_port()
    command = [harness.CHECKER, "serve", "--config", "checker.toml", "--listen", f"127.0.0.1:{port}"]
    program = start(harness.Program, command, cwd=site.folder)
    asked = Gunicorn.__new__(Gunicorn)
    asked.port = port
    harness.until(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0, what=f"{program.command} listens")
    return asked


PLACES = [
    ("healthcheck/healthz", "healthz"),
    ("healthcheck/readyz", "readyz"),
    ("healthcheck/startupz/", "startupz/"),
    ("healthcheck/version", "version"),
    ("healthcheck/both", "healthcheck/both"),
    ("healthcheck/both/", "healthcheck/both/"),
    ("healthcheck/liveness", "healthcheck/liveness"),
]
QUESTIONS = [
    [],
    [("Accept", "text/plain")],
    [("Accept", "application/health+json")],
    [("Accept", "image/png")],
    [("Accept", ";;;\xff/=,")],
    [("X-Probe-Token", "\xe9")],
]
OWN = {"date", "server", "connection"}


@pytest.mark.parametrize("server", [Gunicorn, Uvicorn])
def test_an_answer_is_the_checkers_own_to_the_byte_whatever_is_asked(start, site, server):
    made = site(TOML.replace("[subsets]", "[server.access]\nprotect_healthz = false\n[subsets]"), MIDDLEWARE=[])
    ours, theirs = start(server, made).ready(), serve_beside(start, made)
    for is_there in (True, False):
        if not is_there:
            (made.folder / "is-there").unlink()
        for mine, own in PLACES:
            for method in ("GET", "HEAD", "POST"):
                for headers in QUESTIONS:
                    for query in ("", "?format=json", "?format=nonsense&x=%ff"):
                        if "json" not in query and [("Accept", "application/health+json")] == headers:
                            continue  # It tells the time.
                        asked = (method, own, headers, query)
                        wanted = harness.until(lambda: theirs.ask(f"/{own}{query}", headers, method))
                        got = ours.ask(f"/{mine}{query}", headers, method)
                        assert (got.status, got.body) == (wanted.status, wanted.body), asked
                        assert {k: v for k, v in got.headers.items() if k not in OWN} == {
                            k: v for k, v in wanted.headers.items() if k not in OWN
                        }, asked
            time.sleep(0.15)  # What both keep of the last answer is older than their cache.


def test_formats_are_the_checkers_own(start, site):
    served = start(Gunicorn, site()).ready()
    for name, kind in [("text", "text/plain"), ("html", "text/html"), ("atom", "application/atom+xml"), ("rss", "application/rss+xml")]:
        answer = served.ask(f"/healthcheck/readyz?format={name}")
        assert (answer.status, answer.headers["content-type"].split(";")[0]) == (200, kind)
    metrics = served.ask("/healthcheck/readiness?format=openmetrics").body.decode()
    assert 'check="file"' in metrics and metrics.endswith("# EOF\n")
    feed = served.ask("/healthcheck/readyz?format=atom", [("X-Forwarded-Proto", "https"), ("Host", "shop.example")]).body.decode()
    assert "https://shop.example/healthcheck/readyz" in feed


def test_of_a_hundred_who_ask_at_once_one_runs_the_check(start, site):
    count = 'command = ["sh", "-c", "echo run >>runs; sleep 1; test -e is-there"]'
    made = site(TOML.replace('command = ["test", "-e", "is-there"]', count))
    served = start(Gunicorn, made, "--workers", "1", "--threads", "100").ready()
    with ThreadPoolExecutor(100) as pool:
        answers = list(pool.map(lambda _: served.ask("/healthcheck/readyz"), range(100)))
    assert {answer.status for answer in answers} == {200}
    # Who comes later than that run's answer asks anew, on a machine with much to do.
    assert (made.folder / "runs").read_text().count("run") <= 3


@pytest.mark.parametrize("server", [Gunicorn, Uvicorn])
def test_a_frozen_dependency_ends_at_the_deadline_and_holds_nobody_else_up(start, site, own_broker, server):
    toml = f'[server]\ntimeout = "4s"\n[subsets]\nreadiness = ["redis"]\n[checks.redis]\ntype = "redis"\nurl = "{own_broker.url}"\n'
    served = start(server, site(toml)).ready()
    assert served.ask("/healthcheck/readyz").status == 200
    own_broker.signal(signal.SIGSTOP)
    time.sleep(1.1)  # The pass is kept for a second.
    answers = []
    asking = threading.Thread(target=lambda: answers.append((served.ask("/healthcheck/readyz"), time.monotonic())))
    begun = time.monotonic()
    asking.start()
    for path in ("healthz", "liveness", "version"):
        assert served.ask(f"/healthcheck/{path}").status == 200
    assert not answers, "the frozen one was answered for before its time"
    asking.join(30)
    answer, ended = answers[0]
    assert (answer.status, answer.json) == (503, {"status": "not_ready", "checks": {"redis": "fail"}})
    assert 3 < ended - begun < 15
    own_broker.signal(signal.SIGCONT)
    harness.until(lambda: served.ask("/healthcheck/readyz").status == 200, what="it is ready again")


def test_on_gevent_a_question_that_waits_holds_nobody_else_up(start, site, own_broker):
    pytest.importorskip("gevent")
    toml = f'[server]\ntimeout = "8s"\n[subsets]\nreadiness = ["redis"]\n[checks.redis]\ntype = "redis"\ntimeout = "8s"\nurl = "{own_broker.url}"\n'
    served = start(Gunicorn, site(toml), "--worker-class", "gevent", "--workers", "1").ready()
    assert served.ask("/healthcheck/readyz").status == 200
    own_broker.signal(signal.SIGSTOP)
    time.sleep(1.1)  # The pass is kept for a second.
    answers = []
    asking = [threading.Thread(target=lambda: answers.append(served.ask("/healthcheck/readyz"))) for _ in range(15)]
    [thread.start() for thread in asking]
    time.sleep(0.5)  # Until they wait.
    for path in ("healthcheck/liveness", "slow/1"):
        assert served.ask(f"/{path}").status == 200
    assert not answers, "the frozen one was waited for"
    [thread.join(30) for thread in asking]
    assert {answer.status for answer in answers} == {503} and len(answers) == 15
    own_broker.signal(signal.SIGCONT)
    harness.until(lambda: served.ask("/healthcheck/readyz").status == 200, what="it is ready again")


def test_each_worker_that_gunicorn_forks_has_a_checker_of_its_own(start, site):
    made = site()
    # The master asks too, before it forks: what it has started is of no use to its children.
    made.write(
        "site_wsgi.py",
        "from django.core.wsgi import get_wsgi_application\napplication = get_wsgi_application()\n"
        "import os\nfrom heartbeat.django.configuration import current\n"
        "assert current().checker.answer('GET', '/readyz')[0] == 200\n"
        "asked = application\n"
        "def application(environ, start):\n"
        "    return asked(environ, lambda status, headers, *more: start(status, [*headers, ('X-Pid', str(os.getpid()))], *more))\n",
    )
    served = start(Gunicorn, made, "--preload", "--workers", "3", "--threads", "2").ready()
    seen = {}

    def all_asked():
        answer = served.ask("/healthcheck/readyz")
        assert answer.status == 200
        seen.setdefault(answer.headers["x-pid"], 0)
        return len(seen) == 3

    harness.until(all_asked, timeout=60, what="each worker has answered")
    (made.folder / "is-there").unlink()
    time.sleep(0.2)
    for _ in range(30):
        assert served.ask("/healthcheck/readyz").status == 503


RULES = '[server.access]\nnetworks = ["10.0.0.0/8"]\ntrusted_proxies = ["127.0.0.0/8", "192.168.0.0/16"]\n[subsets]'


def test_who_may_ask_is_decided_behind_django_too(start, site):
    served = start(Gunicorn, site(TOML.replace("[subsets]", RULES))).ready()
    for lines, status in [
        (["10.1.2.3"], 200),
        (["8.8.8.8"], 403),
        (["10.1.2.3, 8.8.8.8"], 403),
        (["8.8.8.8, 10.1.2.3, 192.168.0.7"], 200),
        (["8.8.8.8", "10.1.2.3"], 200),
        (["10.1.2.3", "8.8.8.8"], 403),
        # What is no address is nobody, and never the proxy itself.
        (["garbage, 8.8.8.8"], 403),
        (["10.1.2.3, garbage"], 403),
        (["\xff"], 403),
        ([""], 403),
        ([], 403),
    ]:
        headers = [("X-Forwarded-For", line) for line in lines]
        assert served.ask("/healthcheck/readyz", headers).status == status, lines
        assert served.ask("/healthcheck/healthz", headers).status == 200
    assert served.ask("/healthcheck/readyz", [("X-Real-IP", "10.1.2.3")]).status == 403


def test_a_token_is_compared_and_never_an_error(start, site):
    made = site(TOML.replace("[subsets]", "[server.access]\ntoken = 'Geh\u00e9im-S3cret'\n[subsets]"))
    served = start(Gunicorn, made).ready()
    for headers, status in [
        ([], 403),
        ([("X-Probe-Token", "wrong")], 403),
        ([("X-Probe-Token", "\xff\xfe")], 403),
        ([("X-Probe-Token", "Geh\u00e9im-S3cret".encode())], 200),
        ([("Authorization", b"Bearer Geh\xc3\xa9im-S3cret")], 200),
        ([("Authorization", "Bearer")], 403),
    ]:
        assert served.ask("/healthcheck/readyz", headers).status == status, headers
    assert "S3cret" not in served.output


def test_a_unix_sockets_peer_is_this_machine(start, site, tmp_path):
    local = TOML.replace("[subsets]", '[server.access]\nnetworks = ["127.0.0.0/8"]\n[subsets]')
    made = site(local)
    path = tmp_path / "socket"
    served = start(UnixGunicorn, made, path).ready()
    assert served.ask("/healthcheck/readyz").status == 200


class UnixGunicorn(Gunicorn):
    def __init__(self, site, path):
        super().__init__(site, "--bind", f"unix:{path}", "--threads", "4")
        self.path = str(path)

    def connection(self, timeout):
        connection = super().connection(timeout)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(timeout)
        connection.sock.connect(self.path)
        return connection


HOSTILE = [
    b"GET /healthcheck/readyz HTTP/1.1\r\nHost: [\r\n\r\n",
    b"GET /healthcheck/readyz HTTP/1.1\r\nHost: a\r\nAccept: \xff\xfe;q=,\r\n\r\n",
    b"GET /healthcheck/readyz HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: \x01\r\n\r\n",
    b"GET /healthcheck/readyz?%ff&\xff\xfe={}|\"<> HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /healthcheck/%00%ff HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /healthcheck/..%2f..%2freadyz HTTP/1.1\r\nHost: a\r\n\r\n",
    b"BREW /healthcheck/readyz HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /healthcheck/readyz HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody",
    b"GET /healthcheck/readyz HTTP/1.1\r\nHost: a\r\n" + b"".join(b"X-%d: %s\r\n" % (n, b"y" * 90) for n in range(80)) + b"\r\n",
]


@pytest.mark.parametrize("server", [Gunicorn, Uvicorn])
def test_nothing_that_is_sent_makes_it_fail_itself(start, site, server):
    served = start(server, site()).ready()
    for question in HOSTILE:
        with socket.create_connection(("127.0.0.1", served.port), timeout=20) as connection:
            connection.sendall(question)
            line = connection.recv(64)
        assert line.startswith(b"HTTP/1.") and line.split()[1] in (b"200", b"400", b"404", b"405"), (question, line)
    assert "Traceback" not in served.output


def test_what_goes_wrong_is_in_the_log_and_only_there(start, site):
    logging = {
        "version": 1,
        "handlers": {"err": {"class": "logging.StreamHandler"}},
        "loggers": {"heartbeat.checker": {"handlers": ["err"], "level": "INFO"}},
    }
    made = site(TOML.replace('address = "127.0.0.1:1"', 'address = "127.0.0.1:1"\ntimeout = "2s"'), LOGGING=logging)
    served = start(Gunicorn, made).ready()
    answer = served.ask("/healthcheck/both")
    assert b"refused" not in answer.body and b"no connection is accepted" in answer.body
    harness.until(lambda: "Connection refused" in served.output, what="the log has it")
    assert 'check="closed"' in served.output and 'to="warn"' in served.output


def test_nothing_of_the_database_is_touched_and_liveness_needs_no_configuration(start, site):
    gone = {"default": {"ENGINE": "django.db.backends.postgresql", "NAME": "x", "HOST": "127.0.0.1", "PORT": 1, "ATOMIC_REQUESTS": True}}
    middleware = [
        "heartbeat.django.LivenessMiddleware",
        "django.middleware.security.SecurityMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ]
    if django.VERSION >= (5, 1):
        middleware.append("django.contrib.auth.middleware.LoginRequiredMiddleware")
    apps = ["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions", "heartbeat.django"]
    served = start(Gunicorn, site(DATABASES=gone, MIDDLEWARE=middleware, INSTALLED_APPS=apps)).ready()
    answer = served.ask("/healthcheck/readyz")
    assert (answer.status, answer.json["status"]) == (200, "ready")
    assert "set-cookie" not in answer.headers
    # CSRF has no say either: it is the method that is refused.
    assert served.ask("/healthcheck/readyz", method="POST").status == 405


@pytest.mark.parametrize("server", [Gunicorn, Uvicorn])
def test_a_configuration_that_cannot_be_used_fails_readiness_and_no_liveness(start, site, server):
    served = start(server, site("[subsets]\nreadiness = ['nothing']\n"), ).ready()
    assert (served.ask("/healthcheck/readyz").status, served.ask("/healthcheck/healthz").status) == (503, 200)
    assert served.ask("/healthcheck/liveness/").json == {"status": "ok", "checks": {}}
    told = lambda: served.output.count("the configuration cannot be used")  # noqa: E731
    harness.until(lambda: told() and "nothing" in served.output, what="the log tells why")
    assert [served.ask("/healthcheck/readyz").status for _ in range(20)] == [503] * 20
    assert told() == 1, served.output


def test_what_else_is_wrong_with_a_configuration_is_told_too(start, site):
    made = site("[subsets]\nreadiness = ['nothing']\n")
    served = start(Gunicorn, made).ready()
    for name in ("nothing", "not-it-either"):
        made.write("checker.toml", f"[subsets]\nreadiness = ['{name}']\n")
        assert [served.ask("/healthcheck/readyz").status for _ in range(5)] == [503] * 5
        harness.until(lambda: served.output.count(name) == 1, what=f"the log tells of {name} once")  # noqa: B023
    made.write("checker.toml", TOML)
    assert served.ask("/healthcheck/readyz").status == 200


@pytest.mark.parametrize("server", [Gunicorn, Uvicorn])
def test_liveness_is_answered_before_all_else(start, site, server):
    made = site(
        MIDDLEWARE=["heartbeat.django.LivenessMiddleware", "site_broken.Broken"],
        HEALTH_CHECK={"CONFIG": "no-such-file.toml", "LIVENESS_PATH": "/alive/"},
    )
    made.write(
        "site_broken.py",
        "class Broken:\n    def __init__(self, _): pass\n    def __call__(self, request): raise ValueError\n",
    )
    served = start(server, made)
    harness.until(lambda: served.process.poll() is None and answered(served, "/alive"), timeout=60, what="it answers")
    for path in ("/alive", "/alive/"):
        answer = served.ask(path)
        assert (answer.status, answer.json, answer.headers["cache-control"]) == (200, {"status": "ok", "checks": {}}, "no-store")
    head = served.ask("/alive", method="HEAD")
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", "28")
    post = served.ask("/alive", method="POST")
    assert (post.status, post.headers["allow"]) == (405, "GET, HEAD")
    assert served.ask("/other").status == 500


@pytest.mark.parametrize("path", ["/", "", "//", "healthcheck/liveness"])
def test_liveness_takes_no_front_page(site, path):
    made = site(HEALTH_CHECK={"CONFIG": "checker.toml", "LIVENESS_PATH": path})
    made.write("site_urls.py", URLS.replace("urlpatterns = [", 'urlpatterns = [\n    path("", lambda request: HttpResponse("the front page")),'))
    code = "from django.test import Client\nprint(*[Client().get(path).content for path in ('/', '/healthcheck/liveness')])"
    assert made.python(code) == "b'the front page' b'{\"status\":\"ok\",\"checks\":{}}\\n'\n"
    done = made.command("check")
    assert done.code == 1 and '(heartbeat.E003) HEALTH_CHECK["LIVENESS_PATH"]' in done.err, done


def answered(served, path):
    try:
        return served.ask(path, timeout=5).status == 200
    except OSError:
        return False


def test_a_path_that_is_no_endpoint_is_the_sites_own(start, site):
    made = site()
    made.write(
        "site_urls.py",
        URLS.replace('"healthcheck/"', '""').replace("slow/<int:seconds>", "<str:seconds>/").replace('HttpResponse("slow")', 'HttpResponse("own")'),
    )
    served = start(Gunicorn, made)
    harness.until(lambda: answered(served, "/healthz"), timeout=60, what="it answers")
    assert served.ask("/readyz").json["status"] == "ready"
    assert served.ask("/both").json["checks"].keys() == {"file", "closed"}
    assert (served.ask("/admin/").body, served.ask("/metrics/").body) == (b"own", b"own")


def test_after_a_fork_in_the_middle_of_it_all_the_child_asks_for_itself(site):
    made = site()
    out = made.python(
        "import os, threading\n"
        "from heartbeat.django.configuration import current\n"
        "ask = lambda: current().checker.answer('GET', '/readyz')[0]\n"
        "assert ask() == 200\n"
        "stop = threading.Event()\n"
        "threads = [threading.Thread(target=lambda: [ask() for _ in iter(stop.is_set, True)]) for _ in range(4)]\n"
        "[thread.start() for thread in threads]\n"
        "codes = []\n"
        "for _ in range(10):\n"
        "    pid = os.fork()\n"
        "    if not pid:\n"
        "        os._exit(0 if ask() == 200 else 1)\n"
        "    codes.append(os.waitpid(pid, 0)[1])\n"
        "stop.set()\n"
        "[thread.join() for thread in threads]\n"
        "assert ask() == 200\n"
        "print(codes)"
    )
    assert json.loads(out) == [0] * 10


def test_nothing_is_started_or_loaded_before_the_first_question(site):
    out = site().python(
        "import sys, threading, os\n"
        "import heartbeat.django.middleware\n"
        "print('heartbeat._checker' in sys.modules, len(os.listdir('/proc/self/task')))"
    )
    assert out == "False 1\n"
