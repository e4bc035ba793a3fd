"""The probes of the rendered pods, asked as a kubelet asks them, of containers that run as those pods say: well, broken, ended."""

import os
import signal
import subprocess

import pytest

import harness
from containers import SHIPPED, stage
from harness import REPOSITORY, until
from kubelet import Pod
from manifests import pods, rendered

# One process builds the images, and runs these.
pytestmark = pytest.mark.xdist_group("pods")

PROMISE = "3s"


@pytest.fixture(scope="session")
def servers(tmp_path_factory):
    """A Redis at a socket in a folder that every container sees: in its network there is nobody else."""
    folder = tmp_path_factory.mktemp("servers")
    folder.chmod(0o777)
    server = harness.start_redis(folder, "--unixsocket", folder / "redis.sock", "--unixsocketperm", "777")
    yield folder, server
    server.end()


SECRET = {
    "REDIS_URL": "unix:///run/servers/redis.sock",
    "HEARTBEAT_REDIS_URL": "unix:///run/servers/redis.sock",
    "DATABASE_URL": "sqlite:///run/servers/shop.db",
    "RABBITMQ_URL": "amqp://127.0.0.1:1/",
}


@pytest.fixture
def pod(containers, images, servers, tmp_path):
    started = []

    def begin(overlay, of, name, image, **changed):
        objects = rendered(overlay)
        spec = dict(pods(objects))[of]
        for container in [*spec["spec"].get("initContainers", []), *spec["spec"]["containers"]]:
            for variable in container.get("env", []):
                if variable["name"] in changed:
                    variable["value"] = changed[variable["name"]]
        started.append(Pod(containers, tmp_path, objects, spec, name, image, SECRET, servers[0]))
        return started[-1]

    yield begin
    for one in reversed(started):
        one.end()


def passes(pod, probe):
    until(lambda: pod.asks(probe) == 0, timeout=30, what=f"{probe} passes: {pod.logs()}")


@pytest.mark.parametrize("overlay", ["base", "overlays/sidecar", "overlays/daemonset"])
def test_the_workers_probes_tell_a_frozen_one_and_let_a_living_one_be(pod, images, overlay):
    worker = pod(overlay, "Deployment/worker", "worker", images[1], HEARTBEAT_PROMISE=PROMISE)
    passes(worker, "livenessProbe")
    passes(worker, "readinessProbe")
    os.kill(worker.pid(), signal.SIGSTOP)
    until(lambda: worker.asks("livenessProbe") == 1 and worker.asks("readinessProbe") == 1, what="both fail")
    os.kill(worker.pid(), signal.SIGCONT)
    passes(worker, "livenessProbe")
    assert worker.stop() == 0, worker.logs()


def test_the_workers_own_endpoint_tells_a_wedged_one(pod, own_worker):
    worker = pod("overlays/endpoint", "Deployment/worker", "worker", own_worker, HEARTBEAT_LOOP_BUDGET="1s")
    passes(worker, "livenessProbe")
    passes(worker, "readinessProbe")
    os.kill(worker.pid(), signal.SIGUSR1)
    until(lambda: worker.asks("livenessProbe") and worker.asks("readinessProbe"), what="both fail")
    assert worker.state()["Running"]


@pytest.fixture(scope="session")
def own_worker(containers, images):
    """A worker in C with an endpoint, in an image of its own."""
    if SHIPPED:
        pytest.skip("a program for glibc: only with the debug builds")
    folder = containers.folder / "c"
    folder.mkdir()
    built = harness.CHECKER.parent
    command = ["cc", "-o", folder / "worker", REPOSITORY / "tests" / "deploy" / "endpoint.c", f"-I{REPOSITORY / 'heartbeat' / 'c'}"]
    subprocess.run([*command, built / "libheartbeat.a", "-lpthread", "-ldl", "-lm", "-lgcc_s"], check=True)
    own = stage(folder / "own", [folder / "worker"])
    return containers.build("localhost/c-worker", REPOSITORY / "deploy/image/worker.Containerfile", own, "--build-arg", "BASE=localhost/glibc")


@pytest.mark.parametrize("overlay", ["base", "overlays/grpc"])
def test_the_web_tiers_probes_tell_a_start_an_outage_and_its_end_apart(pod, images, servers, overlay):
    """Its database is not there at first; later its cache is frozen; and liveness passes all that time."""
    folder, redis = servers
    (folder / "shop.db").unlink(missing_ok=True)
    tier = pod(overlay, "Deployment/health", "checker", images[0])
    passes(tier, "livenessProbe")
    assert tier.asks("startupProbe") != 0 and tier.asks("readinessProbe") != 0
    subprocess.run(["sqlite3", folder / "shop.db", "CREATE TABLE orders (id INTEGER)"], check=True)
    (folder / "shop.db").chmod(0o666)
    passes(tier, "startupProbe")
    passes(tier, "readinessProbe")
    redis.signal(signal.SIGSTOP)
    try:
        until(lambda: tier.asks("readinessProbe") != 0, timeout=30, what="readiness fails")
        assert tier.asks("livenessProbe") == 0
    finally:
        redis.signal(signal.SIGCONT)
    passes(tier, "readinessProbe")
    assert tier.stop() == 0, tier.logs()


@pytest.mark.parametrize(("overlay", "of"), [("overlays/sidecar", "Deployment/worker"), ("overlays/daemonset", "DaemonSet/agent")])
def test_the_agent_tells_of_a_worker_that_has_no_redis_for_it(pod, images, servers, overlay, of):
    """Worker and agent as their pods say, over the folder that they share; and the drain is told to its end."""
    _, redis = servers
    worker = pod(overlay, "Deployment/worker", "worker", images[1], HEARTBEAT_CLUSTER=of.replace("/", "-"))
    assert "HEARTBEAT_REDIS_URL" not in worker.environment(SECRET)
    pod(overlay, of, "agent", images[0])
    asked = [harness.CHECKER, "cluster", of.replace("/", "-"), "--expect", "worker-1", "--redis", redis.url]

    def there():
        return subprocess.run(asked, env=harness.environment(), capture_output=True, check=False).returncode == 0

    until(there, timeout=30, what="the worker is in Redis")
    assert worker.stop() == 0, worker.logs()
    until(lambda: not there(), timeout=30, what="the worker that has stopped is no longer there")
