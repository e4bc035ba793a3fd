"""The images of deploy/image, built by buildah and run by podman: as restricted as a cluster runs them, well and broken."""

import json
import os
import re
import signal
import socket
import subprocess
import time

import pytest

import harness
from containers import BEATS, IMAGE, SHIPPED, TARGET, Foreground, libraries
from harness import until
from manifests import checked, lines

# One process builds the images, and runs these.
pytestmark = pytest.mark.xdist_group("images")

CONFIGURATION = """
[subsets]
readiness = ["here"]
[checks.here]
type = "tcp"
address = "127.0.0.1:{port}"
timeout = "1s"
"""


def status(container):
    """What the process writes of itself, read from outside: no image has a shell."""
    pid = container.state()["Pid"]
    text = open(f"/proc/{pid}/status").read()
    return dict(re.findall(r"(?m)^(\w+):\s+(.*)$", text))


@pytest.fixture
def worker(run, images, broker):
    """The worker of heartbeat/examples in its image, with a Redis to take work from."""

    def begin(*options):
        environment = ["--env", "HEARTBEAT_WORKER=worker-1", "--env", f"REDIS_URL={broker.url}"]
        return run(BEATS, *environment, *options, images[1])

    return begin


@pytest.fixture
def demo(containers, images, start):
    """A worker in a container that obeys lines on its standard input, as it does on the demo's."""

    def begin(*options):
        command = ["checker", "demo-worker", "--file", "/run/heartbeat/beat", *options]
        entry = ["--interactive", "--entrypoint", json.dumps(command)]
        return start(Obedient, containers, BEATS, *entry, images[1])

    return begin


class Obedient(Foreground):
    def say(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        assert self.next_line() == "ok", self.output


def test_the_image_says_what_it_is_and_who_runs_in_it(containers, images):
    for name in images:
        image = containers.inspect(name)
        config = image["Config"]
        assert config["User"] == "65532:65532"
        assert config["StopSignal"] == "SIGTERM"
        assert image["Healthcheck"]["Test"][0] == "CMD", "no shell is asked for"
    labels = containers.inspect(images[0])["Config"]["Labels"]
    written = re.findall(r'org\.opencontainers\.image\.(\w+)=', (IMAGE / "Containerfile").read_text())
    assert {"title", "description", "licenses", "version", "revision", "created"} == set(written)
    assert all(labels[f"org.opencontainers.image.{name}"] for name in written)
    version = re.search(r'(?m)^version = "(.+)"$', (harness.REPOSITORY / "Cargo.toml").read_text())[1]
    assert labels["org.opencontainers.image.version"] == version


@pytest.mark.parametrize("name", ["Containerfile", "worker.Containerfile"])
def test_the_arithmetic_beside_the_health_check_is_what_checker_tune_says(name):
    pattern = r"# checker tune (.+)\n((?:#   \w+: .+\n)+)HEALTHCHECK --interval=(\d+)s --timeout=(\d+)s --retries=(\d+) "
    options, told, *probe = re.search(pattern, (IMAGE / name).read_text()).groups()
    checked(harness.CHECKER, options.split(), lines(told), [int(number) for number in probe])


def test_the_image_is_built_for_the_machine_that_is_named(containers, tmp_path):
    """Here only that the argument chooses it, and what the image says of itself; test_arm.py runs the real ones."""
    folder = tmp_path / "aarch64-unknown-linux-musl" / "dist"
    folder.mkdir(parents=True)
    for name in ("checker", "heartbeat"):
        (folder / name).write_text("for ARM")
    options = ["--build-arg", "TARGET=aarch64-unknown-linux-musl", "--platform", "linux/arm64"]
    name = containers.build("localhost/checker-arm", IMAGE / "Containerfile", tmp_path, *options)
    assert containers.inspect(name)["Architecture"] == "arm64"


def test_the_image_holds_two_commands_and_nothing_else(containers, images, tmp_path):
    containers.podman("save", "--format", "docker-dir", "--output", tmp_path / "image", images[0])
    manifest = json.loads((tmp_path / "image" / "manifest.json").read_text())
    files = set()
    for layer in manifest["layers"]:
        blob = tmp_path / "image" / layer["digest"].removeprefix("sha256:")
        listed = subprocess.run(["tar", "--list", "--file", blob], capture_output=True, text=True, check=True).stdout
        files |= {f"/{path}" for path in listed.split("\n") if path and not path.endswith("/")}
    allowed = set() if SHIPPED else {str(path) for path in libraries([harness.CHECKER, harness.HEARTBEAT, worker_program()])}
    assert files - allowed == {"/usr/local/bin/checker", "/usr/local/bin/heartbeat"}


def worker_program():
    return harness.CHECKER.parent / "examples" / "worker"


if SHIPPED:

    def test_what_is_shipped_is_static_and_as_large_as_the_page_says(containers, images):
        for program in ("checker", "heartbeat"):
            command = ["readelf", "--wide", "--program-headers", "--dynamic", SHIPPED / TARGET / "dist" / program]
            told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            assert "INTERP" not in told and "NEEDED" not in told, program
        sizes = [(SHIPPED / TARGET / "dist" / program).stat().st_size for program in ("checker", "heartbeat")]
        size = containers.inspect(images[0])["Size"]
        assert size == pytest.approx(sum(sizes), rel=0.02)
        pattern = r"`checker`, built so, is ([\d.]+) MB, `heartbeat` ([\d.]+) MB, the image ([\d.]+) MB"
        told = [float(number) for number in re.search(pattern, (IMAGE / "README.md").read_text()).groups()]
        # Another compiler, or a feature, moves them; nobody reads a difference of a tenth.
        assert [number / 1e6 for number in [*sizes, size]] == pytest.approx(told, rel=0.1)


def test_a_worker_beats_and_its_probes_pass(worker):
    container = worker()
    container.passes("checker", "worker")
    container.passes("checker", "worker", "--for", "ready")
    assert container.health() == 0
    assert json.loads(container.exec("checker", "worker", "--format", "json").stdout)["worker"] == "worker-1"


def test_nothing_runs_as_root_or_can_write_or_become_more(worker):
    container = worker()
    container.passes("checker", "worker")
    told = status(container)
    assert set(told["Uid"].split()) == set(told["Gid"].split()) == {"65532"}
    assert told["CapEff"] == told["CapBnd"] == told["CapPrm"] == "0" * 16
    assert told["NoNewPrivs"] == "1" and told["Seccomp"] == "2"
    refused = container.exec("heartbeat", "run", "--file", "/beat", "--", "checker", "worker", "--file", "/beat")
    assert refused.returncode != 0 and "Read-only file system" in refused.stderr


def test_the_health_check_turns_unhealthy_on_a_wedge(containers, demo):
    """The very command of the image, asked as Docker would: twice in a row, which is its number of retries."""
    container = demo("--loop-budget", "500ms")
    assert container.next_line(30).startswith("beating ")
    container.passes("checker", "worker")
    assert container.health() == 0
    assert containers.podman("inspect", "--format", "{{.State.Healthcheck.Status}}", container.id).stdout.strip() == "healthy"
    container.say("wedge")
    until(lambda: container.exec("checker", "worker").returncode == 1, what="the loop is overdue")
    assert [container.health() for _ in range(2)] == [1, 1]
    assert containers.podman("inspect", "--format", "{{.State.Healthcheck.Status}}", container.id).stdout.strip() == "unhealthy"
    assert container.state()["Running"], "the worker itself still runs, and beats"


def test_a_frozen_worker_is_silent_after_its_promise(worker):
    container = worker("--env", "HEARTBEAT_PROMISE=2s")
    container.passes("checker", "worker")
    os.kill(container.state()["Pid"], signal.SIGSTOP)
    until(lambda: "silent" in container.exec("checker", "worker").stdout, what="it is silent")
    os.kill(container.state()["Pid"], signal.SIGCONT)
    container.passes("checker", "worker")


def test_a_worker_stops_cleanly_within_its_time(containers, worker):
    container = worker()
    container.passes("checker", "worker")
    begun = time.monotonic()
    containers.podman("stop", "--time", "60", container.id)
    assert time.monotonic() - begun < 60, "it ended by itself"
    assert container.state()["ExitCode"] == 0, container.logs()


def test_a_wrapped_worker_is_told_to_stop_and_killed_at_its_time(containers, run, images):
    """`heartbeat run` as first process, around one that ignores SIGTERM: process 1 of a container without a handler does."""
    entry = '["heartbeat", "run", "--stop-timeout", "1s", "--", "heartbeat", "run", "--file", "/run/heartbeat/inner", "--", "checker", "demo-worker"]'
    container = run(BEATS, "--interactive", "--entrypoint", entry, images[1], "--file", "/run/heartbeat/innermost")
    # The last of the chain: until it beats, those before may not be there yet.
    container.passes("checker", "worker", "--file", "/run/heartbeat/innermost")
    os.kill(innermost(container), signal.SIGSTOP)
    containers.podman("stop", "--time", "30", container.id)
    assert container.state()["ExitCode"] == 137
    assert "did not end within 1 s and was killed" in container.logs()


def innermost(container):
    """The last process of the container's chain: a stopped one ends by nothing but SIGKILL."""
    pid = container.state()["Pid"]
    while children := open(f"/proc/{pid}/task/{pid}/children").read().split():
        pid = int(children[0])
    return pid


def test_the_web_tier_serves_from_the_image(containers, run, images, tmp_path):
    file = tmp_path / "checker.toml"
    with socket.create_server(("127.0.0.1", 0)) as dependency:
        file.write_text(CONFIGURATION.format(port=dependency.getsockname()[1]))
        port = harness.free_port()
        address = f"127.0.0.1:{port}"
        container = run(f"--volume={file}:/etc/checker/checker.toml:ro", images[0], "serve", "--listen", address)
        container.passes("checker", "http", f"http://{address}/healthz")
        container.passes("checker", "http", f"http://{address}/readyz")
    until(lambda: container.exec("checker", "http", f"http://{address}/readyz").returncode == 1, what="its dependency is gone")
    assert container.exec("checker", "http", f"http://{address}/healthz").returncode == 0
    begun = time.monotonic()
    containers.podman("stop", "--time", "60", container.id)
    assert time.monotonic() - begun < 60 and container.state()["ExitCode"] == 0, container.logs()


def test_the_agent_tells_redis_of_the_workers_in_its_folder(run, start, images, broker):
    agent = run(BEATS, "--entrypoint", "heartbeat", images[0], "agent", "--dir", "/run/heartbeat", "--redis", broker.url)
    worker = ["checker", "demo-worker", "--cluster", "boxed", "--worker", "one", "--file", "/run/heartbeat/one"]
    start(harness.Program, agent.containers.command("podman", "exec", "--interactive", agent.id, *worker), agent.containers.env)
    agent.passes("checker", "cluster", "boxed", "--expect", "one", "--redis", broker.url)
