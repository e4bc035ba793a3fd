"""What `HEALTH_CHECK` and Django's own settings become, the mistakes that `manage.py check` tells, and the command."""

import json
import subprocess
import sys

import harness
from django_site import PACKAGE, Gunicorn, Site

CONFIGURED = """
import json, os, sys
import django
os.environ["MYSQL_UNIX_PORT"] = "/run/the.sock"
from django.conf import settings
settings.configure(SECRET_KEY="S3cret-of-django", INSTALLED_APPS=["django.contrib.contenttypes", "heartbeat.django"], BASE_DIR="/srv/shop")
django.setup()
from django.db import connections
from django.test import override_settings
from heartbeat.django import configuration, dependencies
told = []
for case in json.load(sys.stdin):
    with override_settings(**case["settings"]):
        connections.settings = connections.configure_settings(case["settings"].get("DATABASES"))
        try:
            told.append(dependencies.complete(case["check"]))
        except dependencies.Unturned as unturned:
            told.append(str(unturned))
print(json.dumps(told))
"""


def run_python(code, given=None):
    environment = harness.environment(PYTHONPATH=PACKAGE)
    done = subprocess.run(
        [sys.executable, "-c", code], input=given, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def database(engine, **more):
    return {"DATABASES": {"default": {"ENGINE": f"django.db.backends.{engine}", **more}}}


def cache(backend, **more):
    return {"CACHES": {"default": {"BACKEND": f"django.core.cache.backends.{backend}", **more}}}


def s3(**options):
    return {"STORAGES": {"default": {"BACKEND": "storages.backends.s3.S3Storage", "OPTIONS": options}}}


SERVER = {"NAME": "shop", "USER": "me@it", "PASSWORD": "p/w:d?#", "HOST": "db", "PORT": "5433"}
TURNED = [
    # A dependency in Django's words, and in the checker's.
    (database("postgresql", **SERVER), "database", {"url": "postgresql://me%40it:p%2Fw%3Ad%3F%23@db:5433/shop"}),
    (database("postgresql", NAME="shop", HOST="/run/pg", PORT=5433), "database", {"url": "postgresql://localhost:5433/shop?host=%2Frun%2Fpg"}),
    (
        database("postgresql", NAME="shop", HOST="::1", OPTIONS={"sslmode": "verify-full", "sslrootcert": "/ca", "pool": True}),
        "database",
        {"url": "postgresql://[::1]/shop?sslmode=verify-full&sslrootcert=%2Fca"},
    ),
    (
        database("postgresql", NAME="shop", HOST="db", OPTIONS={"options": "-c search_path=shop,public"}),
        "database",
        {"url": "postgresql://db/shop?options%5Bsearch_path%5D=shop%2Cpublic"},
    ),
    (database("postgresql", NAME="shop", OPTIONS={"service": "s"}), "database", 'DATABASES["default"]["OPTIONS"]["service"] stands for a file that only libpq reads'),
    (database("mysql", **SERVER), "database", {"url": "mysql://me%40it:p%2Fw%3Ad%3F%23@db:5433/shop"}),
    (database("mysql", NAME="shop", HOST="/run/my.sock", USER="u"), "database", {"url": "mysql://u@localhost/shop?socket=%2Frun%2Fmy.sock"}),
    (database("mysql", NAME="shop", HOST="db", OPTIONS={"ssl": {"ca": "/ca"}}), "database", {"url": "mysql://db/shop?ssl-ca=%2Fca&ssl-mode=VERIFY_CA"}),
    # To MySQL's own client, which is no Python, this machine is a socket.
    (database("mysql", NAME="shop"), "database", {"url": "mysql://localhost/shop?socket=%2Frun%2Fthe.sock"}),
    (database("mysql", NAME="shop", HOST="localhost", PORT=3307), "database", {"url": "mysql://localhost:3307/shop?socket=%2Frun%2Fthe.sock"}),
    (database("mysql", NAME="shop", HOST="localhost", OPTIONS={"unix_socket": "/run/my.sock"}), "database", {"url": "mysql://localhost/shop?socket=%2Frun%2Fmy.sock"}),
    (database("mysql", NAME="shop", HOST="127.0.0.1", OPTIONS={"unix_socket": "/run/my.sock"}), "database", {"url": "mysql://127.0.0.1/shop"}),
    (database("sqlite3", NAME="/srv/my shop.db"), "database", {"url": "sqlite:///srv/my%20shop.db"}),
    (database("sqlite3", NAME=":memory:"), "database", 'DATABASES["default"] is in the memory of a process, or named by a URI: nobody else can ask it'),
    (database("oracle", NAME="x"), "database", 'DATABASES["default"] is no PostgreSQL, MySQL or SQLite'),
    (database("oracle", NAME="x"), {"type": "database", "url": "postgresql://h/d"}, {"url": "postgresql://h/d"}),
    (database("sqlite3", NAME="/x"), {"type": "database", "alias": "other"}, 'there is no DATABASES["other"]'),
    (cache("redis.RedisCache", LOCATION="redis://h:1/3"), "cache", {"url": "redis://h:1/3"}),
    (cache("redis.RedisCache", LOCATION=["h:1", "r:1"], OPTIONS={"db": 2, "password": "p@"}), "cache", {"url": "redis://:p%40@h:1/2"}),
    (cache("memcached.PyMemcacheCache", LOCATION="h:11211;i:11211"), "cache", {"url": "memcached://h:11211"}),
    (cache("memcached.PyMemcacheCache", LOCATION="unix:/run/m"), "cache", {"url": "memcached+unix:///run/m"}),
    (
        database("sqlite3", NAME="/c.db") | cache("db.DatabaseCache", LOCATION="kept", KEY_PREFIX="k", VERSION=2),
        "cache",
        {"url": "sqlite:///c.db", "table": "kept", "key_prefix": "k", "version": 2},
    ),
    (cache("locmem.LocMemCache"), "cache", 'CACHES["default"] is each process\'s own, or a kind of cache that the checker does not know'),
    ({"REDIS_URL": "redis://h"}, "redis", {"url": "redis://h"}),
    ({}, "redis", "REDIS_URL is not set"),
    ({"CELERY_BROKER_URL": "pyamqp://h//"}, "rabbitmq", {"url": "amqp://h//"}),
    ({"CELERY_BROKER_URL": "amqp://h//;amqp://i//"}, "rabbitmq", {"url": "amqp://h//"}),
    ({"CELERY_BROKER_URL": ["pyamqp://h//", "amqp://i//"]}, "rabbitmq", {"url": "amqp://h//"}),
    ({"CELERY_BROKER_URL": "amqp://h//;amqp://i//"}, "celery", {"broker": "amqp://h//"}),
    ({"CELERY_BROKER_URL": "sentinel://h;sentinel://i", "CELERY_BROKER_TRANSPORT_OPTIONS": {"master_name": "m"}}, "celery", {"broker": "sentinel://h;sentinel://i", "master_name": "m"}),
    ({"CELERY_BROKER_URL": "redis://h", "CELERY_RESULT_BACKEND": "rpc://"}, "celery", {"broker": "redis://h"}),
    (
        {"APP_BROKER_URL": ["redis://h", "redis://i"], "APP_RESULT_BACKEND": "redis://r", "APP_BROKER_TRANSPORT_OPTIONS": {"global_keyprefix": "k"}},
        {"type": "celery", "namespace": "APP"},
        {"broker": "redis://h", "result_backend": "redis://r", "key_prefix": "k"},
    ),
    (
        database("sqlite3", NAME="/d") | {"CELERY_BROKER_URL": "redis://h", "CELERY_RESULT_BACKEND": "django-db"},
        "celery",
        {"broker": "redis://h", "result_backend": "db+sqlite:///d", "result_table": "django_celery_results_taskresult"},
    ),
    (
        {"Q_CLUSTER": {"name": "q", "redis": {"host": "h", "port": 1, "db": 2, "password": "p"}}},
        "django-q",
        {"cluster": "q", "secret_key": "S3cret-of-django", "redis": "redis://:p@h:1/2"},
    ),
    (
        cache("redis.RedisCache", LOCATION="redis://h", KEY_PREFIX="k", VERSION=3) | {"Q_CLUSTER": {"name": "q", "orm": "default"}},
        "django-q",
        {"cluster": "q", "secret_key": "S3cret-of-django", "cache": "redis://h", "cache_prefix": "k", "cache_version": 3},
    ),
    ({"Q_CLUSTER": {"name": "q"}}, "django-q", {"cluster": "q", "secret_key": "S3cret-of-django", "redis": "redis://localhost:6379/0"}),
    (
        cache("redis.RedisCache", LOCATION="redis://h/1") | {"Q_CLUSTER": {"name": "q", "django_redis": "default"}},
        "django-q",
        {"cluster": "q", "secret_key": "S3cret-of-django", "redis": "redis://h/1"},
    ),
    ({"Q_CLUSTER": {"name": "q", "orm": "default", "redis": {"host": "h"}}}, "django-q", 'Django-Q keeps its stats in CACHES["default"], which nobody outside of its process can read'),
    (
        {"EMAIL_BACKEND": "django.core.mail.backends.smtp.EmailBackend", "EMAIL_HOST": "m", "EMAIL_PORT": 587, "EMAIL_USE_TLS": True, "EMAIL_HOST_USER": "u@x", "EMAIL_HOST_PASSWORD": "p"},
        "mail",
        {"url": "smtp://u%40x:p@m:587", "encryption": "starttls"},
    ),
    ({"EMAIL_BACKEND": "django.core.mail.backends.console.EmailBackend"}, "mail", "EMAIL_BACKEND sends no mail over SMTP"),
    ({"MEDIA_ROOT": "/srv/media"}, "storage", {"url": "file:///srv/media", "mode": "write"}),
    (
        {"STORAGES": {"s": {"BACKEND": "storages.backends.s3.S3Storage", "OPTIONS": {"bucket_name": "b", "region_name": "r"}}}, "AWS_S3_SECRET_ACCESS_KEY": "k"},
        {"type": "storage", "alias": "s"},
        {"url": "s3://b", "region": "r", "secret": "k", "mode": "write"},
    ),
    (s3(location="/media/", bucket_name="b"), "storage", {"url": "s3://b", "prefix": "media/checker", "mode": "write"}),
    (s3(bucket_name="b") | {"AWS_LOCATION": "media"}, {"type": "storage", "prefix": "probe"}, {"url": "s3://b", "prefix": "media/probe", "mode": "write"}),
    (s3(location="media", bucket_name="b"), {"type": "storage", "mode": "exists", "path": "a/b.svg"}, {"url": "s3://b", "path": "media/a/b.svg", "mode": "exists"}),
    ({}, {"type": "memory", "max_used": 80}, {"max_used": 80}),
]


def test_what_django_was_told_of_a_dependency_the_checker_is_told_too():
    checks = [check if isinstance(check, dict) else {"type": check} for _, check, _ in TURNED]
    cases = [{"settings": settings, "check": check} for (settings, _, _), check in zip(TURNED, checks)]
    told = json.loads(run_python(CONFIGURED, json.dumps(cases)))
    for (settings, _, wanted), check, got in zip(TURNED, checks, told):
        if isinstance(got, dict):
            got = {key: value for key, value in got.items() if value is not None and key != "type"}
        assert got == wanted, (settings, check)


WRITTEN = """
import datetime, pathlib, sys
from heartbeat.django.toml import Document, Unwritable, value
from heartbeat._checker import Checker
odd = ['a"b', "a\\\\b", "\\x7f\\x00\\n", "\\u2028\\U0001f600", "${HOME}", "$${X}", "'''", "a]b#c"]
document = Document()
document.table("[service]", {"name": "x", "version": "".join(odd)}, "S")
document.table("[server]", {"cache": datetime.timedelta(seconds=1.5), "durations": True, "failure_status": 500, "page": None}, "V")
document.table("[checks.c]", {"type": "command", "command": ["printf", "%s", *(text.replace("\\x00", "") for text in odd)], "timeout": datetime.timedelta(minutes=1)}, "C")
document.add('[subsets]\\nall = ["c"]', "U")
problems, subsets, _ = Checker(text=document.text).read()
assert (subsets, [code for code, *_ in problems]) == (["all"], ["C022"]), problems
status, headers, body = Checker(text=document.text).answer("GET", "/version")
import json
assert json.loads(body)["version"] == "".join(odd), body
for wrong in (b"x", object.__init__, "\\ud800", None):
    try:
        value(wrong)
    except Unwritable:
        continue
    raise AssertionError(wrong)
print("written")
"""


def test_any_text_that_is_written_is_read_back_as_it_is_and_nothing_is_expanded():
    assert run_python(WRITTEN) == "written\n"


SQLITE = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "/nonexistent"}}
CHECKED = """
import json, sys
from django.test import override_settings
from heartbeat.django.configuration import current
from heartbeat.django.system_checks import find
told = []
for health_check in json.load(open("cases")):
    with override_settings(HEALTH_CHECK=health_check):
        answers = []
        for path in ("/readyz", "/healthz"):
            from django.test import Client
            answers.append(Client().get("/healthcheck" + path).status_code)
        told.append([[(message.id, message.msg) for message in find()], answers, current().complaint("")])
print(json.dumps(told))
"""


MISTAKES = [
    (["not a dictionary"], "E001", "HEALTH_CHECK must be"),
    ({"SUBSET": {}}, "E001", 'HEALTH_CHECK["SUBSET"] is no setting'),
    ({"CONFIG": "right.toml", "SUBSETS": {"a": ["database"]}}, "E002", 'HEALTH_CHECK["CONFIG"] names a file'),
    ({"SUBSETS": {"a": ["health_check.cache.backends.CacheBackend"]}}, "E003", 'HEALTH_CHECK["SUBSETS"]["a"][0] is no check'),
    ({"SUBSETS": {"a": "database"}}, "E003", 'HEALTH_CHECK["SUBSETS"]["a"] must be a list'),
    ({"SUBSETS": {"a": ["database", {"type": "database", "timeout": "1s"}]}}, "E003", 'HEALTH_CHECK["SUBSETS"]["a"][1] is another'),
    ({"SUBSETS": {"a": ["cache"]}}, "E004", 'HEALTH_CHECK["SUBSETS"]["a"][0]: CACHES["default"] is'),
    ({"SUBSETS": {"a": ["databse"]}}, "C014", 'HEALTH_CHECK["SUBSETS"]["a"][0]: '),
    ({"SUBSETS": {"a": [{"type": "database", "timout": "1s"}]}}, "C004", 'HEALTH_CHECK["SUBSETS"]["a"][0]: '),
    ({"SUBSETS": {"a": ["b"]}, "CHECKS": {"b": {"type": "database", "timeout": "soon"}}}, "C008", 'HEALTH_CHECK["CHECKS"]["b"]["timeout"]: '),
    ({"SUBSETS": {"a": ["@b", "database"]}}, "C017", 'HEALTH_CHECK["SUBSETS"]["a"]: '),
    ({"SUBSETS": {"a": ["database"]}, "SERVER": {"cach": "1s"}}, "C004", 'HEALTH_CHECK["SERVER"]["cach"]: '),
    ({"SUBSETS": {"a": ["database"]}, "SERVER": {"access": {"path_secret": "S3cret-path"}}}, "E005", "`path_secret` hides"),
    ({"CONFIG": "wrong.toml"}, "C004", "wrong.toml:2:1: "),
    ({"CONFIG": "missing.toml"}, "C001", "missing.toml: the file cannot be read"),
]


def test_each_mistake_is_told_with_its_place_and_fails_every_question_but_liveness(tmp_path):
    site = Site(tmp_path, {"DATABASES": SQLITE, "LOGGING_CONFIG": None, "HEALTH_CHECK": {}})
    site.write("wrong.toml", "[server]\ncach = '1s'\n")
    site.write("right.toml", "[subsets]\nreadiness = ['it']\n[checks.it]\ntype = 'memory'\n")
    site.write("cases", json.dumps([health_check for health_check, _, _ in MISTAKES]))
    told = json.loads(site.python(CHECKED))
    for (health_check, id, place), (messages, answers, complaint) in zip(MISTAKES, told):
        assert [told for told, _ in messages] == [f"heartbeat.{id}"], (health_check, messages)
        assert messages[0][1].startswith(place), messages
        assert "S3cret" not in str(messages)
        # What is no mistake of the checker's hides what there is, and leaves /healthz where it is.
        assert answers == ([404, 200] if id == "E005" else [503, 200]), (health_check, answers)
        assert id == "E005" or place in complaint, complaint


def test_manage_py_check_tells_it_and_so_does_the_command(tmp_path):
    site = Site(tmp_path, {"HEALTH_CHECK": {"CONFIG": "wrong.toml"}, "DATABASES": SQLITE})
    site.write("wrong.toml", "[server]\ncach = '1s'\n")
    check, command = site.command("check"), site.command("health_check", "-s", "a")
    assert check.code == 1 and "?: (heartbeat.C004) wrong.toml:2:1: " in check.err, check
    assert command.code == 2 and "wrong.toml:2:1: " in command.err, command


def found(site):
    """What `manage.py check` tells: ids with the first words of each."""
    done = site.command("check")
    lines = [line for line in done.err.splitlines() if line.startswith("?: (heartbeat.")]
    return done.code, {line[4:].partition(") ")[0]: line.partition(") ")[2] for line in lines}


def test_what_only_warns_fails_nothing(tmp_path):
    health_check = {"SUBSETS": {"a": ["database"], "readyz": ["database"]}, "CHECKS": {"unused": {"type": "memory"}}}
    middleware = ["django.middleware.common.CommonMiddleware", "heartbeat.django.LivenessMiddleware"]
    site = Site(tmp_path, {"HEALTH_CHECK": health_check, "DATABASES": SQLITE, "MIDDLEWARE": middleware})
    code, told = found(site)
    assert (code, set(told)) == (0, {"heartbeat.C021", "heartbeat.W001", "heartbeat.W002"})


CALLED = """
import io, json
from django.core.management import CommandError, call_command
from django.test import override_settings
from django.conf import settings
told = []
for options, server in json.load(open("cases")):
    out, err, code = io.StringIO(), io.StringIO(), 0
    with override_settings(HEALTH_CHECK={**settings.HEALTH_CHECK, "SERVER": server}):
        try:
            call_command("health_check", *options, stdout=out, stderr=err)
        except CommandError as error:
            code, err = error.returncode, io.StringIO(str(error))
        except SystemExit as ended:
            code = ended.code
    told.append([code, out.getvalue(), err.getvalue()])
print(json.dumps(told))
"""


def test_the_command_ends_and_prints_as_checker_run_does(tmp_path):
    checks = {"good": {"type": "command", "command": ["true"]}, "bad": {"type": "tcp", "address": "127.0.0.1:1", "critical": False}}
    site = Site(tmp_path, {"HEALTH_CHECK": {"SUBSETS": {"fine": ["good"], "both": ["good", "bad"]}, "CHECKS": checks}})
    cases = [
        ("-s fine", {}, 0),
        ("--subset both --format json", {}, 1),
        ("-s both", {"warnings_fail": False}, 0),
        ("-s both --format nagios", {}, 1),
        ("-s fine --timeout soon", {}, 2),
        ("-s fin", {}, 2),
        ("-s fine", {"cach": "1s"}, 2),
        ("-s fine --format nagios", {"cach": "1s"}, 3),
    ]
    site.write("cases", json.dumps([(options.split(), server) for options, server, _ in cases]))
    told = json.loads(site.python(CALLED))
    assert [code for code, _, _ in told] == [code for *_, code in cases], told
    assert json.loads(told[1][1])["status"] == "warning"
    assert "Connection refused" in told[1][2] and "Connection refused" not in told[1][1]
    assert " WARNING - " in told[3][1]
    assert "did you mean `fine`?" in told[5][2]
    # As a probe runs it.
    assert site.command("health_check", "--subset", "both", "--skip-checks").code == 1
    assert site.command("health_check").code == 2


def test_a_database_behind_a_unix_socket_with_any_password_is_asked_as_django_asks_it(start, tmp_path):
    database = start(harness.Postgres)
    harness.until(database.answers, timeout=60, what="PostgreSQL answers")
    over_socket = database.django | {"HOST": str(database.folder)}
    site = Site(
        tmp_path,
        {
            "DATABASES": {"default": over_socket, "other": database.django | {"USER": "o'dd"}},
            "HEALTH_CHECK": {
                "SUBSETS": {"readiness": ["database", {"type": "database", "alias": "other"}, "migrations", "cache"]},
                "SERVER": {"detail": "safe"},
            },
            "CACHES": {"default": {"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": "kept things", "KEY_PREFIX": "p"}},
        },
    )
    made = "from django.db import connection\nconnection.cursor().execute(\"CREATE ROLE \\\"o'dd\\\" LOGIN PASSWORD 'a@b/c:d?e#f%g'\")"
    site.python(made)
    site.write("site_settings.py", (site.folder / "site_settings.py").read_text() + "DATABASES['other']['PASSWORD'] = 'a@b/c:d?e#f%g'\n")
    assert site.command("migrate").code == site.command("createcachetable").code == 0
    served = start(Gunicorn, site).ready()
    healthy = {name: {"status": "ok", "reason": None} for name in ("database", "database.other", "migrations", "cache")}
    assert served.ask("/healthcheck/readyz").json == {"status": "ready", "checks": healthy}
    database.kill()

    def all_fail():
        # Each as soon as its answer from before is too old.
        answer = served.ask("/healthcheck/readyz")
        return {check["status"] for check in answer.json["checks"].values()} == {"fail"} and answer

    answer = harness.until(all_fail, what="all are told")
    assert answer.status == 503
    assert b"S3cret" not in answer.body and "S3cret" not in served.output


PYMYSQL = "import pymysql\npymysql.version_info = (2, 2, 7, 'final', 0)\npymysql.install_as_MySQLdb()\n"


def test_a_mysql_at_a_socket_alone_is_asked_there_as_django_asks_it(start, tmp_path):
    database = start(harness.MariaDb, "--skip-networking")
    harness.until(database.answers, timeout=60, what="MariaDB answers")
    socket = str(database.folder / "socket")
    health_check = {"SUBSETS": {"readiness": ["database"]}, "SERVER": {"detail": "safe"}}

    def asked(host, options, code="", **environment):
        site = Site(tmp_path / "site", {"DATABASES": {"default": database.django | {"HOST": host, "OPTIONS": options}}, "HEALTH_CHECK": health_check}, code=code)
        return site, site.command("health_check", "-s", "readiness", **environment)

    for host in ("localhost", ""):
        # As MySQL's own client finds it. That is no Python package, and not here: nobody but the checker asks.
        site, done = asked(host, {}, MYSQL_UNIX_PORT=socket)
        assert done.code == 0, (host, done)
        # With PyMySQL, which is here, Django asks as well.
        site, done = asked(host, {"unix_socket": socket}, PYMYSQL)
        assert done.code == 0, (host, done)
        assert site.python("from django.db import connection\nwith connection.cursor() as it: it.execute('SELECT 1'); print(*it.fetchone())") == "1\n"
    # To PyMySQL `localhost` is a host, where nobody listens.
    site, done = asked("localhost", {}, PYMYSQL, MYSQL_UNIX_PORT=socket)
    assert done.code == 1 and "refused" in done.out + done.err, done
