"""deploy/systemd, by systemd's own tools. No systemd runs the tests, so what it would do is done here: the socket is opened by
`systemd-socket-activate`, and what the programs tell it is received on a socket of the test's own. What the hardening forbids is
only rated, not tried."""

import re
import shlex
import signal
import socket
import subprocess
import threading
import time

import pytest

import harness
from running import DEPLOY, ask

UNITS = sorted((DEPLOY / "systemd").glob("*.[st]*[et]*"))
SERVICES = [unit for unit in UNITS if unit.suffix == ".service"]
# Of 10, where 0 is the safest; what `systemd-analyze security` calls OK ends at 4.
EXPOSURE = 2.0


def analyze(*arguments, cwd=None):
    done = subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, cwd=cwd, timeout=60, check=False)
    assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The units, with programs that are there."""
    folder = tmp_path_factory.mktemp("units")
    for unit in UNITS:
        (folder / unit.name).write_text(re.sub(r"(?m)^(ExecStart=)\S+", r"\1/bin/true", unit.read_text()))
    return folder


def test_systemd_takes_every_unit(folder):
    assert {unit.suffix for unit in UNITS} == {".service", ".socket", ".timer"}
    for unit in UNITS:
        name = unit.name.replace("@.", "@nightly.")
        said = analyze("verify", "--man=no", name, cwd=folder)
        # Its status is 0 also where it ignores a key that it does not know.
        assert str(folder) not in said and unit.name not in said, said


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.name)
def test_little_is_exposed(folder, unit):
    name = unit.name.replace("@.", "@nightly.")
    (folder / name).write_text((folder / unit.name).read_text())
    said = analyze("security", "--offline=true", "--no-pager", f"--threshold={EXPOSURE * 10:.0f}", folder / name)
    level = float(re.search(r"exposure level for \S+: ([\d.]+)", said)[1])
    assert level <= EXPOSURE, said


def test_the_timer_comes_every_quarter_of_an_hour():
    when = re.search(r"OnCalendar=(.*)", (DEPLOY / "systemd/checker-run@.timer").read_text())[1]
    said = analyze("calendar", "--iterations=2", "--base-time=2030-01-01 00:01 UTC", when)
    assert "00:15:00" in said and "00:30:00" in said, said


# --- what they start ---------------------------------------------------------------------------------------------------------


def settings(name, section="Service"):
    """A unit's settings, the last of each; what it starts as words, with its places filled in."""
    text = (DEPLOY / "systemd" / name).read_text().partition(f"[{section}]")[2].partition("\n[")[0]
    return dict(re.findall(r"(?m)^(\w+)=(.*)$", text))


def command(name, places):
    words = shlex.split(settings(name)["ExecStart"])
    programs = {"/usr/local/bin/checker": harness.CHECKER, "/usr/local/bin/heartbeat": harness.HEARTBEAT}
    words[0] = str(programs[words[0]])
    for old, new in places.items():
        assert any(old in word for word in words), words
        words = [word.replace(old, str(new)) for word in words]
    return words


def seconds(text):
    number, unit = re.fullmatch(r"(\d+)(s|min)", text).groups()
    return int(number) * {"s": 1, "min": 60}[unit]


class Manager:
    """Hears what systemd would hear of a service, all the time: a service waits where it is not listened to."""

    def __init__(self, folder):
        self._path = folder / "notify"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self._path))
        self.environment = {"NOTIFY_SOCKET": str(self._path), "WATCHDOG_USEC": "300000"}
        # When it came, and what it said.
        self.said = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        while message := self._socket.recv(4096).decode():
            self.said += [(time.monotonic(), line) for line in message.splitlines()]

    def end(self):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"", str(self._path))
        self._reader.join(10)
        self._socket.close()

    def hears(self, word):
        """Waits until it is told, from now on."""
        begin = len(self.said)
        harness.until(lambda: word in [line for _, line in self.said[begin:]], timeout=30, what=f"{word}: {self.said}")

    def is_told(self, word):
        """Waits until it has been told."""
        harness.until(lambda: word in [line for _, line in self.said], timeout=30, what=f"{word}: {self.said}")

    def last_heard(self, word):
        """How long ago that was."""
        return time.monotonic() - max(moment for moment, line in self.said if line == word)


@pytest.fixture
def manager(tmp_path):
    manager = Manager(tmp_path)
    yield manager
    manager.end()


CONFIGURATION = """
[subsets]
readiness = ["it"]
nightly = ["it"]
[checks.it]
type = "command"
command = ["test", "-e", "good"]
"""


def test_the_server_starts_with_the_first_question_and_feeds_the_watchdog(start, tmp_path, manager):
    (tmp_path / "checker.toml").write_text(CONFIGURATION)
    (tmp_path / "good").touch()
    listen = settings("checker.socket", "Socket")["ListenStream"]
    assert listen == "127.0.0.1:8080"
    listen = f"127.0.0.1:{harness.free_port()}"
    handed = [part for name, value in manager.environment.items() for part in ("-E", f"{name}={value}")]
    words = command("checker.service", {"${CREDENTIALS_DIRECTORY}": tmp_path})
    activate = start(harness.Program, ["systemd-socket-activate", "-l", listen, *handed, *words], cwd=tmp_path)
    harness.until(lambda: "Listening on" in activate.output, what="the socket is open")
    assert "checker serve" not in activate.output
    assert ask(f"http://{listen}/readyz") == (200, '{"status":"ready","checks":{"it":"ok"}}\n')
    manager.is_told("READY=1")
    manager.hears("WATCHDOG=1")
    activate.signal(signal.SIGTERM)
    manager.is_told("STOPPING=1")
    # The drain and the end, within what the unit allows.
    assert activate.exit_status(seconds(settings("checker.service")["TimeoutStopSec"])) == 0

def test_a_server_that_hangs_is_not_fed(start, tmp_path, manager):
    (tmp_path / "checker.toml").write_text(CONFIGURATION)
    words = command("checker.service", {"${CREDENTIALS_DIRECTORY}": tmp_path})
    server = start(harness.Program, [*words, "--listen", f"127.0.0.1:{harness.free_port()}"], harness.environment(**manager.environment))
    manager.hears("WATCHDOG=1")
    server.signal(signal.SIGSTOP)
    harness.until(lambda: manager.last_heard("WATCHDOG=1") > 1, timeout=30, what="the watchdog is not fed")
    server.signal(signal.SIGCONT)
    manager.hears("WATCHDOG=1")


def test_the_agent_is_ready_and_feeds_the_watchdog(start, broker, tmp_path, manager):
    words = command("heartbeat-agent.service", {"/run/heartbeat/orders": tmp_path})
    start(harness.Program, words, harness.environment(HEARTBEAT_REDIS_URL=broker.url, **manager.environment))
    manager.is_told("READY=1")
    manager.hears("WATCHDOG=1")


def test_a_run_of_the_timer_fails_where_a_check_does(tmp_path):
    (tmp_path / "checker.toml").write_text(CONFIGURATION)
    words = command("checker-run@.service", {"%I": "nightly", "${CREDENTIALS_DIRECTORY}": tmp_path})
    run = lambda: subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False).returncode
    assert run() == 1
    (tmp_path / "good").touch()
    assert run() == 0
    own = seconds(words[words.index("--timeout") + 1])
    assert own < seconds(settings("checker-run@.service")["TimeoutStartSec"])


def test_the_folder_of_the_beat_files_is_the_same_for_worker_and_agent():
    worker, agent = settings("orders-worker.service"), settings("heartbeat-agent.service")
    assert worker["RuntimeDirectory"] == agent["RuntimeDirectory"] == "heartbeat/orders" and worker["User"] == agent["User"]
    assert "HEARTBEAT_FILE=/run/heartbeat/orders/" in worker["Environment"] and "--dir /run/heartbeat/orders" in agent["ExecStart"]
    # The worker itself: heartbeat/tests/systemd.rs has one that links the feature, and its watchdog.
    assert worker["Type"] == "notify" and worker["WatchdogSec"] == "30s"
