"""`manage.py health_check --subset NAME`: a subset's checks asked once, as `checker run` does."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from ...configuration import Unusable, current

FORMATS = ("text", "json", "health+json", "nagios", "openmetrics")


class Command(BaseCommand):  # type: ignore[misc, unused-ignore]
    help = (
        "Run a subset's checks. Exit status: 0 passed, 1 failed, 2 invalid arguments or configuration, 3 unexpected failure; "
        "with --format nagios: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN."
    )
    # A probe asks for one thing, many times a minute; what is wrong with this app's own settings it tells itself.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("-s", "--subset", required=True, help="a name under the configuration's subsets")
        parser.add_argument("--format", choices=FORMATS, default="text", help="how the report is shown (default: text)")
        parser.add_argument("--timeout", metavar="DUR", default="5s", help="how long the checks may take, Django's own start apart (default: 5s)")
        parser.add_argument("--skip-checks", action="store_true", help="nothing changes: the command never runs Django's system checks")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            asked = current().checker.run(options["subset"], format=options["format"], timeout=options["timeout"])
        except (Unusable, ValueError) as wrong:
            raise CommandError(current().complaint(wrong), returncode=3 if options["format"] == "nagios" else 2) from None
        except RuntimeError as failure:
            raise CommandError(str(failure), returncode=3) from None
        status, report, log = asked
        self.stdout.write(report, ending="")
        for line in log:
            self.stderr.write(line, self.style.NOTICE)
        self.stdout.flush()
        if status:
            sys.exit(status)
