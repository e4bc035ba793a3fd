"""The health check of django-health-check-full-of-juice, run as its users run it: `manage.py health_check -s NAME`."""

import io
import logging

import django
from django.conf import settings
from django.core.management import call_command
from django.test import override_settings

if not settings.configured:
    settings.configure()
    django.setup()
    logging.getLogger("django_health_check_full_of_juice").setLevel(logging.CRITICAL)
    logging.getLogger("health-check").setLevel(logging.CRITICAL)

CHECK = "health_check.contrib.celery_heartbeat.backends.CeleryHeartbeatHealthCheck"


def answer(file, max_age=None):
    """The command's words, and whether it passed; without `max_age` by FOJ's own default, 60 s."""
    health_check = {"SUBSETS": {"liveness": [CHECK]}, "CELERY_HEARTBEAT_FILE": str(file)}
    if max_age is not None:
        health_check["CELERY_HEARTBEAT_MAX_AGE"] = max_age
    words = io.StringIO()
    with override_settings(HEALTH_CHECK=health_check):
        try:
            from health_check.management.commands.health_check import Command

            call_command(Command(), subset="liveness", stdout=words)
        except SystemExit as exit:
            return words.getvalue(), exit.code == 0
    return words.getvalue(), True


def passes(file, max_age=None):
    return answer(file, max_age)[1]
