"""Starts the real programs that the tests are about, waits for facts, and leaves no process behind.

It knows how to run things, not what is right: every expectation stands in a test.
"""

import contextlib
import json
import os
import queue
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
CHECKER = Path(os.environ.get("CHECKER_BIN", TARGET / "debug" / "checker")).absolute()
# A server that takes Redis' settings: another one is `tests/run valkey`'s.
REDIS_SERVER = os.environ.get("REDIS_SERVER", "redis-server")
HEARTBEAT = Path(os.environ.get("HEARTBEAT_BIN", TARGET / "debug" / "heartbeat")).absolute()


def environment(**extra):
    """This process's environment without what would configure a worker or a checker, and with `extra`."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HEARTBEAT_", "CHECKER_"))}
    return kept | {k: str(v) for k, v in extra.items()}


def until(fact, timeout=10.0, what=None):
    """The first true answer of `fact()`; fails after `timeout` seconds and says what never came true, or what `what()` tells then."""
    end = time.monotonic() + timeout
    while not (answer := fact()):
        if time.monotonic() > end:
            told = what() if callable(what) else what or fact
            raise AssertionError(f"not within {timeout} s: {told}; last answer: {answer!r}")
        time.sleep(0.02)
    return answer


class Program:
    """One started program, in a session of its own, its output kept line by line."""

    def __init__(self, command, env=None, cwd=None, umask=-1):
        self.command = [str(part) for part in command]
        self.lines = []
        self._arrived = queue.Queue()
        self._ended = False
        self.process = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=env or environment(),
            cwd=cwd,
            umask=umask,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self):
        return self.process.pid

    @property
    def output(self):
        return "".join(self.lines)

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line)
            self._arrived.put(line)
        self._arrived.put(None)

    def next_line(self, timeout=10.0):
        try:
            line = self._arrived.get(timeout=timeout)
        except queue.Empty:
            raise AssertionError(f"no line within {timeout} s from {self.command}:\n{self.output}") from None
        assert line is not None, f"{self.command} ended:\n{self.output}"
        return line.rstrip("\n")

    def says(self, words, timeout=40.0):
        """Waits until these words are in its output."""

        def said():
            assert words in self.output or self.process.poll() is None, f"{self.command} ended:\n{self.output}"
            return words in self.output

        until(said, timeout, f"{words!r} is said by {self.command}")
        return self

    def signal(self, number):
        os.kill(self.pid, number)

    def signal_all(self, number):
        """To each process of its session, as where the whole machine stands still."""
        for pid in session_members(self.pid):
            os.kill(pid, number)

    def exit_status(self, timeout=20.0):
        """The status as a shell tells it: 128 + n for a process that signal n ended."""
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout} s: {self.command}\n{self.output}") from None
        self._reader.join(5)
        return status if status >= 0 else 128 - status

    def end(self):
        """Kills whatever is left of the session, orphans too, and reaps."""
        if self._ended:
            return
        self._ended = True
        until(lambda: not kill_session(self.pid), what=f"{self.command} and all that it started have ended")
        self.process.wait(10)
        self.process.stdin.close()
        self._reader.join(5)
        self.process.stdout.close()


def kill_session(session):
    """Kills the living processes of a session, its leader first, so that it cannot tidy up after the others; gives them."""
    living = sorted(session_members(session), key=lambda pid: pid != session)
    for pid in living:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return living


def session_members(session):
    for entry in os.listdir("/proc"):
        # Any of them may end while it is looked at.
        with contextlib.suppress(ValueError, ProcessLookupError, FileNotFoundError):
            pid = int(entry)
            if os.getsid(pid) == session and process_state(pid) not in "ZX":
                yield pid


def process_state(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


class DemoWorker(Program):
    """`checker demo-worker`: a real process that links `heartbeat`, hashes files in its loop, and obeys lines on stdin."""

    def __init__(self, file, *arguments):
        super().__init__([CHECKER, "demo-worker", "--file", file, *arguments])
        self.file = Path(file)

    def beating(self):
        first = self.next_line()
        assert first == f"beating {self.pid}", self.output
        return self

    def say(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.next_line()
        assert answer == "ok", f"{line!r} was answered with {answer!r}:\n{self.output}"


@dataclass(frozen=True)
class Verdict:
    """What `checker worker --format json` answered."""

    code: int
    answer: dict
    standard_error: str

    @property
    def name(self):
        return self.answer["verdict"]

    @property
    def status(self):
        return self.answer["status"]

    @property
    def passes(self):
        return self.code == 0


def verdict(file, *arguments):
    command = [CHECKER, "worker", "--format", "json", "--file", file, *arguments]
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=20, env=environment(), check=False
    )
    assert done.returncode in (0, 1), f"{command}: exit {done.returncode}\n{done.stdout}{done.stderr}"
    return Verdict(done.returncode, json.loads(done.stdout), done.stderr)


def record(file):
    return json.loads(Path(file).read_text())


class Redis(Program):
    """A Redis server of the test's own on a free loopback port, with nothing kept on disk."""

    def __init__(self, folder, *more):
        self.port = free_port()
        super().__init__(
            [REDIS_SERVER, "--port", self.port, "--bind", "127.0.0.1", "--dir", folder, "--save", "", "--appendonly", "no", *more]
        )
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def restart(self):
        """Starts it again after its end, on the same port, with nothing in it."""
        super().__init__(self.command)
        until(self.answers, what="redis-server answers again")

    def answers(self):
        if self.process.poll() is not None:
            raise AssertionError(f"redis-server ended:\n{self.output}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16) == b"+PONG\r\n"
        return False


def start_redis(folder, *more, attempts=3):
    """A server that answers. The free port may be taken by another process before Redis has it: then another one."""
    for attempt in range(attempts):
        server = Redis(folder, *more)
        try:
            until(server.answers, what="redis-server answers")
            return server
        except AssertionError:
            server.end()
            if attempt == attempts - 1:
                raise


class Sentinel(Program):
    """A Sentinel that watches one Redis, which it calls `name`, and is alone of that opinion."""

    def __init__(self, folder, watched, name):
        self.port = free_port()
        settings = Path(folder) / f"sentinel-{self.port}.conf"
        # It writes to this file.
        settings.write_text(f"port {self.port}\nbind 127.0.0.1\ndir {folder}\nsentinel monitor {name} 127.0.0.1 {watched.port} 1\n")
        super().__init__([REDIS_SERVER, settings, "--sentinel"])

    answers = Redis.answers


def free_port():
    """One below those that the kernel gives to connections, so that none takes it by chance before the server does."""
    while True:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", random.randrange(10_000, 32_768)))
            return probe.getsockname()[1]


class RabbitMQ(Program):
    """A RabbitMQ of the test's own: node name, ports, folders, cookie and epmd are nobody else's.

    Debian's own start script goes to the package's user and folders, so the one below it is run. The node's epmd is started
    here too, in the foreground and in a session of ours: one that Erlang starts by itself would outlive the tests.
    """

    def __init__(self, folder, config=""):
        self.folder = Path(folder)
        self.port, self.distribution, self.epmd_port = free_port(), free_port(), free_port()
        (self.folder / "rabbitmq.conf").write_text(f"listeners.tcp.1 = 127.0.0.1:{self.port}\n{config}\n")
        (self.folder / "enabled_plugins").write_text("[].\n")
        cookie = self.folder / ".erlang.cookie"
        cookie.write_text("tests")
        cookie.chmod(0o400)
        self.env = environment(
            HOME=self.folder,
            ERL_EPMD_PORT=self.epmd_port,
            ERL_EPMD_ADDRESS="127.0.0.1",
            RABBITMQ_NODENAME=f"tests-{self.port}@localhost",
            RABBITMQ_DIST_PORT=self.distribution,
            RABBITMQ_CONFIG_FILE=self.folder / "rabbitmq.conf",
            RABBITMQ_CONF_ENV_FILE=self.folder / "no-such-file",
            RABBITMQ_ENABLED_PLUGINS_FILE=self.folder / "enabled_plugins",
            RABBITMQ_MNESIA_BASE=self.folder / "mnesia",
            RABBITMQ_LOG_BASE=self.folder / "log",
            RABBITMQ_PID_FILE=self.folder / "pid",
            # One scheduler: many tests run beside it.
            RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="+S 1:1 +sbwt none",
        )
        self.url = f"amqp://127.0.0.1:{self.port}//"
        self._start()

    def _start(self):
        self.epmd = Program(["epmd", "-port", self.epmd_port, "-address", "127.0.0.1"], self.env, self.folder)
        super().__init__(["/usr/lib/rabbitmq/bin/rabbitmq-server"], self.env, self.folder)

    def restart(self):
        """Starts it again after its end, on the same ports and on what it has stored."""
        self._start()
        until(self.answers, timeout=180, what="rabbitmq-server answers again")

    def answers(self):
        """Whether a client is greeted: the listeners open last."""
        if self.process.poll() is not None:
            raise AssertionError(f"rabbitmq-server ended:\n{self.output}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            return connection.recv(1) == b"\x01"
        return False

    def ctl(self, *arguments):
        """What `rabbitmqctl` answers, which takes seconds: an Erlang of its own."""
        command = ["/usr/lib/rabbitmq/bin/rabbitmqctl", "--quiet", *arguments]
        done = subprocess.run(command, env=self.env, cwd=self.folder, capture_output=True, text=True, timeout=120, check=True)
        return done.stdout

    def beam(self):
        """The Erlang machine itself: what to stop where the broker is to freeze."""
        return next(
            pid for pid in session_members(self.pid) if Path(f"/proc/{pid}/comm").read_text().startswith("beam")
        )

    def signal_all(self, number):
        super().signal_all(number)
        self.epmd.signal_all(number)

    def end(self):
        super().end()
        self.epmd.end()


def start_rabbitmq(folder, config="", attempts=3):
    """A broker that answers. A free port may be taken by another process before RabbitMQ has it: then others."""
    for attempt in range(attempts):
        server = RabbitMQ(folder, config)
        try:
            until(server.answers, timeout=180, what="rabbitmq-server answers")
            return server
        except AssertionError:
            server.end()
            if attempt == attempts - 1:
                raise


class DatabaseServer(Program):
    """A database server of the test's own. `url` holds its password; `django` is the same for Django's settings."""

    def __init__(self, user, engine, name):
        self.port, self.password = free_port(), "S3cret"
        # Not below a folder of pytest's, which the server's own user may not enter.
        self.folder = Path(tempfile.mkdtemp(prefix="heartbeat-database-"))
        if os.geteuid() == 0:
            shutil.chown(self.folder, user, user)
        self.django = {
            "ENGINE": f"django.db.backends.{engine}",
            "NAME": name,
            "USER": "shop",
            "PASSWORD": self.password,
            "HOST": "127.0.0.1",
            "PORT": self.port,
        }
        scheme = {"postgresql": "postgres"}.get(engine, engine)
        self.url = f"{scheme}://shop:{self.password}@127.0.0.1:{self.port}/{name}"

    def set_up(self, command):
        done = subprocess.run([str(part) for part in command], cwd=self.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"

    def answers(self):
        assert self.process.poll() is None, self.output
        return self.ready_words in self.output

    def kill(self):
        """Kills it; what it has stored stays."""
        super().end()

    def restart(self):
        """Starts it again on what it has stored."""
        Program.__init__(self, self.command, cwd=self.folder)

    def end(self):
        super().end()
        shutil.rmtree(self.folder, ignore_errors=True)


def as_user(name):
    """What a server is started with that refuses to run as root."""
    return ["setpriv", f"--reuid={name}", f"--regid={name}", "--clear-groups"] if os.geteuid() == 0 else []


class Postgres(DatabaseServer):
    ready_words = "ready to accept connections"

    def __init__(self, *settings):
        super().__init__("postgres", "postgresql", "postgres")
        user = as_user("postgres")
        binaries = max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
        initdb = [*user, binaries / "initdb", "-D", self.folder / "data", "-U", "shop", "-A", "scram-sha-256", "--no-sync"]
        password = self.folder / "password"
        password.write_text(self.password)
        password.chmod(0o644)
        self.set_up([*initdb, "--pwfile", password])
        options = ["-p", self.port, "-k", self.folder, "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
        options += [part for setting in settings for part in ("-c", setting)]
        Program.__init__(self, [*user, binaries / "postgres", "-D", self.folder / "data", *options], cwd=self.folder)


class MariaDb(DatabaseServer):
    ready_words = "ready for connections"

    def __init__(self, *more):
        super().__init__("mysql", "mysql", "shop")
        user = ["--user=mysql"] if os.geteuid() == 0 else []
        data = f"--datadir={self.folder}/data"
        # At its start a server removes what another left among the temporary files, even of one that runs.
        temporary = f"--tmpdir={self.folder}"
        self.set_up(["mariadb-install-db", "--no-defaults", *user, data, temporary, "--auth-root-authentication-method=normal", "--skip-test-db"])
        setup = self.folder / "setup.sql"
        setup.write_text(
            f"CREATE DATABASE shop;\nCREATE USER shop@'%' IDENTIFIED BY '{self.password}';\nGRANT ALL ON shop.* TO shop@'%';\n"
        )
        setup.chmod(0o644)
        options = [data, temporary, f"--socket={self.folder}/socket", f"--pid-file={self.folder}/pid", f"--init-file={setup}"]
        options += ["--skip-name-resolve", "--bind-address=127.0.0.1", f"--port={self.port}", "--innodb-flush-log-at-trx-commit=0", *more]
        server = shutil.which("mariadbd") or "/usr/sbin/mariadbd"
        Program.__init__(self, [server, "--no-defaults", *user, *options], cwd=self.folder)
