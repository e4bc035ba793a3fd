"""Who judges a worker, asked again and again from its start on: our checker, and FOJ's real check, each on both files."""

import contextlib
import subprocess
import threading
import time
import traceback
from dataclasses import dataclass

import foj  # noqa: F401  configures Django
from django.test import override_settings
from health_check.contrib.celery_heartbeat.backends import CeleryHeartbeatHealthCheck

import harness

# For how long silence may last, in seconds: our promise, and FOJ's CELERY_HEARTBEAT_MAX_AGE.
LIMIT = 4
# FOJ's own default.
FOJ_DEFAULT = 60

# How soon after the moment of truth a judge must have told, in seconds. Whoever reads the record: 1.2 s that Celery has to end a
# task at its limit, a beat, and what a busy machine takes. Whoever reads the mtime: the limit too.
SOON = 3.0
BY_MTIME = LIMIT + SOON

_settings = threading.Lock()


def foj_passes(file, max_age):
    """The answer of FOJ's check itself: what its command and its view run."""
    with _settings, override_settings(
        HEALTH_CHECK={"CELERY_HEARTBEAT_FILE": str(file), "CELERY_HEARTBEAT_MAX_AGE": max_age}
    ):
        check = CeleryHeartbeatHealthCheck()
        check.run_check()
        return not check.errors


def known_verdict(file, *arguments, tries=3):
    """What our checker says. None where it says, again and again, that it cannot tell, or does not come to say it: what this
    machine has too little time for is neither right nor wrong."""
    for _ in range(tries):
        with contextlib.suppress(subprocess.TimeoutExpired):
            verdict = harness.verdict(file, *arguments)
            if verdict.name != "unknown":
                return verdict
    return None


@dataclass(frozen=True)
class Look:
    """What all judges said between two moments; None of who was not asked."""

    began: float
    ended: float
    verdict: str | None
    ours: bool | None
    foj: bool | None
    foj_by_default: bool | None
    foj_on_ours: bool | None
    ours_on_foj: bool | None


class Watch(threading.Thread):
    """Looks at one worker's files every `period` seconds, until told to end; a look that cannot be had goes into `failures`."""

    def __init__(self, our_file, foj_file, period, failures):
        super().__init__(daemon=True)
        self.our_file, self.foj_file, self.period = our_file, foj_file, period
        self.looks, self.failures = [], failures
        self._over = threading.Event()
        self.start()

    def run(self):
        wait = 0.0
        while not self._over.wait(wait):
            begin = time.monotonic()
            try:
                self.looks.append(self.look())
            except Exception:
                # It is told, and the next look is had all the same.
                self.failures[f"a look at {self.our_file or self.foj_file}"] = traceback.format_exc()
            wait = max(0.0, begin + self.period - time.monotonic())

    def look(self):
        began = time.monotonic()
        ours = foj_on_ours = foj = foj_by_default = ours_on_foj = None
        if self.our_file:
            ours = known_verdict(self.our_file)
            foj_on_ours = foj_passes(self.our_file, LIMIT)
        if self.foj_file:
            foj, foj_by_default = foj_passes(self.foj_file, LIMIT), foj_passes(self.foj_file, FOJ_DEFAULT)
            if len(self.looks) % 3 == 0:
                ours_on_foj = known_verdict(self.foj_file, "--max-age", f"{LIMIT}s")
        return Look(
            began,
            time.monotonic(),
            ours and ours.name,
            ours and ours.passes,
            foj,
            foj_by_default,
            foj_on_ours,
            ours_on_foj and ours_on_foj.passes,
        )

    def end(self):
        self._over.set()
        self.join(30)
