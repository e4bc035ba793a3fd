"""The Django app: puts the sentinel that beats in the place of Django-Q2's own, and checks the settings."""

from __future__ import annotations

from django.apps import AppConfig, apps
from django.core import checks

from . import settings


class HeartbeatConfig(AppConfig):
    name = "heartbeat.django_q"
    # The last part of the name, which is the default, is Django-Q2's own.
    label = "heartbeat_django_q"
    verbose_name = "Heartbeat of Django-Q2"

    def ready(self) -> None:
        checks.register(settings.check)
        # A site where Django-Q2 is not installed has no cluster, and the check says so.
        if apps.is_installed("django_q"):
            from .sentinel import install

            install()
