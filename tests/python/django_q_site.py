"""Settings and tasks of a real Django site whose clusters beat; told by the test, in `$SITE`, what is where."""

import functools
import json
import logging
import os
import signal
import time
from pathlib import Path

SITE = json.loads(os.environ["SITE"])

SECRET_KEY = "not-a-real-secret-0123456789-0123456789-0123456789"
USE_TZ = True
INSTALLED_APPS = SITE.get("apps", ["django_q", "heartbeat.django_q"])
DATABASES = {"default": SITE["database"]}
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
CACHES = {"default": SITE["cache"]}
Q_CLUSTER = {"name": "shop", "workers": 2, "timeout": 60, "retry": 90, "scheduler": False} | SITE["q"]


class Stuck(logging.StreamHandler):
    """A log that takes no more while a file is there, as a full pipe does."""

    def emit(self, record):
        while Path(SITE["folder"], "stuck").exists():
            time.sleep(0.05)
        super().emit(record)


LOGGING = {
    "version": 1,
    "handlers": {"stuck": {"()": Stuck}},
    "loggers": {"django-q": {"handlers": ["stuck"], "level": "INFO"}},
}


def begun(number=0):
    return Path(SITE["folder"], f"begun-{number}")


def work(seconds=0.0, number=0):
    """Tells by a file that it has begun."""
    begun(number).touch()
    time.sleep(seconds)


def hold(number=0, secret=None):
    """Works until the test lets it go."""
    begun(number).touch()
    while not Path(SITE["folder"], "released").exists():
        time.sleep(0.05)


def fail(secret):
    raise ValueError(secret)


def work_deaf(seconds):
    """As a task that is in one long call in C: no signal of the timeout reaches it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
    work(seconds)


def bound(secret, **more):
    return functools.partial(hold, secret=secret, **more)
