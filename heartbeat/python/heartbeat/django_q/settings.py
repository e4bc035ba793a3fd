"""`Q_CLUSTER["heartbeat"]`: what it may hold, and what stands for what it does not."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.core import checks

if TYPE_CHECKING:
    from collections.abc import Sequence

# All that `heartbeat.Heartbeat` takes.
OF_HEARTBEAT = (
    "file", "file_mode", "redis", "cluster", "worker", "queues", "version", "interval", "promise", "loop_budget", "start_deadline",
    "drain_deadline", "endpoint",
)  # fmt: skip
# Seconds that a task may take in a cluster that has no timeout, nor the task one of its own.
TASK_DEADLINE = "task_deadline"

# What the guard's loop may take beside its sleep, in seconds.
LOOP_BUDGET = 30.0


def given() -> dict[str, Any]:
    """As Django-Q2 has read them, so with what `ALT_CLUSTERS` says of this cluster."""
    from django_q.conf import Conf

    found = Conf.conf.get("heartbeat") or {}
    return dict(found) if isinstance(found, dict) else {}


def for_heartbeat() -> dict[str, Any]:
    """The arguments for `heartbeat.Heartbeat`: what is given, what the environment does not say, and nothing else."""
    from django_q.conf import Conf

    arguments = {key: value for key, value in given().items() if key in OF_HEARTBEAT}
    defaults = {
        "cluster": (Conf.PREFIX, "HEARTBEAT_CLUSTER"),
        "queues": ([Conf.CLUSTER_NAME], "HEARTBEAT_QUEUES"),
        # The loop sleeps for as long as its cycle is.
        "loop_budget": (LOOP_BUDGET + Conf.GUARD_CYCLE, "HEARTBEAT_LOOP_BUDGET"),
    }
    for key, (value, variable) in defaults.items():
        if key not in arguments and not os.environ.get(variable):
            arguments[key] = value
    return arguments


def task_deadline() -> float | None:
    """In seconds. Raises `TypeError` or `ValueError` where that cannot be."""
    found = given().get(TASK_DEADLINE)
    if found is None:
        return None
    seconds = found.total_seconds() if isinstance(found, timedelta) else float(found)
    if not 0 < seconds < float("inf"):
        raise ValueError(f"a task's deadline is a number of seconds above 0, not {found!r}")
    return seconds


def check(app_configs: Sequence[Any] | None = None, **options: Any) -> list[checks.CheckMessage]:
    """A system check, which `qcluster` runs before it starts."""
    if not apps.is_installed("django_q"):
        words = "heartbeat.django_q is installed, and django_q is not."
        return [checks.Error(words, hint="Add 'django_q' to INSTALLED_APPS.", id="heartbeat_django_q.E001")]
    from django_q.conf import Conf

    found = Conf.conf.get("heartbeat", {})
    if not isinstance(found, dict):
        words = f"Q_CLUSTER['heartbeat'] must be a dictionary, not {type(found).__name__}."
        return [checks.Error(words, id="heartbeat_django_q.E002")]
    known = (*OF_HEARTBEAT, TASK_DEADLINE)
    hint = f"There are: {', '.join(known)}."
    return [
        checks.Error(f"Q_CLUSTER['heartbeat'] has no setting {key!r}.", hint=hint, id="heartbeat_django_q.E003")
        for key in found
        if key not in known
    ]
