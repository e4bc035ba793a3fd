"""`HEALTH_CHECK` as the checker takes it: a configuration file, or the settings themselves written as one."""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from django.conf import settings

from . import dependencies
from .middleware import liveness_path
from .toml import Document, Unwritable, quoted, value

if TYPE_CHECKING:
    from .._checker import Checker

KNOWN = ("CONFIG", "SUBSETS", "CHECKS", "SERVER", "SERVICE", "LIVENESS_PATH")
WRITTEN = KNOWN[1:5]

log = logging.getLogger("heartbeat.checker")


class Mistake(NamedTuple):
    """Something in the settings that the checker is never told."""

    id: str
    what: str
    hint: str | None = None


class Problem(NamedTuple):
    """Something that the checker finds in its configuration."""

    code: str
    is_warning: bool
    place: str
    what: str


class Unusable(Exception):
    """There is nothing that could be asked."""


class Configuration:
    """What `HEALTH_CHECK` says. Making it reads no file and asks nothing."""

    def __init__(
        self, checker: Checker, mistakes: list[Mistake], document: Document | None, file: Path | None, listed: Iterable[str] = ()
    ) -> None:
        self._checker = checker
        self.mistakes = mistakes
        self._document = document
        self._file = file
        self._listed = frozenset(listed)
        self._subsets: frozenset[str] | None = None
        self._told: str | None = None

    @property
    def checker(self) -> Checker:
        """What can be asked. Unusable where the settings have a mistake that the checker could not know of."""
        if self.mistakes:
            raise Unusable
        return self._checker

    @property
    def subsets(self) -> frozenset[str]:
        """The names of the subsets. Where the configuration cannot be used, those that the settings list: they are answered still."""
        if self._subsets is None:
            _, names, _ = self._checker.read()
            if names is None:
                return self._listed
            self._subsets = frozenset(names)
        return self._subsets

    def problems(self) -> tuple[list[Problem], bool]:
        """What `checker validate` says of it, and whether it has a secret path."""
        problems, _, has_secret_path = self._checker.read()
        return [Problem(code, warns, self._place(line, column), what) for code, warns, line, column, what in problems], has_secret_path

    def complaint(self, otherwise: object) -> str:
        """Every mistake, each with its place; else what else there is to say."""
        mistakes = [mistake.what for mistake in self.mistakes]
        mistakes += [f"{problem.place}: {problem.what}" for problem in self.problems()[0] if not problem.is_warning]
        return "\n".join(mistakes) or str(otherwise)

    def tell(self, otherwise: object) -> None:
        """The log's line that it cannot be used: once, and again when there is something else to say."""
        complaint = self.complaint(otherwise)
        if complaint != self._told:
            self._told = complaint
            log.error("the configuration cannot be used: %s", complaint)

    def _place(self, line: int | None, column: int | None) -> str:
        if self._document is not None:
            return self._document.place(line)
        return f"{self._file}:{line}:{column}" if line is not None else str(self._file)


_known: dict[str, Configuration] = {}


def current() -> Configuration:
    """What the settings say, made once. Of many who make it at the same time, one has made it for all."""
    known = _known.get("")
    return known if known is not None else _known.setdefault("", make())


def forget(**_: Any) -> None:
    """The settings have changed, as tests change them."""
    _known.clear()


def file() -> Path | None:
    """The configuration file, where the settings name one."""
    given = getattr(settings, "HEALTH_CHECK", None)
    path = given.get("CONFIG") if isinstance(given, Mapping) else None
    return Path(path) if path and isinstance(path, (str, os.PathLike)) else None


def make() -> Configuration:
    from .._checker import Checker

    given = getattr(settings, "HEALTH_CHECK", None)
    if not isinstance(given, Mapping):
        mistake = Mistake("E001", "HEALTH_CHECK must be a dictionary", 'Such as {"SUBSETS": {"readiness": ["database"]}}.')
        return Configuration(Checker(text=""), [mistake], Document(), None)
    mistakes = [unknown(name) for name in given if name not in KNOWN]
    if liveness_path() is None:
        what = 'HEALTH_CHECK["LIVENESS_PATH"] must begin with a slash, and be more than that'
        mistakes.append(Mistake("E003", what, 'Such as "/healthcheck/liveness", which is the default.'))
    if not isinstance(given.get("CONFIG") or "", (str, os.PathLike)):
        mistake = Mistake("E003", 'HEALTH_CHECK["CONFIG"] is no path')
        return Configuration(Checker(text=""), [*mistakes, mistake], Document(), None)
    path = file()
    if path is None:
        writer = Writer(given, mistakes)
        writer.write()
        subsets = given.get("SUBSETS")
        listed = [str(name) for name in subsets] if isinstance(subsets, Mapping) else ()
        return Configuration(Checker(text=writer.document.text, folder=str(folder())), mistakes, writer.document, None, listed)
    both = [name for name in WRITTEN if given.get(name)]
    if both:
        mistakes.append(Mistake("E002", f'HEALTH_CHECK["CONFIG"] names a file, and {", ".join(both)} would stand beside it', "Keep either."))
    return Configuration(Checker(file=str(path)), mistakes, None, path)


def unknown(name: object) -> Mistake:
    near = difflib.get_close_matches(str(name), KNOWN, 1)
    hint = f'Did you mean "{near[0]}"?' if near else f"There are {', '.join(KNOWN)}; the pages of `heartbeat.django` tell where those of other packages have gone."
    return Mistake("E001", f'HEALTH_CHECK["{name}"] is no setting', hint)


def folder() -> Path:
    """Where paths of secret files begin."""
    return Path(getattr(settings, "BASE_DIR", None) or ".")


class Writer:
    """Writes the settings down, and collects what cannot be."""

    def __init__(self, given: Mapping[str, Any], mistakes: list[Mistake]) -> None:
        self.given = given
        self.mistakes = mistakes
        self.document = Document()
        self.checks: dict[str, tuple[dict[str, Any], str]] = {}

    def write(self) -> None:
        for name in ("SERVICE", "SERVER"):
            place = f'HEALTH_CHECK["{name}"]'
            self.contained(place, lambda name=name, place=place: self.document.table(f"[{name.lower()}]", self.mapping(name), place))
        for name, check in self.mapping("CHECKS").items():
            place = f'HEALTH_CHECK["CHECKS"]["{name}"]'
            if isinstance(check, Mapping):
                self.checks[str(name)] = (dict(check), place)
            else:
                self.wrong("E003", f"{place} must be a dictionary")
        lists = [(str(name), entries) for name, entries in self.mapping("SUBSETS").items()]
        subsets = [(name, self.names(name, entries)) for name, entries in lists]
        for name, (check, place) in self.checks.items():
            self.contained(place, lambda name=name, check=check, place=place: self.check(name, check, place))
        self.document.add("[subsets]", 'HEALTH_CHECK["SUBSETS"]')
        for name, names in subsets:
            place = f'HEALTH_CHECK["SUBSETS"]["{name}"]'
            self.contained(place, lambda name=name, names=names, place=place: self.document.add(f"{quoted(name)} = {value(names)}", place))

    def mapping(self, name: str) -> Mapping[Any, Any]:
        given = self.given.get(name) or {}
        if isinstance(given, Mapping):
            return given
        self.wrong("E003", f'HEALTH_CHECK["{name}"] must be a dictionary')
        return {}

    def names(self, subset: str, entries: Any) -> list[str]:
        place = f'HEALTH_CHECK["SUBSETS"]["{subset}"]'
        if not isinstance(entries, (list, tuple)):
            self.wrong("E003", f"{place} must be a list of checks")
            return []
        return [name for number, entry in enumerate(entries) if (name := self.name(entry, f"{place}[{number}]")) is not None]

    def name(self, entry: Any, place: str) -> str | None:
        """The name that an entry of a subset is listed by: a check's, another subset's, or that of a check that it is itself."""
        if isinstance(entry, str):
            if entry.startswith("@") or entry in self.checks:
                return entry
            if "." in entry:
                self.wrong("E003", f"{place} is no check", "Another package's class is a kind of check here, such as \"database\"; its page tells which one.")
                return None
            entry = {"type": entry}
        if not isinstance(entry, Mapping):
            self.wrong("E003", f"{place} must be a check's name, its kind, or a dictionary with its settings")
            return None
        check = dict(entry)
        alias = check.get("alias")
        name = str(check.pop("name", None) or (check.get("type", "") if alias in (None, "default") else f"{check.get('type')}.{alias}"))
        known = self.checks.get(name)
        if known is None:
            self.checks[name] = (check, place)
        elif known[0] != check:
            self.wrong("E003", f"{place} is another check than {known[1]}, and both would be called {name!r}", 'Give one of them a "name".')
        return name

    def check(self, name: str, check: dict[str, Any], place: str) -> None:
        header = f"[checks.{quoted(name)}]"
        # What Django was told besides stands in the same place.
        self.document.table(header, dependencies.complete(check), place, places=place.startswith('HEALTH_CHECK["CHECKS"]'))

    def contained(self, place: str, write: Any) -> None:
        try:
            write()
        except dependencies.Unturned as unturned:
            self.wrong("E004", f"{place}: {unturned}", unturned.hint)
        except Unwritable as unwritable:
            self.wrong("E003", f"{place}: {unwritable}")
        except dependencies.WRONG as error:
            # Its words may hold a value.
            self.wrong("E004", f"{place}: what Django was told of this dependency cannot be read ({type(error).__name__})")

    def wrong(self, code: str, what: str, hint: str | None = None) -> None:
        self.mistakes.append(Mistake(code, what, hint))
