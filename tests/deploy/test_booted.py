"""deploy/systemd under a real systemd, in a machine of the tests' own that it has booted: the units as they are, with but a watchdog
that is quicker."""

import json
import re
import shutil
import subprocess

import pytest

import harness
from booted import Machine, refused
from containers import stage
from harness import REPOSITORY
from running import DEPLOY

# One process boots it.
pytestmark = pytest.mark.xdist_group("systemd")

CONFIGURATION = """
[subsets]
readiness = ["it"]
nightly = ["it"]
[checks.it]
type = "command"
command = ["test", "-e", "/etc/checker/good"]
"""
SERVED = "http://127.0.0.1:8080"
DAEMONS = ["orders-worker", "heartbeat-agent", "checker"]


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    """The units, the two commands, and the worker of endpoint.c, which links `heartbeat` with its feature `systemd`."""
    if why := refused():
        pytest.skip(f"no systemd can be booted here: {why}")
    files = tmp_path_factory.mktemp("files")
    units = shutil.copytree(DEPLOY / "systemd", files / "etc/systemd/system", ignore=shutil.ignore_patterns("*.md"))
    for name in DAEMONS:
        drop_in(units, f"{name}.service", "[Service]\nWatchdogSec=2s\n")
    drop_in(units, "orders-worker.service", "[Service]\nEnvironment=HEARTBEAT_WORKER=one HEARTBEAT_LOOP_BUDGET=1s\n", "budget")
    built, worker = harness.CHECKER.parent, files.parent / "orders-worker"
    source = ["-o", worker, REPOSITORY / "tests/deploy/endpoint.c", f"-I{REPOSITORY / 'heartbeat/c'}"]
    subprocess.run(["cc", *source, built / "libheartbeat.a", "-lpthread", "-ldl", "-lm", "-lgcc_s"], check=True)
    stage(files / "usr/local/bin", [harness.CHECKER, harness.HEARTBEAT, worker])
    (files / "etc/sysusers.d").mkdir()
    (files / "etc/sysusers.d/orders.conf").write_text("u orders -\n")
    (files / "etc/heartbeat").mkdir()
    (files / "etc/heartbeat/agent.env").write_text("HEARTBEAT_REDIS_URL=redis://127.0.0.1:6379/0\n")
    (files / "etc/checker").mkdir()
    configuration = files / "etc/checker/checker.toml"
    configuration.write_text(CONFIGURATION)
    configuration.chmod(0o600)
    machine = Machine(tmp_path_factory.mktemp("machine"), files)
    yield machine
    machine.end()


def drop_in(units, unit, text, name="quick"):
    folder = units / f"{unit}.d"
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.conf").write_text(text)


@pytest.fixture
def started(machine):
    """Starts a unit, and stops it with the test."""
    units = []

    def start(unit):
        units.append(unit)
        machine.run("systemctl", "start", unit)

    yield start
    for unit in reversed(units):
        machine.run("systemctl", "stop", unit)


def is_killed_and_started_anew(machine, unit, signal, meanwhile=lambda: None):
    """By the watchdog, after its first process got this signal; and then it is another."""
    pid, before = machine.shows(unit, "MainPID"), int(machine.shows(unit, "NRestarts"))
    machine.run("kill", f"-{signal}", pid)
    meanwhile()
    machine.until(lambda: int(machine.shows(unit, "NRestarts")) == before + 1, "it is started anew")
    machine.until(lambda: machine.shows(unit, "ActiveState") == "active", "it is ready")
    assert machine.shows(unit, "MainPID") != pid
    told = machine.run("journalctl", "--no-pager", "_PID=1", f"UNIT={unit}.service").stdout
    assert told.count("Watchdog timeout (limit 2s)!") == before + 1, told


def beats(machine):
    return machine.run("checker", "worker", "--file", "/run/heartbeat/orders/worker", "--owner", "orders", check=False).returncode == 0


def test_a_worker_that_is_frozen_or_hangs_is_killed_and_started_anew(machine, started):
    started("orders-worker")
    assert beats(machine), "it is started once it is ready"
    # Frozen, and with a loop that hangs.
    for signal in ("STOP", "USR1"):
        is_killed_and_started_anew(machine, "orders-worker", signal)
        machine.until(lambda: beats(machine), "it beats")
    machine.run("systemctl", "stop", "orders-worker")
    assert machine.shows("orders-worker", "Result") == "success"


@pytest.mark.parametrize("unit", DAEMONS)
def test_what_has_not_aborted_is_not_waited_for_as_long_as_a_drain(machine, unit):
    assert machine.shows(unit, "TimeoutAbortUSec") == "10s"


def test_the_agent_tells_redis_of_the_workers_and_is_killed_where_it_hangs(machine, started):
    machine.run("systemd-run", "--unit=redis-of-the-tests", "redis-server", "--save", "")
    try:
        started("heartbeat-agent")
        started("orders-worker")
        asked = ["checker", "cluster", "orders", "--expect", "one", "--redis", "redis://127.0.0.1:6379/0"]
        machine.until(lambda: machine.run(*asked, check=False).returncode == 0, "the worker is in Redis")
        is_killed_and_started_anew(machine, "heartbeat-agent", "STOP")
        machine.until(lambda: machine.run(*asked, check=False).returncode == 0, "the worker is in Redis")
    finally:
        machine.run("systemctl", "stop", "redis-of-the-tests")


@pytest.fixture
def asked(machine):
    """Asks the server; the port is systemd's, which starts it with the first question."""
    machine.run("touch", "/etc/checker/good")
    machine.run("systemctl", "enable", "--now", "checker.socket")

    def ask(path):
        return machine.run("curl", "--silent", "--show-error", "--max-time", "30", SERVED + path, check=False)

    yield ask
    machine.run("systemctl", "disable", "--now", "checker.socket", "checker.service")


def test_the_server_starts_with_the_first_question_as_a_user_of_its_own_that_may_nothing(machine, asked):
    assert machine.shows("checker", "ActiveState") == "inactive"
    answer = asked("/readyz")
    assert answer.stdout, f"{answer}{machine.journal()}"
    assert json.loads(answer.stdout)["status"] == "ready"
    assert machine.shows("checker", "ActiveState") == "active"
    pid = machine.shows("checker", "MainPID")
    status = dict(re.findall(r"(?m)^(\w+):\s+(.*)$", machine.run("cat", f"/proc/{pid}/status").stdout))
    assert {61184 <= int(user) <= 65519 for user in status["Uid"].split()} == {True}, "one that systemd has made up"
    assert status["CapEff"] == status["CapBnd"] == "0" * 16
    assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2"
    # The files of the machine cannot be written to from there, not even by root; its configuration it has as a credential alone.
    within = ["nsenter", "--target", pid, "--mount"]
    for folder in ("/etc", "/usr/local/bin", "/var/lib", "/"):
        refused = machine.run(*within, "touch", f"{folder}/written", check=False)
        assert refused.returncode and "Read-only file system" in refused.stderr, f"{folder}: {refused}"
    assert machine.run(*within, "ls", "/home").stdout == ""
    assert machine.run("stat", "--format=%a", "/etc/checker/checker.toml").stdout == "600\n"


def test_nobody_is_refused_while_the_server_is_started_anew_or_hangs(machine, asked):
    assert asked("/healthz").returncode == 0
    pid = machine.shows("checker", "MainPID")
    machine.run("systemctl", "restart", "--no-block", "checker")
    answers = []
    machine.until(lambda: answers.append(asked("/healthz")) or machine.shows("checker", "MainPID") not in ("0", pid), "it is another")
    assert {answer.returncode for answer in answers} == {0}, answers
    # A question to one that is frozen waits in the queue of the socket, from where the next takes it.
    waited = []
    is_killed_and_started_anew(machine, "checker", "STOP", lambda: waited.append(asked("/healthz")))
    assert waited[0].returncode == 0, waited


def test_the_timer_runs_a_subset_and_a_check_that_fails_is_a_unit_that_failed(machine):
    timer, service = "checker-run@nightly.timer", "checker-run@nightly.service"
    machine.run("rm", "-f", "/etc/checker/good")
    machine.run("systemctl", "enable", "--now", timer)
    try:
        when = machine.run("systemctl", "show", "--property=NextElapseUSecRealtime", timer).stdout
        # At a quarter, and up to a minute later.
        assert int(re.search(r":(\d\d):\d\d", when)[1]) % 15 in (0, 1), when
        quick = "[Timer]\\nOnCalendar=\\nOnCalendar=*:*:*\\nRandomizedDelaySec=0\\nAccuracySec=10ms\\n"
        folder = f"/etc/systemd/system/{timer}.d"
        machine.run("sh", "-c", f"mkdir -p {folder} && printf '{quick}' >{folder}/quick.conf")
        machine.run("systemctl", "daemon-reload")
        machine.run("systemctl", "restart", timer)
        machine.until(lambda: service in machine.run("systemctl", "--failed", "--plain").stdout, "it has failed")
        machine.run("touch", "/etc/checker/good")
        # Failed runs are "failed" after it, and none is "inactive" while it runs.
        machine.until(lambda: machine.shows(service, "ActiveState") == "inactive", "it has passed")
    finally:
        machine.run("systemctl", "disable", "--now", timer)
