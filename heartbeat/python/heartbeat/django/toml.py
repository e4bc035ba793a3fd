"""Writes settings as the checker's configuration, line by line, and knows of each line which setting it came from."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Mapping
from typing import Any


class Unwritable(ValueError):
    """A value that no configuration can hold."""


class Document:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.places: list[str] = []

    def add(self, line: str, place: str) -> None:
        self.lines.append(line)
        self.places.append(place)

    def table(self, header: str, settings: Mapping[str, Any], place: str, *, places: bool = True) -> None:
        """A table, each of its settings on a line of its own. What is None is not there."""
        self.add(header, place)
        for key, given in settings.items():
            if given is not None:
                self.add(f"{value(str(key))} = {value(given)}", f'{place}["{key}"]' if places else place)

    def place(self, line: int | None) -> str:
        """The setting that a line, counted from 1, came from."""
        return self.places[line - 1] if line and line <= len(self.places) else "HEALTH_CHECK"

    @property
    def text(self) -> str:
        return "".join(f"{line}\n" for line in self.lines)


def value(given: Any) -> str:
    """A value on one line. Nothing in it is expanded: Python has an environment of its own."""
    if isinstance(given, bool):
        return "true" if given else "false"
    if isinstance(given, int):
        return str(given)
    if isinstance(given, float):
        return repr(given)
    if isinstance(given, datetime.timedelta):
        return value(f"{round(given.total_seconds() * 1000)}ms")
    if isinstance(given, os.PathLike):
        return value(os.fspath(given))
    if isinstance(given, Mapping):
        inner = ", ".join(f"{value(str(key))} = {value(item)}" for key, item in given.items() if item is not None)
        return f"{{ {inner} }}"
    if isinstance(given, (list, tuple, set, frozenset)):
        items = sorted(given) if isinstance(given, (set, frozenset)) else given
        return f"[{', '.join(value(item) for item in items)}]"
    if isinstance(given, bytes):
        raise Unwritable("bytes cannot be written into a configuration")
    if given is None or callable(given):
        raise Unwritable(f"a {type(given).__name__} cannot be written into a configuration")
    return quoted(str(given).replace("${", "$${"))


def quoted(text: str) -> str:
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise Unwritable("a text that is not Unicode cannot be written into a configuration")
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
