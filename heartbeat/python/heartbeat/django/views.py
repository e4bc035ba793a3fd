"""The endpoints: a question is handed to the checker as it came, and its answer as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt

from .. import _checker
from .configuration import Unusable, current, log
from .hub import off_the_hub
from .middleware import alive

# What the checker cannot answer, and why is in the log.
UNUSABLE = b'{"error":"the configuration cannot be used"}\n'
FAILED = b'{"error":"there is no answer"}\n'


def is_subset(name: str) -> bool:
    return name == "liveness" or name in current().subsets


def ask(request: HttpRequest, path: str) -> HttpResponse:
    """What `checker serve` answers at this path."""
    try:
        status, headers, body = off_the_hub(
            current().checker.answer,
            request.method or "",
            path,
            query=request.META.get("QUERY_STRING", ""),
            headers=sent(request),
            client=client(request),
            encrypted=request.is_secure(),
            asked_at=quote(request.path),
        )
    except (Unusable, ValueError) as unusable:
        current().tell(unusable)
        # A mistake in a configuration is nothing that a restart would mend.
        return alive(request) if path == "/healthz" else refused(UNUSABLE)
    except Exception:
        log.exception("no answer to a question of health")
        return refused(FAILED)
    finally:
        for level, line in _checker.changes():
            log.log(level, "%s", line)
    response = HttpResponse(body, status=status, headers={"Content-Length": str(len(body))})
    for name, value in headers:
        # To HEAD there is a length, and no body.
        response[name] = value
    return response


def ask_subset(request: HttpRequest, subset: str) -> HttpResponse:
    """What `checker serve` answers about a subset."""
    return ask(request, f"/healthcheck/{quote(subset, safe='')}")


def refused(body: bytes) -> HttpResponse:
    return HttpResponse(body, status=503, content_type="application/json", headers={"Cache-Control": "no-store"})


def sent(request: HttpRequest) -> list[tuple[str, bytes]]:
    """The headers as they came: a server gives their bytes as Latin-1."""
    return [
        (name[5:].replace("_", "-"), raw(value))
        for name, value in request.META.items()
        if name.startswith("HTTP_") and isinstance(value, str)
    ]


def raw(value: str) -> bytes:
    try:
        return value.encode("latin-1")
    except UnicodeEncodeError:
        return value.encode("utf-8", "surrogateescape")


def client(request: HttpRequest) -> str | None:
    """The other end of the connection. A server tells of a Unix socket with no address at all, and then it is this machine."""
    address = request.META.get("REMOTE_ADDR")
    return "127.0.0.1" if address == "" else address


def untouched(view: Callable[..., HttpResponse]) -> Any:
    """Whoever may ask is decided by the checker's own rules, not by a session; and nothing is asked of Django's databases."""
    for alias in connections.settings:
        view = transaction.non_atomic_requests(alias)(view)
    return csrf_exempt(view)


endpoint, subset = untouched(ask), untouched(ask_subset)
endpoint.login_required = subset.login_required = False
