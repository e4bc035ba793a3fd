"""Fixtures of the tests of deploy/: images and containers."""

import tempfile

import pytest

import containers as own


@pytest.fixture(scope="session")
def containers():
    """Podman and buildah with a storage of the tests' own."""
    # Below a short path: sockets of podman's have names within it.
    with tempfile.TemporaryDirectory(prefix="heartbeat-deploy-", ignore_cleanup_errors=True) as folder:
        all_of_them = own.Containers(folder)
        yield all_of_them
        all_of_them.end()


@pytest.fixture(scope="session")
def images(containers):
    """The names of the two images, built; skips, in podman's own words, where nothing can be run."""
    names = own.images(containers)
    tried = containers.podman("run", "--rm", *own.RESTRICTED, names[0], "--version", check=False)
    if tried.returncode:
        pytest.skip(f"no container can be run here: {tried.stderr.strip()}")
    return names


@pytest.fixture
def run(containers, images):
    """Starts containers: `run(options…, image, arguments…)`. Ends them with the test."""
    started = []

    def begin(*arguments):
        started.append(own.Container(containers, *arguments))
        return started[-1]

    yield begin
    for container in reversed(started):
        container.end()


def pytest_terminal_summary(terminalreporter):
    """What the tests had to do without here."""
    from manifests import kubectl

    if not kubectl():
        terminalreporter.write_line("deploy: no kubectl with kustomize 5 here; a renderer of the tests' own stood for it")
