"""Finds the fenced blocks of a Markdown page, and compares what a command printed with what a page shows.

The convention, for whoever writes a page:

* Every fenced block names its language. `sh` and `console` blocks are run by bash, each in a fresh folder, with the debug
  builds of `checker` and `heartbeat` first in PATH and `$HEARTBEAT_FILE` in that folder. Where a block calls `cargo` or
  `make`, the folder is the repository itself.
* `sh`: all of it must end with status 0.
* `console`: lines that begin with `$ ` are commands (continued on the next line after a backslash); the lines below each are
  exactly what it prints, standard error included, `…` standing for anything within the line, or for any lines where it is
  all of a line; no lines at all say nothing of what it prints; a last line `[exit 1]` is the status, else it is 0.
* `yaml`, `toml`, `json`, `dockerfile`, `ini` (systemd), `python` are read by their own tool or parser; a probe's command in
  `yaml` or `dockerfile` is run: it must pass with a living worker and fail once that is killed. `rust` is run by cargo, for
  pages that a crate includes in its documentation. `text` is prose.
* A comment right above the block says more:
  `<!-- worker -->` starts a demo worker that beats at `$HEARTBEAT_FILE` before the block; options of `checker demo-worker` may
  follow, and after ` | ` a line to say to it (`wedge`, …) or a signal (`SIGKILL`, `SIGSTOP`), until its verdict has changed;
  `<!-- redis -->` starts a Redis at `$HEARTBEAT_REDIS_URL`; names as `WORKER:QUEUE` may follow: workers of the cluster `orders`
  that beat to it before the block;
  `<!-- serve -->` has the probe of a `dockerfile` block tell a `checker serve` that answers, in the place of port 8080, from one
  that was killed;
  `<!-- configuration -->` marks a configuration of the checker: it must be one without a mistake;
  `<!-- file: NAME -->` and `<!-- start: NAME -->` mark a recipe's file and how it is started: tests/interop/test_recipes.py runs both;
  `<!-- containers -->` marks commands of buildah and podman, which tests/deploy/test_commands.py runs, a page's in one folder;
  `<!-- not run: reason -->` is for what cannot be run here; each is listed at the end of the test run.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}|~{3,})\s*(?P<language>[\w+-]*)(?P<rest>.*)$")
COMMENT = re.compile(r"^\s*<!--\s*(?P<text>.*?)\s*-->\s*$")


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str
    text: str
    comments: tuple = field(default=())

    def comment(self, word):
        """What follows `word` in a comment right above the block; None where there is no such comment."""
        for comment in self.comments:
            if match := re.fullmatch(rf"{word}\b:?\s*(.*)", comment):
                return match[1]
        return None

    @property
    def not_run(self):
        return self.comment("not run")


def blocks(page, markdown):
    found, comments, lines = [], [], iter(enumerate(markdown.splitlines(), 1))
    for number, line in lines:
        if comment := COMMENT.match(line):
            comments.append(comment["text"])
        elif fence := FENCE.match(line):
            body = []
            for _, inner in lines:
                if inner.strip() == fence["fence"]:
                    break
                body.append(inner.removeprefix(fence["indent"]))
            else:
                raise ValueError(f"{page}:{number}: the block is never closed")
            text = "".join(part + "\n" for part in body)
            found.append(Block(page, number, fence["language"], text, tuple(comments)))
            comments = []
        elif line.strip():
            comments = []
    return found


@dataclass
class Command:
    """One command of a `console` block, with the output and the exit status that the page shows."""

    text: str
    expected: list = field(default_factory=list)
    status: int = 0


def commands(text):
    found, continued = [], False
    for line in text.splitlines():
        if continued:
            found[-1].text += "\n" + line.removeprefix("> ")
        elif line.startswith("$ "):
            found.append(Command(line.removeprefix("$ ")))
        elif not found:
            raise ValueError(f"a console block begins with a command, not with {line!r}")
        elif status := re.fullmatch(r"\[exit (\d+)\]", line):
            found[-1].status = int(status[1])
        else:
            found[-1].expected.append(line)
        continued = found[-1].text.endswith("\\") and not found[-1].expected
    return found


def printed(expected, output):
    """Whether `output` is what the page shows. Spaces at the ends of lines and empty lines at the end do not count."""
    pattern = ""
    for line in "\n".join(line.rstrip() for line in expected).rstrip("\n").split("\n"):
        if line.strip() == "…":
            pattern += r"(?:[^\n]*\n)*?"
        else:
            pattern += r"[^\n]*?".join(re.escape(part) for part in line.split("…")) + "\n"
    actual = "\n".join(line.rstrip() for line in output.splitlines()).rstrip("\n") + "\n"
    return re.fullmatch(pattern, actual) is not None
