"""Runs every command and reads every configuration that the documentation shows. The convention is in blocks.py."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

import harness
from blocks import blocks, commands, printed
from harness import CHECKER, HEARTBEAT, REPOSITORY, DemoWorker, until, verdict

MEMBERS = tomllib.loads((REPOSITORY / "Cargo.toml").read_text())["workspace"]["members"]
PAGES = [
    REPOSITORY / "README.md",
    *(page for member in MEMBERS for page in sorted((REPOSITORY / member).glob("*.md"))),
    *sorted((REPOSITORY / "deploy").rglob("*.md")),
]
# Those of a worker's file and its start are run by tests/interop/test_recipes.py, in the real programs; those of containers by
# tests/deploy/test_commands.py.
BLOCKS = [
    block
    for page in PAGES
    for block in blocks(page.relative_to(REPOSITORY), page.read_text())
    if all(block.comment(word) is None for word in ("file", "start", "containers"))
]
# A release build of the whole project is the longest thing that a page asks for.
PATIENCE = 1200
# So a page's `cargo … --release` runs what the tests have built already, for lack of five minutes; with DOCS_RELEASE=1 it
# runs as it is shown.
BUILT = """#!/bin/bash
[[ -n ${DOCS_RELEASE:-} || " $* " != *" --release "* ]] || set -- "${@/#--release/--all-features}"
exec %s "$@"
"""


@dataclass
class Bench:
    """What a block is run with: a folder and an environment of its own, and programs that end with the test."""

    root: Path
    environment: dict
    start: object

    def worker(self, arguments="", file=None):
        words = shlex.split(arguments)
        return self.start(DemoWorker, file or self.environment["HEARTBEAT_FILE"], *words).beating()

    def prepare(self, block):
        """Starts what the comments above the block ask for, and lets happen to it what they say."""
        if (workers := block.comment("redis")) is not None:
            self.redis(workers.split())
        if (wanted := block.comment("worker")) is None:
            return
        arguments, *lines = wanted.split(" | ")
        worker = self.worker(arguments)
        until(lambda: verdict(worker.file).name == "alive")
        for line in lines:
            if line.startswith("SIG"):
                worker.signal(signal.Signals[line])
            else:
                worker.say(line)
            until(lambda: verdict(worker.file).name != "alive", timeout=60, what=f"{line} has changed the verdict")

    def redis(self, workers):
        """A Redis of the block's own, with workers that are there before the block begins."""
        folder = self.root / "redis"
        folder.mkdir()
        server = self.start(harness.Redis, folder)
        until(server.answers, what="redis-server answers")
        self.environment["HEARTBEAT_REDIS_URL"] = server.url
        for name, queue in (worker.split(":") for worker in workers):
            options = ["--cluster", "orders", "--worker", name, "--queue", queue, "--file", folder / name]
            self.start(harness.Program, [HEARTBEAT, "run", *options, "--", "sleep", "600"], self.environment)
        counted = [CHECKER, "cluster", "orders", "--min", str(len(workers))]
        until(
            lambda: subprocess.run(counted, env=self.environment, capture_output=True, check=False).returncode == 0,
            what=f"{workers} beat",
        )

    def bash(self, block, script):
        """Runs a script to its end; gives its status and its output, standard error included."""
        folder = REPOSITORY if re.search(r"(^|\s)(cargo|make) ", block.text) else self.root / "work"
        # Behind /dev/null a program finds no standard input, as under a service manager.
        shell = self.start(harness.Program, ["bash", "-c", f"exec </dev/null\n{script}"], self.environment, folder)
        return shell.exit_status(PATIENCE), shell.output


@pytest.fixture
def bench(start, tmp_path):
    programs = tmp_path / "bin"
    programs.mkdir()
    for program in (CHECKER, HEARTBEAT):
        (programs / program.name).symlink_to(program)
    cargo = programs / "cargo"
    cargo.write_text(BUILT % shlex.quote(shutil.which("cargo")))
    cargo.chmod(0o755)
    (tmp_path / "work").mkdir()
    # What a page copies from.
    (tmp_path / "work" / "deploy").symlink_to(REPOSITORY / "deploy")
    environment = harness.environment(
        PATH=f"{programs}:{os.environ['PATH']}",
        CARGO_TARGET_DIR=harness.TARGET,
        CARGO_INSTALL_ROOT=tmp_path / "cargo",
        CARGO_TERM_QUIET="true",
        HEARTBEAT_FILE=tmp_path / "beat",
        TERM="dumb",
        NO_COLOR=1,
    )
    return Bench(tmp_path, environment, start)


# --- commands ---------------------------------------------------------------------------------------------------


def sh(block, bench):
    bench.prepare(block)
    status, output = bench.bash(block, "set -euo pipefail\n" + block.text)
    assert status == 0, output


def console(block, bench):
    bench.prepare(block)
    shown = commands(block.text)
    mark = "\x1eexit:"
    _, output = bench.bash(block, "".join(f"{command.text}\nprintf '\\n{mark}%s\\n' $?\n" for command in shown))
    parts = re.split(rf"\n{mark}(\d+)\n", output)
    assert len(parts) == 2 * len(shown) + 1, output
    for command, told, status in zip(shown, parts[0::2], parts[1::2]):
        assert int(status) == command.status, f"$ {command.text}\n{told}[exit {status}]"
        wanted = "\n".join(command.expected)
        shown_right = not wanted.strip() or printed(command.expected, told)
        assert shown_right, f"$ {command.text}\nprinted:\n{told}\nthe page shows:\n{wanted}"


# --- probes -----------------------------------------------------------------------------------------------------


def probe_tells_the_living_from_the_dead(words, bench, number):
    """Runs a probe's command with a living worker, then with that one killed. Its absolute paths are moved below a folder."""
    folder = bench.root / f"probe-{number}"
    file = folder / "beat"
    words = [str(word) for word in words]
    words[0] = os.path.basename(words[0])
    for index, word in enumerate(words):
        if match := re.fullmatch(r"(--file=)(/.+)" if words[index - 1] != "--file" else r"()(/.+)", word):
            file = Path(f"{folder}{match[2]}")
            words[index] = f"{match[1]}{file}"
    file.parent.mkdir(parents=True)
    worker = bench.worker(file=file)
    program = shutil.which(words[0], path=bench.environment["PATH"])
    assert program, f"there is no {words[0]}"

    def status():
        environment = bench.environment | {"HEARTBEAT_FILE": str(file)}
        return subprocess.run([program, *words[1:]], env=environment, timeout=30, check=False).returncode

    until(lambda: status() == 0, what=f"{words} passes with a living worker")
    worker.signal(signal.SIGKILL)
    worker.exit_status()
    assert status() == 1, f"{words} with a dead worker"


def probe_tells_who_answers(words, bench):
    """A probe's command passes with a server that is ready, and fails once that is killed."""
    file, port = bench.root / "served.toml", str(harness.free_port())
    file.write_text("[subsets]\nreadiness = ['ok']\n[checks.ok]\ntype = 'command'\ncommand = ['true']\n")
    words = [word.replace(":8080/", f":{port}/") for word in words]
    server = bench.start(harness.Program, [CHECKER, "serve", "--config", file, "--listen", f"127.0.0.1:{port}"])

    def status():
        return subprocess.run(words, env=bench.environment, timeout=30, check=False).returncode

    until(lambda: status() == 0, timeout=30, what=f"{words} passes with a server that is ready")
    server.signal(signal.SIGKILL)
    server.exit_status()
    assert status() == 1, f"{words} with a dead server"


def probes(tree):
    """The commands that Kubernetes (`exec`) and Compose (`healthcheck`) would run."""
    if isinstance(tree, list):
        for item in tree:
            yield from probes(item)
    elif isinstance(tree, dict):
        for key, value in tree.items():
            if key in ("livenessProbe", "readinessProbe", "startupProbe") and "exec" in value:
                yield value["exec"]["command"]
            elif key == "healthcheck":
                yield compose_command(value["test"])
            else:
                yield from probes(value)


def compose_command(test):
    if isinstance(test, str):
        return ["sh", "-c", test]
    kind, *words = test
    assert kind in ("CMD", "CMD-SHELL"), test
    return words if kind == "CMD" else ["sh", "-c", *words]


def yaml_(block, bench):
    documents = list(yaml.safe_load_all(block.text))
    assert all(document is not None for document in documents)
    for number, words in enumerate(probes(documents)):
        probe_tells_the_living_from_the_dead(words, bench, number)


INSTRUCTIONS = "ADD ARG CMD COPY ENTRYPOINT ENV EXPOSE FROM HEALTHCHECK LABEL RUN SHELL STOPSIGNAL USER VOLUME WORKDIR".split()
HEALTHCHECK = re.compile(r"((--(interval|timeout|start-period|start-interval)=\d+(ms|s|m)|--retries=\d+)\s+)*CMD\s+(?P<probe>.+)")


def dockerfile(block, bench):
    text = re.sub(r"(?m)^\s*#.*\n", "", block.text)
    instructions = [line.strip() for line in re.sub(r"\\\n", " ", text).splitlines() if line.strip()]
    for number, instruction in enumerate(instructions):
        name, _, rest = instruction.partition(" ")
        rest = rest.strip()
        assert name in INSTRUCTIONS, instruction
        if name in ("CMD", "ENTRYPOINT") and rest.startswith("["):
            json.loads(rest)
        if name == "HEALTHCHECK":
            match = HEALTHCHECK.fullmatch(rest)
            assert match, instruction
            probe = match["probe"]
            words = json.loads(probe) if probe.startswith("[") else ["sh", "-c", probe]
            if block.comment("serve") is not None:
                probe_tells_who_answers(words, bench)
            else:
                probe_tells_the_living_from_the_dead(words, bench, number)


# --- files ------------------------------------------------------------------------------------------------------


def ini(block, bench):
    """A unit of systemd, by its own `verify`. A drop-in, which starts nothing, is read beside a unit that does."""
    unit = bench.root / "page.service"
    page = unit
    if "ExecStart=" not in block.text:
        unit.write_text("[Service]\nExecStart=/bin/true\n")
        page = bench.root / "page.service.d" / "page.conf"
        page.parent.mkdir()

    def stub(match):
        program = bench.root / "programs" / os.path.basename(match[2])
        program.parent.mkdir(exist_ok=True)
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        return f"{match[1]}{program}"

    page.write_text(re.sub(r"(?m)^(Exec\w+=[-@:+!]*)(/\S+)", stub, block.text))
    verify = ["systemd-analyze", "verify", "--man=no", unit]
    done = subprocess.run(verify, capture_output=True, text=True, check=False)
    # Its status is 0 also where it ignores a key that it does not know.
    complaints = [line for line in done.stderr.splitlines() if "page." in line]
    assert done.returncode == 0 and not complaints, done.stderr


def toml(block, bench):
    document = tomllib.loads(block.text)
    if block.comment("configuration") is not None:
        file = bench.root / "checker.toml"
        file.write_text(block.text)
        done = subprocess.run([CHECKER, "validate", "--config", file], capture_output=True, text=True, check=False)
        assert done.returncode == 0 and done.stdout.endswith(": no mistakes\n"), done.stdout
    dependency = document.get("dependencies", {}).get("heartbeat", {})
    if isinstance(dependency, dict):
        manifest = tomllib.loads((REPOSITORY / "heartbeat" / "Cargo.toml").read_text())
        assert set(dependency.get("features", [])) <= set(manifest["features"])


def json_(block, bench):
    """A document, or one on each line."""
    try:
        json.loads(block.text)
    except json.JSONDecodeError:
        for line in block.text.splitlines():
            json.loads(line)


def python(block, bench):
    compile(block.text, f"{block.page}:{block.line}", "exec")


def rust(block, bench):
    """Cargo runs the examples of a page that a crate includes; in any other, nobody would ever compile them."""
    crates = [crate for member in MEMBERS if (crate := REPOSITORY / member / "src" / "lib.rs").exists()]
    included = [crate.parent / path for crate in crates for path in re.findall(r'include_str!\("(.+?)"\)', crate.read_text())]
    assert (REPOSITORY / block.page) in [path.resolve() for path in included], "no crate includes this page in its documentation"
    fence = (REPOSITORY / block.page).read_text().splitlines()[block.line - 1]
    assert "ignore" not in fence, "ignored, without a word why"


def text(block, bench):
    """Prose."""


LANGUAGES = {
    "sh": sh,
    "console": console,
    "yaml": yaml_,
    "dockerfile": dockerfile,
    "ini": ini,
    "toml": toml,
    "json": json_,
    "python": python,
    "rust": rust,
    "text": text,
}


def test_every_block_names_a_language_that_is_checked():
    assert BLOCKS
    assert {f"{block.page}:{block.line} {block.language!r}" for block in BLOCKS if block.language not in LANGUAGES} == set()


def test_every_block_that_is_not_run_has_a_reason():
    assert [f"{block.page}:{block.line}" for block in BLOCKS if block.not_run == ""] == []


@pytest.mark.parametrize(
    "block",
    [block for block in BLOCKS if block.not_run is None and block.language in LANGUAGES],
    ids=lambda block: f"{block.page}:{block.line}-{block.language}",
)
def test_what_the_page_shows_works(block, bench):
    LANGUAGES[block.language](block, bench)
