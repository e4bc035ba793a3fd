"""Liveness, answered before anything else of the site runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed

DEFAULT_PATH = "/healthcheck/liveness"
ALIVE = b'{"status":"ok","checks":{}}\n'


class LivenessMiddleware:
    """Answers `HEALTH_CHECK["LIVENESS_PATH"]` with 200, and touches nothing for it: no configuration, no database, no session.

    It must come first in `MIDDLEWARE`. The slash at the end of the path does not matter.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        # A path that would take the place of the site's front page is a mistake, which `manage.py check` tells.
        self.path = liveness_path() or DEFAULT_PATH
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        if self.is_async:
            return self.later(request)
        return self.answer(request) or self.get_response(request)

    async def later(self, request: HttpRequest) -> HttpResponse:
        return self.answer(request) or await self.get_response(request)

    def answer(self, request: HttpRequest) -> HttpResponse | None:
        if self.path not in (request.path.rstrip("/"), request.path_info.rstrip("/")):
            return None
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET", "HEAD"])
        return alive(request)


def liveness_path() -> str | None:
    """Where it answers, without a slash at the end; nothing where that is no path of its own."""
    given = getattr(settings, "HEALTH_CHECK", None)
    path = str(given.get("LIVENESS_PATH", DEFAULT_PATH) if isinstance(given, Mapping) else DEFAULT_PATH).rstrip("/")
    return path if path.startswith("/") else None


def alive(request: HttpRequest) -> HttpResponse:
    """The answer that the process is up, which the checker gives at `/healthz` too."""
    body = ALIVE if request.method == "GET" else b""
    return HttpResponse(
        body,
        content_type="application/json",
        headers={"Cache-Control": "no-store", "Content-Length": str(len(ALIVE))},
    )
