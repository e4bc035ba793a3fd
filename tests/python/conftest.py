"""Fixtures of the Python package's tests. The interpreter that runs them is the one that has the package."""

import subprocess
import sys

import pytest

import harness

try:
    import heartbeat
except ImportError as missing:
    raise pytest.UsageError(f"the package `heartbeat` is not there: {missing}; `tests/run python` installs it") from None


@pytest.fixture(scope="session")
def python():
    """The interpreter that has the package, for workers that a test starts."""
    return sys.executable


@pytest.fixture
def script(start, python, tmp_path):
    """Starts Python code as a program of its own: `script("import heartbeat; …")`, with `sys.argv[1:]` and environment."""

    def begin(code, *arguments, **environment):
        return start(harness.Program, [python, "-c", code, *arguments], harness.environment(**environment), tmp_path)

    return begin


@pytest.fixture
def run(python, tmp_path):
    """Runs Python code to its end, and gives what `subprocess.run` gives."""

    def finish(code, *arguments, timeout=30, interpreter=python, **environment):
        return subprocess.run(
            [interpreter, "-c", code, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=timeout,
            env=harness.environment(**environment),
            cwd=tmp_path,
            check=False,
        )

    return finish


@pytest.fixture
def beat(tmp_path):
    """Where the test's worker has its beat file."""
    return tmp_path / "beat"


@pytest.fixture
def worker(beat):
    """Starts heartbeats in this process, with short times and the beat file of the fixture `beat`; stops them with the test."""
    started = []

    def begin(**settings):
        settings = {"file": beat, "interval": 0.1, "promise": 5} | settings
        started.append(heartbeat.Heartbeat(**settings))
        return started[-1]

    yield begin
    for one in started:
        one.stop()


def pytest_terminal_summary(terminalreporter):
    """Shows what a test has measured and wants to be read: `record_property("shown", …)`, through xdist too."""
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, value in getattr(report, "user_properties", ()):
                if name == "shown" and report.when == "call":
                    terminalreporter.write_sep("-", report.nodeid.partition("::")[2])
                    terminalreporter.write_line(value)
