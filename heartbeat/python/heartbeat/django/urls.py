"""`path("health/", include("heartbeat.django.urls"))`: `healthz`, `readyz`, `startupz`, `version`, and each subset by its name."""

from __future__ import annotations

from django.urls import path, register_converter

from . import views

app_name = "heartbeat"


class Subset:
    """The name of a subset that there is: any other path is left to the site's other URLs."""

    regex = "[^/]+"

    def to_python(self, value: str) -> str:
        if not views.is_subset(value):
            raise ValueError
        return value

    def to_url(self, value: str) -> str:
        return str(value)


register_converter(Subset, "heartbeat_subset")

urlpatterns = [
    pattern
    for endpoint in ("healthz", "readyz", "startupz", "version")
    for pattern in (
        path(endpoint, views.endpoint, {"path": f"/{endpoint}"}, name=endpoint),
        path(f"{endpoint}/", views.endpoint, {"path": f"/{endpoint}"}),
    )
] + [
    path("<heartbeat_subset:subset>", views.subset, name="subset"),
    path("<heartbeat_subset:subset>/", views.subset),
]
