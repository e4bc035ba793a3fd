"""The judge of all workers, one process, and what it said of each from its first look to its last."""

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import harness
from rules import LOOK

EXAMPLES = Path(os.environ.get("EXAMPLES_DIR", harness.TARGET / "debug" / "examples")).absolute()


@dataclass
class Run:
    """Looks in a row with one verdict. Moments are seconds of the monotonic clock: each look is from `asked` to `answered`."""

    verdict: str
    asked: float
    answered: float
    last_asked: float
    last_answered: float
    looks: int = 1
    ended: bool = False


class Judge(harness.Program):
    """The real judgement of the library, twenty times a second, on any number of places."""

    def __init__(self, under=()):
        self.runs = {}
        super().__init__([*under, EXAMPLES / "judge", round(LOOK * 1000)])

    def _read(self):
        for line in self.process.stdout:
            sign, name, asked, answered, word = line.rstrip("\n").split(" ", 4)
            asked, answered = int(asked) / 1000, int(answered) / 1000
            runs = self.runs.setdefault(name, [])
            if sign == "+":
                runs.append(Run(word, asked, answered, asked, answered))
            else:
                run = runs[-1]
                run.last_asked, run.last_answered, run.looks, run.ended = asked, answered, int(word), True
        self._arrived.put(None)

    def say(self, line):
        with _saying:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()

    def watch(self, name, *place):
        self.runs[name] = []
        self.say(" ".join(map(str, (place[0], name, *place[1:]))))

    def forget(self, name):
        """Ends a watch; gives all that was said."""
        self.say(f"forget {name}")
        harness.until(lambda: self.runs[name] and self.runs[name][-1].ended, 20, f"the last word on {name}")
        return self.runs[name]

    def once(self, name, path):
        """One look at a file."""
        self.runs[name] = []
        self.say(f"once {name} {path}")
        harness.until(lambda: self.runs[name], what=f"a word on {path}")
        return self.now(name)

    def now(self, name):
        return self.runs[name][-1].verdict if self.runs[name] else None

    def until(self, name, verdict, timeout=20):
        harness.until(lambda: self.now(name) == verdict, timeout, f"{name} is {verdict}; it is {self.told(name)}")

    def told(self, name):
        return [run.verdict for run in self.runs[name]]


_saying = threading.Lock()


def wait_until(moment):
    time.sleep(max(0.0, moment - time.monotonic()))
