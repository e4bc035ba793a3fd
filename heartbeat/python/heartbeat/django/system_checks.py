"""`manage.py check` tells what `checker validate` does, each mistake with its setting or its line."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning

from .configuration import Configuration, current

CONSEQUENCES = ("C016", "C019")
ENDPOINTS = ("healthz", "readyz", "startupz", "version")
MIDDLEWARE = "heartbeat.django.LivenessMiddleware"


def find(app_configs: Any = None, **_: Any) -> list[CheckMessage]:
    return [*of_configuration(current()), *of_middleware()]


def of_configuration(configuration: Configuration) -> list[CheckMessage]:
    found: list[CheckMessage] = [
        Error(mistake.what, hint=mistake.hint, id=f"heartbeat.{mistake.id}") for mistake in configuration.mistakes
    ]
    problems, has_secret_path = configuration.problems()
    if found:
        # What could not be written is missed where it is listed.
        problems = [problem for problem in problems if problem.code not in CONSEQUENCES]
    for problem in problems:
        kind = Warning if problem.is_warning else Error
        found.append(kind(f"{problem.place}: {problem.what}", id=f"heartbeat.{problem.code}"))
    hidden = sorted(configuration.subsets & set(ENDPOINTS))
    if hidden:
        what = f"no URL leads to the subset {hidden[0]!r}: an endpoint has this name"
        found.append(Warning(what, hint="Give it another name.", id="heartbeat.W002"))
    if has_secret_path:
        what = "`path_secret` hides every endpoint but /healthz from a Django site, whose paths are its own"
        found.append(Error(what, hint="Put the secret into the path that the URLs are included at.", id="heartbeat.E005"))
    return found


def of_middleware() -> list[CheckMessage]:
    given = list(getattr(settings, "MIDDLEWARE", None) or [])
    if MIDDLEWARE not in given[1:]:
        return []
    what = f"{MIDDLEWARE} is not the first of MIDDLEWARE: liveness depends on what stands above it"
    return [Warning(what, hint="Move it to the top.", id="heartbeat.W001")]
