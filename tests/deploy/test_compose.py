"""deploy/compose: read by docker-compose with Compose's schema, planned by podman-compose, and its health checks asked for real."""

import contextlib
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import time

import pytest
import yaml

import harness
from containers import BEATS
from harness import REPOSITORY, until
from manifests import checked, lines

# One process builds the images, and runs these.
pytestmark = pytest.mark.xdist_group("pods")

COMPOSE = REPOSITORY / "deploy" / "compose"
SET = {"POSTGRES_PASSWORD": "one", "RABBITMQ_PASSWORD": "two"}
FILE = yaml.safe_load((COMPOSE / "compose.yaml").read_text())


def compose(command, *arguments, env=None, file=COMPOSE / "compose.yaml"):
    # The Python of the tests is another than that of Debian's packages.
    environment = harness.environment(**(SET if env is None else env))
    environment.pop("PYTHONPATH", None)
    return subprocess.run([command, "-f", file, *arguments], env=environment, cwd=COMPOSE, capture_output=True, text=True, check=False)


@functools.cache
def services():
    """As Compose reads them."""
    done = compose("docker-compose", "config")
    assert done.returncode == 0, done.stderr
    return yaml.safe_load(done.stdout)["services"]


def test_docker_compose_reads_it():
    assert set(services()) == {"worker", "health", "redis", "rabbitmq", "postgres"}


def test_docker_compose_would_see_a_mistake(tmp_path):
    """It reads by the specification's own schema."""
    file = tmp_path / "compose.yaml"
    file.write_text((COMPOSE / "compose.yaml").read_text().replace("stop_grace_period", "stop_grace_time"))
    done = compose("docker-compose", "config", file=file)
    assert done.returncode == 1 and "stop_grace_time" in done.stderr


@pytest.mark.parametrize("missing", sorted(SET))
def test_no_password_is_taken_for_granted(missing):
    done = compose("docker-compose", "config", env={name: value for name, value in SET.items() if name != missing})
    assert done.returncode == 1 and "must be set" in done.stderr


def test_each_waits_until_what_it_needs_is_well():
    """By Compose's own reading; a check of health is there wherever somebody waits for it."""
    found = services()
    assert found["worker"]["depends_on"] == {name: {"condition": "service_healthy"} for name in ("redis", "rabbitmq", "postgres")}
    for name, service in found.items():
        assert service["healthcheck"]["test"], name


def test_podman_compose_starts_them_in_that_order():
    """Its plan; what it would run is told on standard error."""
    done = compose("podman-compose", "--dry-run", "up", "--detach")
    assert done.returncode == 0, done.stderr
    order = re.findall(r"podman (?:create|run) --name=compose_(\w+)_1", done.stdout + done.stderr)
    assert set(order) == set(FILE["services"]), done.stdout + done.stderr
    assert max(order.index(name) for name in ("redis", "rabbitmq", "postgres")) < order.index("worker") < order.index("health")


@pytest.mark.parametrize("name", ["worker", "health"])
def test_what_is_ours_is_restricted(name):
    service = services()[name]
    assert service["user"] == "65532:65532" and service["read_only"] is True
    assert service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"]


def test_the_arithmetic_beside_a_threshold_is_what_checker_tune_says():
    text = (COMPOSE / "compose.yaml").read_text()
    pattern = r"# checker tune (.+)\n((?: *#   \w+: .+\n)+) *interval: (\d+)s\n *timeout: (\d+)s\n *retries: (\d+)\n"
    found = re.findall(pattern, text)
    assert len(found) == 2
    for options, told, *probe in found:
        checked(harness.CHECKER, options.split(), lines(told), [int(number) for number in probe])


def test_the_configuration_is_one_without_a_mistake():
    command = [harness.CHECKER, "validate", "--config", COMPOSE / "checker.toml"]
    environment = {name: value for name, value in services()["health"]["environment"].items()}
    done = subprocess.run(command, env=harness.environment(**environment), capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.endswith(": no mistakes\n"), done.stdout + done.stderr


# --- the checks of health -----------------------------------------------------------------------------------------


def command_of(name):
    """What a service's check runs; the shell of an image is this machine's here."""
    kind, *words = FILE["services"][name]["healthcheck"]["test"]
    return ["sh", "-c", *words] if kind == "CMD-SHELL" else words


@contextlib.contextmanager
def network():
    """A network of its own, so that a server can have the port that its check takes for granted; gives how to enter it."""
    holder = subprocess.Popen(["unshare", "--net", "sh", "-c", "ip link set lo up && echo up && exec sleep 600"], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "up\n"
        yield ["nsenter", f"--net=/proc/{holder.pid}/ns/net"]
    finally:
        holder.kill()
        holder.communicate()


def passes(enter, name, env=None):
    done = subprocess.run([*enter, *command_of(name)], env=env or harness.environment(), capture_output=True, timeout=60, check=False)
    return done.returncode == 0


def test_the_check_of_redis(start, tmp_path):
    with network() as enter:
        assert not passes(enter, "redis")
        server = start(harness.Program, [*enter, "redis-server", "--dir", tmp_path, "--save", ""])
        until(lambda: passes(enter, "redis"), what="it passes")
        # It answers, and is no use: its data are not loaded, or a password is asked for.
        subprocess.run([*enter, "redis-cli", "config", "set", "requirepass", "S3cret"], check=True, capture_output=True)
        assert not passes(enter, "redis")
        server.end()


def test_the_check_of_postgresql(start):
    with network() as enter:
        assert not passes(enter, "postgres")
        server = start(harness.Postgres)
        # The same data at the port that everyone takes for granted, in the network of its own.
        server.kill()
        port = server.command.index("-p") + 1
        command = [*server.command[:port], "5432", *server.command[port + 1 :]]
        running = start(harness.Program, [*enter, *command], None, server.folder)
        until(lambda: passes(enter, "postgres"), timeout=30, what="it passes")
        running.end()
        assert not passes(enter, "postgres")


def test_the_check_of_rabbitmq(rabbitmq):
    """Its node has a name of the test's own, as the environment tells the command too."""
    program = shutil.which("rabbitmq-diagnostics", path="/usr/lib/rabbitmq/bin")
    words = [program, *command_of("rabbitmq")[1:]]

    def asked(environment):
        done = subprocess.run(words, env=environment, cwd=rabbitmq.folder, capture_output=True, text=True, timeout=120, check=False)
        return done.returncode == 0, done.stdout + done.stderr

    # A client is greeted some moments before the broker has started.
    until(lambda: asked(rabbitmq.env)[0], timeout=180, what="it passes")
    passed, told = asked(rabbitmq.env | {"RABBITMQ_NODENAME": "nobody@localhost"})
    assert not passed, told


def test_the_checks_of_worker_and_web_tier(run, images, broker):
    """Each in its image, as restricted as its service is, with the environment of its service."""
    found = services()
    environment = found["worker"]["environment"] | {"REDIS_URL": broker.url, "HEARTBEAT_REDIS_URL": broker.url, "HEARTBEAT_PROMISE": "2s"}
    own = "uid=65532,gid=65532,mode=0700"
    assert own in found["worker"]["tmpfs"][0]
    tmpfs = found["worker"]["tmpfs"][0].replace(own, "mode=1777")
    assert tmpfs.startswith("/run/heartbeat:") and BEATS.startswith("--tmpfs=/run/heartbeat:")
    worker = run(f"--tmpfs={tmpfs}", *(f"--env={name}={value}" for name, value in environment.items()), images[1])
    worker.passes(*command_of("worker"))
    os.kill(worker.state()["Pid"], signal.SIGSTOP)
    until(lambda: worker.exec(*command_of("worker")).returncode == 1, what="it fails")
    os.kill(worker.state()["Pid"], signal.SIGCONT)
    worker.passes(*command_of("worker"))
    begun = time.monotonic()
    worker.containers.podman("stop", "--time", "65", worker.id)
    assert time.monotonic() - begun < 65 and worker.state()["ExitCode"] == 0


def test_the_web_tier_serves_while_all_that_it_asks_is_away(containers, images):
    """It is there to say so: /healthz passes, /readyz does not."""
    found = services()["health"]
    options = ["--network=none", f"--volume={COMPOSE / 'checker.toml'}:/etc/checker/checker.toml:ro"]
    options += [f"--env={name}={value}" for name, value in found["environment"].items()]
    name = containers.podman("run", "--detach", "--read-only", *options, images[0], *found["command"]).stdout.split()[-1]
    try:
        until(lambda: containers.podman("exec", name, *command_of("health"), check=False).returncode == 0, what="it passes")
        ready = [word.replace("healthz", "readyz") for word in command_of("health")]
        assert containers.podman("exec", name, *ready, check=False).returncode == 1
        containers.podman("stop", "--time", "10", name)
        assert json.loads(containers.podman("inspect", name).stdout)[0]["State"]["ExitCode"] == 0
    finally:
        containers.podman("rm", "--force", "--time", "0", name, check=False)
