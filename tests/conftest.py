"""Fixtures of all Python tests, and the rule that under CI nothing passes by not running."""

import os
import tempfile

import pytest

import harness
import signing as signed_records


@pytest.fixture
def start():
    """Starts programs: `start(harness.Program, …)`. Ends every one of them, and all that they started, with the test."""
    started = []

    def begin(kind, *arguments, **keywords):
        program = kind(*arguments, **keywords)
        started.append(program)
        return program

    yield begin
    for program in reversed(started):
        program.end()


@pytest.fixture
def demo_worker(start, tmp_path):
    """Starts a demo worker that already beats; by default at `beat` in the test's own folder."""

    def begin(*arguments, file=tmp_path / "beat"):
        return start(harness.DemoWorker, file, *arguments).beating()

    return begin


@pytest.fixture(scope="session")
def broker():
    """One Redis server for all tests that only need a broker."""
    with tempfile.TemporaryDirectory(prefix="heartbeat-redis-") as folder:
        server = harness.start_redis(folder)
        yield server
        server.end()


@pytest.fixture
def own_broker(tmp_path):
    """A Redis server that the test may break."""
    server = harness.start_redis(tmp_path)
    yield server
    server.end()


@pytest.fixture
def signing(own_broker, tmp_path):
    """What one worker with a key needs, and has to do."""
    return signed_records.Signing(own_broker, tmp_path)


@pytest.fixture(scope="session")
def rabbitmq():
    """One RabbitMQ for all tests that do not break it; it takes many times as long to start as a Redis."""
    with tempfile.TemporaryDirectory(prefix="heartbeat-rabbitmq-") as folder:
        server = harness.start_rabbitmq(folder)
        yield server
        server.end()


def pytest_configure():
    for binary in (harness.CHECKER, harness.HEARTBEAT):
        if not os.access(binary, os.X_OK):
            raise pytest.UsageError(f"{binary} is not built; run tests/run, or build it first")


def pytest_sessionfinish(session, exitstatus):
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") == "true" and reporter.stats.get("skipped") and exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter):
    if os.environ.get("CI") == "true" and terminalreporter.stats.get("skipped"):
        terminalreporter.write_line("CI: a skipped test is a failure", red=True)
