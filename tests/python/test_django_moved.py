"""A project with the configuration of FOJ's README, and the same one moved by the table of the documentation: they tell the same,
over HTTP and by the command, with all well and with one dependency after another gone.

FOJ is django-health-check-full-of-juice.
"""

import ast
import json
import re
import sys
from concurrent.futures import ThreadPoolExecutor

import harness
from django_site import Gunicorn, Site

PAGE = (harness.REPOSITORY / "heartbeat" / "python" / "coming-from-full-of-juice.md").read_text()
# As its README has them, in full.
READINESS = [
    "health_check.contrib.migrations.backends.MigrationsHealthCheck",
    "health_check.contrib.db_heartbeat.backends.DatabaseHeartbeatCheck",
]
INTEGRATIONS = [
    *READINESS,
    "health_check.cache.backends.CacheBackend",
    "health_check.storage.backends.DefaultFileStorageHealthCheck",
    "health_check.contrib.redis.backends.RedisHealthCheck",
    "health_check.contrib.celery_ping.backends.CeleryPingHealthCheck",
    "health_check.contrib.rabbitmq.backends.RabbitMQHealthCheck",
]
# What FOJ's answers call each of them, and ours.
NAMES = {
    "MigrationsHealthCheck": "migrations",
    "DatabaseHeartbeatCheck": "database",
    "Cache backend: default": "cache",
    "DefaultFileStorageHealthCheck": "storage",
    "RedisHealthCheck": "redis",
    "CeleryPingHealthCheck": "celery",
    "RabbitMQHealthCheck": "rabbitmq",
}
CELERY = """
import os
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site_settings")
from celery import Celery
app = Celery("shop")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.set_default()
"""
MIGRATION = """
from django.db import migrations, models
class Migration(migrations.Migration):
    initial = True
    dependencies = {dependencies}
    operations = {operations}
"""
MODEL = '[migrations.CreateModel("Goods", [("id", models.AutoField(primary_key=True))])]'
URLS = 'from django.urls import include, path\nurlpatterns = [path("healthcheck/", include("{app}.urls"))]\n'


def moved(path):
    """The entry in the place of a class, by the table."""
    row = re.search(rf"^\| `{re.escape(path.removeprefix('health_check.'))}` \| `(.+?)` \|", PAGE, re.M)
    assert row, f"the page has no row for {path}"
    return ast.literal_eval(row[1])


class Both:
    """The two sites, on the same dependencies, and what each says."""

    def __init__(self, folder, start, shared):
        subsets = {"readiness": READINESS, "integrations": INTEGRATIONS}
        theirs = {
            "INSTALLED_APPS": ["django.contrib.contenttypes", "shop", "health_check"],
            "MIDDLEWARE": ["health_check.middleware.LivenessMiddleware"],
            "HEALTH_CHECK": {"SUBSETS": subsets},
        }
        ours = {
            "INSTALLED_APPS": ["django.contrib.contenttypes", "shop", "heartbeat.django"],
            "MIDDLEWARE": ["heartbeat.django.LivenessMiddleware"],
            "HEALTH_CHECK": {
                "SUBSETS": {name: [moved(path) for path in paths] for name, paths in subsets.items()},
                "SERVER": {"failure_status": 500, "cache": "100ms"},
            },
        }
        self.sites = {}
        for name, settings, app in [("theirs", theirs, "health_check"), ("ours", ours, "heartbeat.django")]:
            site = Site(folder / name, shared | settings, urls=URLS.format(app=app))
            site.write("shop/__init__.py", "")
            site.write("shop/celery.py", CELERY)
            site.write("shop/models.py", "from django.db import models\n\n\nclass Goods(models.Model):\n    id = models.AutoField(primary_key=True)\n")
            site.write("shop/migrations/__init__.py", "")
            site.write("shop/migrations/0001_initial.py", MIGRATION.format(dependencies="[]", operations=MODEL))
            site.write("site_wsgi.py", "import shop.celery\nfrom django.core.wsgi import get_wsgi_application\napplication = get_wsgi_application()\n")
            # FOJ's check asks whatever Celery app the process has made.
            site.write("shop/apps.py", "from django.apps import AppConfig\n\n\nclass Shop(AppConfig):\n    name = 'shop'\n\n    def ready(self):\n        import shop.celery\n")
            self.sites[name] = site
        self.start = start

    def serve(self):
        self.served = {name: self.start(Gunicorn, site, "--workers", "1", "--threads", "8") for name, site in self.sites.items()}
        for served in self.served.values():
            served.ready()

    def over_http(self, subset):
        """By each site: the status, and what it tells of each check."""
        theirs = self.served["theirs"].ask(f"/healthcheck/{subset}/?format=json", timeout=60)
        ours = self.served["ours"].ask(f"/healthcheck/{subset}/?format=json", timeout=60)
        told = {NAMES[name]: "ok" if words == "working" else "fail" for name, words in theirs.json.items()}
        return (theirs.status, told), (ours.status, ours.json["checks"])

    def by_command(self, subset):
        with ThreadPoolExecutor() as pool:
            begun = [
                pool.submit(self.sites[name].command, "health_check", "-s", subset, "--skip-checks", *more)
                for name, more in (("theirs", ()), ("ours", ("--format", "json")))
            ]
            theirs, ours = (one.result() for one in begun)
        told = {}
        for line in theirs.lines:
            name, between, words = line.partition(" ... ")
            if between:
                told[NAMES[name.strip()]] = "ok" if words == "working" else "fail"
        own = {name: check["status"] for name, check in json.loads(ours.out)["checks"].items()}
        return (theirs.code, told), (ours.code, own)

    def tell(self, subset, failing):
        """Both tell that these fail and no other, in both ways."""
        names = [moved(path) for path in (READINESS if subset == "readiness" else INTEGRATIONS)]
        states = {name: "fail" if name in failing else "ok" for name in names}
        fails = any(state == "fail" for state in states.values())
        wanted = (500 if fails else 200, states)

        def both():
            theirs, ours = self.over_http(subset)
            self.last = (theirs, ours)
            return theirs == wanted and ours == wanted

        self.wait(both, wanted)
        theirs, ours = self.by_command(subset)
        assert theirs == ours == (int(fails), states), (subset, failing)

    def wait(self, both, wanted):
        try:
            harness.until(both, timeout=60)
        except AssertionError:
            raise AssertionError(f"wanted {wanted}\ntheirs {self.last[0]}\nours   {self.last[1]}") from None


def test_the_same_subsets_answer_the_same_healthy_and_with_each_dependency_gone(start, tmp_path, own_broker, rabbitmq):
    database = start(harness.Postgres)
    harness.until(database.answers, timeout=60, what="PostgreSQL answers")
    shared = {
        "DATABASES": {"default": database.django},
        "CACHES": {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": own_broker.url}},
        "MEDIA_ROOT": str(tmp_path / "media"),
        "REDIS_URL": own_broker.url,
        "BROKER_URL": rabbitmq.url,
        "CELERY_BROKER_URL": rabbitmq.url,
    }
    (tmp_path / "media").mkdir()
    both = Both(tmp_path, start, shared)
    done = both.sites["ours"].command("migrate")
    assert done.code == 0, done
    worker = start(
        harness.Program,
        [sys.executable, "-m", "celery", "-A", "shop.celery", "worker", "--pool", "solo", "-l", "INFO", "-n", "one@%h"],
        both.sites["ours"].environment(),
        both.sites["ours"].folder,
    )
    harness.until(lambda: "ready." in worker.output, timeout=60, what="the worker is ready")
    assert both.sites["ours"].command("check").code == 0
    both.serve()

    both.tell("readiness", set())
    both.tell("integrations", set())

    own_broker.signal(9)
    own_broker.exit_status()
    both.tell("integrations", {"cache", "redis"})
    both.tell("readiness", set())

    worker.signal(9)
    worker.exit_status()
    both.tell("integrations", {"cache", "redis", "celery"})

    for site in both.sites.values():
        site.write("shop/migrations/0002_more.py", MIGRATION.format(dependencies='[("shop", "0001_initial")]', operations="[]").replace("initial = True", ""))
    both.tell("readiness", {"migrations"})

    database.kill()
    both.tell("readiness", {"migrations", "database"})
    assert both.served["ours"].ask("/healthcheck/liveness").status == both.served["theirs"].ask("/healthcheck/liveness").status == 200
