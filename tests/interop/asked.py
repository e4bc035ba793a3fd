"""Asks `checker run` one question by a configuration of its own."""

import json
import subprocess
import uuid
from dataclasses import dataclass

import harness
from harness import CHECKER, until


@dataclass
class Told:
    status: str
    reason: str
    output: str

    @property
    def passes(self):
        return self.status == "ok"


class Asked:
    """A configuration of one check, and what `checker run` says of it."""

    def __init__(self, folder, kind, timeout="5s", **settings):
        self.file = folder / f"{uuid.uuid4().hex}.toml"
        lines = [f"{key} = {toml(value)}" for key, value in ({"type": kind, "timeout": timeout} | settings).items()]
        self.file.write_text("\n".join(["[subsets]", 'all = ["it"]', "[checks.it]", *lines]))

    def __call__(self):
        command = [CHECKER, "run", "all", "--config", self.file, "--timeout", "20s", "--format", "json"]
        done = subprocess.run(command, env=harness.environment(), capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode in (0, 1), f"{command}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        it = json.loads(done.stdout)["checks"]["it"]
        assert (done.returncode == 0) == (it["status"] == "ok"), done
        return Told(it["status"], it.get("reason", ""), done.stdout + done.stderr)

    def until_passes(self):
        return until(lambda: (told := self()).passes and told, timeout=40, what=self)

    def until_fails(self):
        return until(lambda: not (told := self()).passes and told, timeout=40, what=self)


def toml(value):
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {toml(inner)}" for key, inner in value.items()) + " }"
    return json.dumps(value)
