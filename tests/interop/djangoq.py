"""Starts real `qcluster` processes for tests, sends them tasks, and asks FOJ's check and ours about them."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import harness

SECRET_KEY = "not-a-real-secret-0123456789-0123456789-0123456789"


def redis_cache(broker):
    return {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": broker.url, "KEY_PREFIX": "shop", "VERSION": 3}


def table_cache():
    return {"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": "q cache"}


def own_cache():
    return {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}


@dataclass(frozen=True)
class Answer:
    code: int
    told: dict
    standard_error: str

    @property
    def status(self):
        return self.told["status"]

    @property
    def verdicts(self):
        return sorted(worker["verdict"] for worker in self.told["workers"])


class Site:
    """A Django site in a folder of its own. `source` is what `checker cluster` is told about it."""

    def __init__(self, start, folder, source, q, cache=None, database=None, **more):
        self.start, self.folder, self.source = start, folder, [str(part) for part in source]
        database = database or {"ENGINE": "django.db.backends.sqlite3", "NAME": str(folder / "db.sqlite3"), "OPTIONS": {"timeout": 20}}
        self.site = {"secret_key": SECRET_KEY, "database": database, "cache": cache or own_cache(), "q": q} | more

    def environment(self, **changes):
        return harness.environment(SITE=json.dumps(self.site | changes), DJANGO_SETTINGS_MODULE="djangoq_site", PYTHONUNBUFFERED=1)

    def manage(self, *arguments, **changes):
        command = [sys.executable, "-m", "django", *arguments]
        return subprocess.run(
            command, env=self.environment(**changes), cwd=Path(__file__).parent, capture_output=True, text=True, timeout=120, check=False
        )

    def migrated(self):
        for command in (["migrate", "--verbosity", "0"], ["createcachetable"]):
            done = self.manage(*command)
            assert done.returncode == 0, done.stderr
        return self

    def cluster(self, under=(), **changes):
        """A `qcluster`. It leads a session of its own, and of its processes the last one started guards the others."""
        command = [*under, sys.executable, "-m", "django", "qcluster"]
        return self.start(harness.Program, command, self.environment(**changes), Path(__file__).parent)

    def busy_for(self, seconds):
        """Sends a task, and waits until it has begun."""
        begun = str(self.folder / "begun")
        call = f"async_task('djangoq_site.work', {begun!r}, {seconds})"
        code = f"import django; django.setup(); from django_q.tasks import async_task; {call}"
        subprocess.run([sys.executable, "-c", code], env=self.environment(), cwd=Path(__file__).parent, timeout=60, check=True)
        harness.until(lambda: Path(begun).exists(), timeout=30, what="the task has begun")

    def foj(self, which="cluster", **changes):
        """FOJ's words, and whether its check passed."""
        done = self.manage("health_check", "-s", which, **changes)
        return done.stdout + done.stderr, done.returncode == 0

    def ask(self, *arguments, key=SECRET_KEY, name="shop"):
        command = [harness.CHECKER, "cluster", name, "--source", "django-q", *self.source, "--format", "json", "--list", *arguments]
        command = [str(part) for part in command]
        environment = harness.environment(DJANGO_SECRET_KEY=key)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode in (0, 1), f"{command}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        assert key not in done.stdout + done.stderr
        return Answer(done.returncode, json.loads(done.stdout), done.stderr)

    def until(self, fact, *arguments, timeout=40, **options):
        """The first answer of ours of which this is true."""
        answers = []

        def asked():
            answers[:] = [self.ask(*arguments, **options)]
            return fact(answers[0]) and answers[0]

        return harness.until(asked, timeout=timeout, what=lambda: answers)

    def until_passes(self, *arguments, **options):
        return self.until(lambda answer: answer.status == "pass", *arguments, **options)

    def until_fails(self, *arguments, **options):
        return self.until(lambda answer: answer.status == "fail", *arguments, **options)
