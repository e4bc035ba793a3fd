"""The app: its system checks, and that `runserver` starts anew where the configuration file has changed."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.core import checks
from django.core.signals import setting_changed
from django.utils.autoreload import autoreload_started

from . import configuration
from .system_checks import find


class HeartbeatConfig(AppConfig):  # type: ignore[misc, unused-ignore]
    name = "heartbeat.django"
    # The last part of the name alone would be Django's own.
    label = "heartbeat"
    verbose_name = "Heartbeat"

    def ready(self) -> None:
        checks.register(find)
        setting_changed.connect(configuration.forget)
        autoreload_started.connect(watch)


def watch(sender: Any, **_: Any) -> None:
    file = configuration.file()
    if file is not None:
        sender.extra_files.add(file.absolute())
