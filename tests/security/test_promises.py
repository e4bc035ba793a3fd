"""What SECURITY.md promises of both commands as the system sees them: who may read what, and how little they need."""

import contextlib
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import harness
from harness import CHECKER, HEARTBEAT, REPOSITORY, Program, until, verdict

SECRET = "S3cret-that-nobody-may-see-0123456789"
PAGE = REPOSITORY / "SECURITY.md"
NOBODY = 65534


def test_each_test_that_the_page_names_is_there():
    named = re.findall(r"`([\w./-]+\.(?:rs|py))::(\w+)`", PAGE.read_text())
    assert len(named) > 20
    rows = [row for row in PAGE.read_text().partition("## Promises")[2].partition("\n## ")[0].splitlines() if row.startswith("| ")][2:]
    assert all("::" in row.rpartition(" | ")[2] for row in rows), "every promise has its test"
    for file, test in named:
        # A function that is marked as a test, or a trial of a test with a `main` of its own.
        rust = rf'#\[(?:tokio::)?test\b.*\]\n(?:\s*#\[.*\]\n)*\s*(?:async )?fn {test}\(|\btrial\(\s*"{test}"'
        there = rf"(?m)^def {test}\(" if file.endswith(".py") else rust
        assert re.search(there, (REPOSITORY / file).read_text()), f"{file} has no test {test}"


@pytest.fixture
def services(own_broker, start, tmp_path):
    """Each command that goes on, with secrets in its environment and in files; by name."""
    (tmp_path / "key").write_text(SECRET)
    (tmp_path / "beats").mkdir()
    (tmp_path / "checker.toml").write_text(
        f'[server]\nlisten = "127.0.0.1:0"\n[server.access]\ntoken = "${{TOKEN}}"\n'
        f'[checks.fleet]\ntype = "cluster"\ncluster = "orders"\nredis = "redis://:${{TOKEN}}@127.0.0.1:{own_broker.port}"\nkey = {{ file = "{tmp_path / "key"}" }}\n'
        '[subsets]\nreadiness = ["fleet"]\n'
    )
    environment = harness.environment(TOKEN=SECRET, HEARTBEAT_REDIS_URL=f"redis://:{SECRET}@127.0.0.1:{own_broker.port}", HEARTBEAT_KEY=SECRET)
    words = {
        "serve": [CHECKER, "serve", "--config", tmp_path / "checker.toml"],
        "run": [HEARTBEAT, "run", "--file", tmp_path / "run", "--", "sleep", "600"],
        "agent": [HEARTBEAT, "agent", "--dir", tmp_path / "beats", "--key-file", tmp_path / "key"],
    }

    def begin(name, before=()):
        return start(Program, [*before, *words[name]], environment, tmp_path)

    return begin


def begun(program, name, tmp_path):
    """Waits until it is at work, whichever it is."""
    ready = {"serve": lambda: "listening" in program.output or "127.0.0.1:" in program.output, "run": (tmp_path / "run").exists, "agent": lambda: has_threads(program.pid)}
    until(ready[name], timeout=30, what=f"{name} is at work: {program.output}")
    return program


def has_threads(session):
    return any(len(os.listdir(f"/proc/{pid}/task")) > 1 for pid in harness.session_members(session))


SERVICES = pytest.mark.parametrize("name", ["serve", "run", "agent"])


@SERVICES
def test_no_secret_is_in_the_process_list(name, services, tmp_path):
    program = begun(services(name), name, tmp_path)
    for pid in harness.session_members(program.pid):
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
        assert line and SECRET.encode() not in line
    assert SECRET not in program.output


def ended_by_a_crash(process):
    """Whether the kernel has made a core dump of it."""
    # Not SIGSEGV, at which Rust looks first.
    os.kill(process, signal.SIGABRT)
    _, status = os.waitpid(process, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGABRT
    return os.WCOREDUMP(status)


def without_limit():
    resource.setrlimit(resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2)


@SERVICES
def test_a_crash_leaves_no_core_dump(name, services, tmp_path):
    if resource.getrlimit(resource.RLIMIT_CORE)[1] == 0:
        pytest.skip("nothing may dump core here")
    control = subprocess.Popen(["sleep", "600"], cwd=tmp_path, preexec_fn=without_limit)
    until(lambda: Path(f"/proc/{control.pid}/comm").read_text() == "sleep\n")
    assert ended_by_a_crash(control.pid), "another program does leave one"
    control.returncode = -signal.SIGABRT
    for core in tmp_path.glob("core*"):
        core.unlink()
    program = begun(services(name, before=["prlimit", "--core=unlimited"]), name, tmp_path)
    assert not ended_by_a_crash(program.pid)
    program.process.returncode = -signal.SIGABRT
    assert not list(tmp_path.glob("core*"))


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@needs_root
@pytest.mark.parametrize("command", ["checker", "heartbeat"])
def test_nobody_else_of_the_same_user_reads_its_environment(command, start, tmp_path):
    as_nobody = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    folder = tmp_path / "folder"
    folder.mkdir()
    os.chown(folder, NOBODY, NOBODY)
    for parent in [folder, *folder.parents]:
        with contextlib.suppress(OSError):
            parent.chmod(parent.stat().st_mode | 0o011)
    # Where that user can start it, whatever the folder of the build lets him.
    programs = {}
    for binary in (CHECKER, HEARTBEAT):
        programs[binary.name] = folder / binary.name
        programs[binary.name].write_bytes(binary.read_bytes())
        programs[binary.name].chmod(0o755)
    words = {
        "checker": [programs["checker"], "demo-worker", "--file", folder / "beat"],
        "heartbeat": [programs["heartbeat"], "run", "--file", folder / "beat", "--", "sleep", "600"],
    }[command]
    program = start(Program, [*as_nobody, *words], harness.environment(HEARTBEAT_KEY=SECRET), folder)
    until((folder / "beat").exists, timeout=30, what=program.output)

    def read(pid, file):
        return subprocess.run([*as_nobody, "cat", f"/proc/{pid}/{file}"], capture_output=True, check=False, timeout=20)

    other = start(Program, [*as_nobody, "sleep", "600"], harness.environment(HEARTBEAT_KEY=SECRET))
    until(lambda: Path(f"/proc/{other.pid}/comm").read_text() == "sleep\n")
    assert SECRET.encode() in read(other.pid, "environ").stdout, "of another program it does"
    for file in ("environ", "maps"):
        assert read(program.pid, file).stdout == b""
    assert read(program.pid, "stat").stdout, "that it is there anybody may see, and a checker has to"


@needs_root
@SERVICES
def test_no_capability_and_nothing_to_write_to_but_its_own_folder_is_enough(name, services, tmp_path):
    script = 'mount --bind "$0" "$0" && mount -o remount,bind,ro / && ! touch /nothing 2>/dev/null && exec setpriv --no-new-privs --bounding-set=-all --inh-caps=-all --ambient-caps=-all "$@"'
    program = begun(services(name, before=["unshare", "--mount", "sh", "-c", script, tmp_path]), name, tmp_path)
    status = Path(f"/proc/{program.pid}/status").read_text()
    assert re.search(r"CapEff:\t0+\n", status) and "NoNewPrivs:\t1\n" in status, status
    if name == "run":
        assert verdict(tmp_path / "run").name == "alive"
    program.signal(signal.SIGTERM)
    assert program.exit_status(30) in (0, 128 + signal.SIGTERM), program.output


UNITS = REPOSITORY / "deploy/systemd"


def sets_of_calls():
    """Systemd's own sets of system calls, by its own word."""
    listed = subprocess.run(["systemd-analyze", "syscall-filter"], capture_output=True, text=True, check=True, timeout=60, env=harness.environment(SYSTEMD_COLORS="0")).stdout
    sets, current = {}, None
    for line in listed.splitlines():
        if line.startswith("@"):
            current = sets.setdefault(line.strip(), [])
        elif current is not None and line.startswith("    ") and not line.strip().startswith("#"):
            current.append(line.strip())
    return sets


@pytest.fixture(scope="module")
def filtered():
    """What a program is started with under the filter of a unit, but that a call which it forbids is the program's end, and no mere error."""
    sets = sets_of_calls()

    def members(name):
        return {call for member in sets[name] for call in (members(member) if member.startswith("@") else [member])}

    def under(unit):
        allowed = set()
        for words in re.findall(r"(?m)^SystemCallFilter=(.+)$", (UNITS / unit).read_text()):
            names = set().union(*(members(name) for name in words.removeprefix("~").split()))
            allowed = allowed - names if words.startswith("~") else allowed | names
        assert len(allowed) > 100
        return [sys.executable, Path(__file__).with_name("filtered.py"), ",".join(sorted(allowed))]

    return under


def test_what_a_filter_forbids_is_a_programs_end(filtered):
    for unit in ("checker.service", "checker-run@.service", "heartbeat-agent.service"):
        assert subprocess.run([*filtered(unit), "true"], timeout=30).returncode == 0
        for forbidden in (["unshare", "--mount", "true"], ["chown", "0", "/"], ["nice", "true"]):
            assert subprocess.run([*filtered(unit), *forbidden], timeout=30).returncode == -signal.SIGSYS, forbidden


UNIT = {"serve": "checker.service", "run": "heartbeat-agent.service", "agent": "heartbeat-agent.service"}


@SERVICES
def test_a_service_does_with_the_system_calls_that_its_unit_allows(name, services, filtered, tmp_path):
    program = begun(services(name, before=filtered(UNIT[name])), name, tmp_path)
    assert "Seccomp:\t2\n" in Path(f"/proc/{program.pid}/status").read_text()
    if name == "run":
        until(lambda: verdict(tmp_path / "run").name == "alive", timeout=30)
    program.signal(signal.SIGTERM)
    assert program.exit_status(30) in (0, 128 + signal.SIGTERM), program.output


def test_a_probe_does_with_them_too(own_broker, start, filtered, tmp_path):
    environment = harness.environment(HEARTBEAT_REDIS_URL=own_broker.url, HEARTBEAT_KEY=SECRET, HEARTBEAT_CLUSTER="orders")
    start(Program, [HEARTBEAT, "run", "--file", tmp_path / "beat", "--", "sleep", "600"], environment)
    (tmp_path / "checker.toml").write_text(
        '[server]\nlisten = "127.0.0.1:0"\n[subsets]\nreadiness = ["disk", "cache", "port", "program", "file", "fleet"]\n[checks]\n'
        'disk = { type = "disk", path = "/" }\n'
        f'cache = {{ type = "redis", url = "{own_broker.url}" }}\n'
        f'port = {{ type = "tcp", address = "localhost:{own_broker.port}" }}\n'
        'program = { type = "command", command = ["true"] }\n'
        f'file = {{ type = "worker", file = "{tmp_path / "beat"}" }}\n'
        f'fleet = {{ type = "cluster", cluster = "orders", redis = "{own_broker.url}", key = "{SECRET}" }}\n'
    )
    configured = ["--config", tmp_path / "checker.toml"]

    def done(*words):
        command = [*filtered("checker-run@.service"), CHECKER, *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    until(lambda: done("cluster", "orders").returncode == 0, timeout=30, what="the worker counts")
    probes = [["worker", "--file", tmp_path / "beat"], ["run", "readiness", *configured], ["validate", *configured], ["version", *configured]]
    for words in [*probes, ["checks"], ["schema"], ["completions", "bash"]]:
        told = done(*words)
        assert told.returncode == 0, (words, told)
    server = start(Program, [CHECKER, "serve", *configured], environment)
    address = until(lambda: re.search(r"127\.0\.0\.1:[1-9]\d*", server.output), timeout=30, what=server.output)[0]
    assert done("http", f"http://{address}/readyz").returncode == 0


def test_a_beat_file_is_its_owners_alone_whatever_the_umask(start, tmp_path):
    file = tmp_path / "beat"
    start(Program, [HEARTBEAT, "run", "--file", file, "--", "sleep", "600"], umask=0)
    until(file.exists, timeout=30)
    assert file.stat().st_mode & 0o7777 == 0o600
    assert verdict(file).name == "alive"


def test_a_file_that_others_may_write_is_not_believed_and_the_reason_says_what_mends_it(start, tmp_path):
    file = tmp_path / "beat"
    file.touch(0o644)
    for mode in (0o664, 0o646, 0o666):
        file.chmod(mode)
        told = verdict(file, "--max-age", "1h")
        assert (told.name, told.code) == ("unsafe", 1)
        assert f"(mode {mode:04o}; umask 022, or chmod go-w, mends it)" in told.answer["reason"]
    # As the reason says.
    file.chmod(file.stat().st_mode & ~0o022)
    assert verdict(file, "--max-age", "1h").passes
