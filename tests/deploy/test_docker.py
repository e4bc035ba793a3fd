"""deploy/compose as it is, by docker-compose and Docker's own daemon: the order of the start, the checks of health, and what they tell."""

import json
import time

import pytest
import yaml

from containers import SHIPPED
from docker_daemon import Docker, refused, servers
from running import DEPLOY

pytestmark = [
    pytest.mark.xdist_group("docker"),
    pytest.mark.skipif(not SHIPPED, reason="it takes minutes: tests/run images"),
]

COMPOSE = DEPLOY / "compose" / "compose.yaml"
NAMES = ("worker", "health", "redis", "rabbitmq", "postgres")
# Of a busy machine.
PATIENCE = 300


class Stack:
    def __init__(self, docker):
        self.docker = docker
        docker.env |= {"POSTGRES_PASSWORD": "one", "RABBITMQ_PASSWORD": "two", "COMPOSE_PROJECT_NAME": "orders"}
        self.begun = int(time.time())

    def compose(self, *arguments):
        return self.docker.run("--file", COMPOSE, *arguments, command="docker-compose", timeout=PATIENCE)

    def id(self, name):
        return self.compose("ps", "--quiet", name).stdout.strip()

    def state(self, name):
        """Of a service's only container; without one, nothing."""
        if not (container := self.id(name)):
            return {}
        return json.loads(self.docker.run("inspect", container).stdout)[0]["State"]

    def health(self, name):
        return self.state(name).get("Health", {}).get("Status")

    def signal(self, name, number):
        """As from the machine itself: what `docker kill` has ended is not started anew."""
        pid = self.state(name)["Pid"]
        self.docker.within("kill", f"-{number}", str(pid), check=True)
        return pid

    def events(self):
        """What Docker has told, in its order: (service, what)."""
        told = self.docker.run("events", "--since", self.begun, "--until", int(time.time()) + 1, "--format", "{{json .}}").stdout
        events = [json.loads(line) for line in told.splitlines()]
        return [(event["Actor"]["Attributes"].get("com.docker.compose.service"), event["Action"]) for event in events]

    def asks(self, path):
        done = self.docker.within("curl", "--silent", "--max-time", "10", "--write-out", "\n%{http_code}", f"http://127.0.0.1:8080{path}")
        text, _, status = done.stdout.rpartition("\n")
        return int(status), text

    def logs(self):
        return self.compose("logs", "--tail", "20").stdout

    def until(self, fact, what, timeout=PATIENCE):
        end = time.monotonic() + timeout
        while not fact():
            assert time.monotonic() < end, f"not within {timeout} s: {what}\n{self.logs()}"
            time.sleep(0.5)


@pytest.fixture(scope="module")
def docker(tmp_path_factory):
    if why := refused():
        pytest.skip(f"no Docker here: {why}")
    docker = Docker(tmp_path_factory.mktemp("docker"))
    yield docker
    docker.end()


@pytest.fixture(scope="module")
def stack(docker, containers, images):
    """All five, up: ours are the images of deploy/image, as buildah has made them; the others are of Debian's servers."""
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    for made, name in zip(images, ("health", "worker"), strict=True):
        archive = docker.folder / "image.tar"
        containers.podman("save", "--format", "docker-archive", "--output", archive, made)
        docker.run("load", "--input", archive)
        archive.unlink()
        docker.run("tag", made, services[name]["image"])
    servers(docker)
    stack = Stack(docker)
    try:
        stack.compose("up", "--detach")
    except AssertionError as error:
        raise AssertionError(f"{error}\n{stack.logs()}") from None
    return stack


def test_all_five_become_healthy_and_none_starts_before_what_it_needs_is(stack):
    for name in NAMES:
        stack.until(lambda: stack.health(name) == "healthy", f"{name} is healthy")
    events = stack.events()
    started = events.index(("worker", "start"))
    for name in ("redis", "rabbitmq", "postgres"):
        assert events.index((name, "health_status: healthy")) < started, events
    assert started < events.index(("health", "start"))
    assert all(stack.asks(path)[0] == 200 for path in ("/healthz", "/readyz", "/healthcheck/fleet"))


def test_a_frozen_worker_is_unhealthy_and_the_web_tier_tells(stack):
    """Within what stands beside the threshold, with as much again for a machine that is busy."""
    stack.signal("worker", "STOP")
    try:
        begun = time.monotonic()
        stack.until(lambda: stack.asks("/healthcheck/fleet")[0] == 503, "the web tier tells", 112)
        stack.until(lambda: stack.health("worker") == "unhealthy", "Docker tells", 112 - (time.monotonic() - begun))
        assert stack.asks("/readyz")[0] == 200, "orders are taken all the same"
    finally:
        stack.signal("worker", "CONT")
    stack.until(lambda: stack.health("worker") == "healthy", "it is healthy again")
    stack.until(lambda: stack.asks("/healthcheck/fleet")[0] == 200, "it is told of no more")


def test_a_killed_worker_is_started_anew(stack):
    before = stack.signal("worker", "KILL")
    stack.until(lambda: stack.state("worker")["Pid"] not in (0, before), "it runs again")
    stack.until(lambda: stack.health("worker") == "healthy", "it is healthy again")


def test_the_web_tier_tells_of_a_broker_and_a_database_that_are_away(stack):
    for name, told, not_told in (("rabbitmq", "/healthcheck/fleet", "/readyz"), ("postgres", "/readyz", "/healthz")):
        stack.compose("stop", name)
        stack.until(lambda: stack.asks(told)[0] == 503, f"{name} is away")
        assert stack.asks(not_told)[0] == 200
        stack.compose("start", name)
        stack.until(lambda: stack.asks(told)[0] == 200, f"{name} is back")
    assert stack.health("health") == "healthy"


def test_all_end_within_their_times(stack):
    """Last, for it ends them."""
    ids = {name: stack.id(name) for name in ("worker", "health")}
    stack.compose("stop")
    for name, container in ids.items():
        assert json.loads(stack.docker.run("inspect", container).stdout)[0]["State"]["ExitCode"] == 0, f"{name}: {stack.logs()}"
