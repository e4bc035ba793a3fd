"""Starts real `qcluster` processes that beat, breaks them, and watches without a pause what the real checker says of them."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import harness
from harness import until

HERE = Path(__file__).parent
ROLES = ("sentinel", "worker", "monitor", "pusher")


class Site:
    """A Django site in a folder of its own, with the beat file of its cluster."""

    def __init__(self, start, folder, database, cache, q, **heartbeat):
        self.start, self.folder, self.file = start, folder, folder / "beat"
        short = {"file": str(self.file), "interval": 0.2, "promise": 4}
        q = {"heartbeat": short | heartbeat} | q
        self.site = {"folder": str(folder), "database": database, "cache": cache, "q": q}

    def environment(self, **changes):
        return harness.environment(SITE=json.dumps(self.site), DJANGO_SETTINGS_MODULE="django_q_site", PYTHONUNBUFFERED=1, **changes)

    def manage(self, *arguments, **changes):
        command = [sys.executable, "-m", "django", *arguments]
        return subprocess.run(
            command, env=self.environment(**changes), cwd=HERE, capture_output=True, text=True, timeout=120, check=False
        )

    def shell(self, code):
        """Runs code in the site, and gives what it printed."""
        code = f"import django; django.setup()\nfrom django_q.tasks import async_task, fetch\nfrom django_q_site import *\n{code}"
        done = subprocess.run(
            [sys.executable, "-c", code], env=self.environment(), cwd=HERE, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def send(self, *calls):
        """Sends tasks: each is what stands between the brackets of `async_task(…)`."""
        self.shell("\n".join(f"async_task({call})" for call in calls))

    def has_begun(self, number=0, timeout=30):
        until((self.folder / f"begun-{number}").exists, timeout, what=f"task {number} has begun")

    def begin(self, call, number=0):
        """Sends a task, and waits until it has begun."""
        self.send(call)
        self.has_begun(number)

    def release(self):
        """Lets the tasks go that hold."""
        (self.folder / "released").touch()

    def stats(self):
        """What Django-Q2 says itself of its clusters."""
        return self.shell("from django_q.status import Stat\nprint(*(str(stat.status) for stat in Stat.get_all()))").split()

    def cluster(self, **changes):
        return Cluster(self, self.start(harness.Program, [sys.executable, "-m", "django", "qcluster"], self.environment(**changes), HERE))


class Cluster:
    """A `qcluster` that runs, and its processes by what they are."""

    def __init__(self, site, program):
        self.site, self.program = site, program

    def running(self):
        until(lambda: "running" in self.output and "pushing" in self.output, timeout=60, what=lambda: self.output)
        return self

    @property
    def output(self):
        return self.program.output

    @property
    def main(self):
        return self.program.pid

    @property
    def sentinel(self):
        (sentinel,) = children(self.main)
        return sentinel

    def pids(self, role):
        """The processes of this role that live, the oldest first, by what they say of themselves when they start."""
        words = {"worker": "ready for work at", "monitor": "monitoring at", "pusher": "pushing tasks at"}[role]
        told = [int(line.rpartition(" ")[2]) for line in self.program.lines if words in line]
        living = children(self.sentinel)
        return [pid for pid in told if pid in living]

    def pid(self, role):
        return self.sentinel if role == "sentinel" else until(lambda: self.pids(role), timeout=20, what=f"a {role}")[0]

    def at_work_on(self, call):
        """The worker that has begun this last, by its log."""
        line = [line for line in self.program.lines if " processing " in line and call in line][-1]
        name = line.split(" processing ")[0].split()[-1]
        return next(int(line.rpartition(" ")[2]) for line in self.program.lines if f"{name} ready for work at" in line)

    def kill(self, role, number=signal.SIGKILL):
        pid = self.pid(role)
        os.kill(pid, number)
        return pid

    def terminate(self):
        self.program.signal(signal.SIGTERM)


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]


class Watched:
    """Asks the real checker about a beat file again and again, and keeps every answer."""

    def __init__(self, file, *arguments, every=0.15):
        self.file, self.arguments, self.every = file, arguments, every
        self.answers = []
        self._failure = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._ended.set()
        self._thread.join(30)

    def _run(self):
        try:
            while not self._ended.wait(self.every):
                self.answers.append((time.monotonic(), harness.verdict(self.file, *self.arguments)))
        except BaseException as error:
            self._failure = error

    def now(self):
        """The last answer: to be passed to what asks about it and those after it."""
        return max(len(self.answers) - 1, 0)

    def until(self, *verdicts, timeout=30, reason=""):
        """Waits for an answer made after this moment with one of these verdicts; gives it, and the seconds that took."""
        asked, begun = len(self.answers) + 1, time.monotonic()

        def told():
            assert self._failure is None, self._failure
            fits = (
                (moment, answer)
                for moment, answer in self.answers[asked:]
                if answer.name in verdicts and reason in answer.answer["reason"]
            )
            return next(fits, None)

        moment, answer = until(told, timeout, what=lambda: f"{verdicts} {reason}, but {self.told(asked)}")
        return answer, moment - begun

    def told(self, since=0):
        """The verdicts in a row, without repetition."""
        names = [answer.name for _, answer in self.answers[since:]]
        return [name for before, name in zip([None, *names], names) if name != before]

    def dead(self, since=0):
        """The answers that would have had the worker killed."""
        return [(answer.name, answer.answer["reason"]) for _, answer in self.answers[since:] if answer.status == "fail"]


def template(folder):
    """An SQLite database of such a site with all its tables, to be copied."""
    made = folder / "db.sqlite3"
    if not made.exists():
        database = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(folder / "new")}
        migrate(Site(None, folder, database, own_cache(), {}))
        (folder / "new").rename(made)
    return made


def migrate(site):
    site.shell("from django.core.management import call_command\ncall_command('migrate', verbosity=0)\ncall_command('createcachetable')")


def sqlite(folder, copied):
    shutil.copy(copied, folder / "db.sqlite3")
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": str(folder / "db.sqlite3"), "OPTIONS": {"timeout": 20}}


def own_cache():
    return {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}


def table_cache():
    return {"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": "q_cache"}
