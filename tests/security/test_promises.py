"""What SECURITY.md promises of both commands as the system sees them: who may read what, and how little they need."""

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

import harness
from harness import CHECKER, HEARTBEAT, REPOSITORY, Program, until, verdict

SECRET = "S3cret-that-nobody-may-see-0123456789"
PAGE = REPOSITORY / "SECURITY.md"


def test_each_test_that_the_page_names_is_there():
    named = re.findall(r"`([\w./-]+\.(?:rs|py))::(\w+)`", PAGE.read_text())
    assert len(named) > 15
    rows = [row for row in PAGE.read_text().partition("## Promises")[2].partition("\n## ")[0].splitlines() if row.startswith("| ")][2:]
    assert all("::" in row.rpartition(" | ")[2] for row in rows), "every promise has its test"
    for file, test in named:
        # A function that is marked as a test, or a trial of a test with a `main` of its own.
        rust = rf'#\[(?:tokio::)?test\b.*\]\n(?:\s*#\[.*\]\n)*\s*(?:async )?fn {test}\(|\btrial\(\s*"{test}"'
        there = rf"(?m)^def {test}\(" if file.endswith(".py") else rust
        assert re.search(there, (REPOSITORY / file).read_text()), f"{file} has no test {test}"


@pytest.fixture
def services(own_broker, start, tmp_path):
    """Each command that goes on, with secrets in its environment; by name."""
    (tmp_path / "beats").mkdir()
    (tmp_path / "checker.toml").write_text(
        f'[server]\nlisten = "127.0.0.1:0"\n[server.access]\ntoken = "${{TOKEN}}"\n'
        f'[checks.fleet]\ntype = "cluster"\ncluster = "orders"\nredis = "redis://:${{TOKEN}}@127.0.0.1:{own_broker.port}"\n'
        '[subsets]\nreadiness = ["fleet"]\n'
    )
    environment = harness.environment(TOKEN=SECRET, HEARTBEAT_REDIS_URL=f"redis://:{SECRET}@127.0.0.1:{own_broker.port}")
    words = {
        "serve": [CHECKER, "serve", "--config", tmp_path / "checker.toml"],
        "run": [HEARTBEAT, "run", "--file", tmp_path / "run", "--", "sleep", "600"],
        "agent": [HEARTBEAT, "agent", "--dir", tmp_path / "beats"],
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


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


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


def service_calls():
    """The system calls of systemd's own set for services, by systemd's own word."""
    listed = subprocess.run(["systemd-analyze", "syscall-filter"], capture_output=True, text=True, check=True, timeout=60, env=harness.environment(SYSTEMD_COLORS="0")).stdout
    sets, current = {}, None
    for line in listed.splitlines():
        if line.startswith("@"):
            current = sets.setdefault(line.strip(), [])
        elif current is not None and line.startswith("    ") and not line.strip().startswith("#"):
            current.append(line.strip())

    def members(name):
        for member in sets[name]:
            yield from members(member) if member.startswith("@") else [member]

    return set(members("@system-service"))


@SERVICES
def test_every_system_call_is_one_of_system_service(name, services, tmp_path):
    allowed = service_calls()
    assert len(allowed) > 100
    trace = tmp_path / "trace"
    program = begun(services(name, before=["strace", "--follow-forks", "--quiet=all", "--output", trace]), name, tmp_path)
    for pid in harness.session_members(program.pid):
        if Path(f"/proc/{pid}/comm").read_text().strip() in ("checker", "heartbeat"):
            os.kill(pid, signal.SIGTERM)
    program.exit_status(30)
    made = set(re.findall(r"(?m)^\d+ +(\w+)\(", trace.read_text()))
    assert "openat" in made and made - allowed == set()


def test_a_beat_file_is_its_owners_alone_whatever_the_umask(start, tmp_path):
    file = tmp_path / "beat"
    start(Program, [HEARTBEAT, "run", "--file", file, "--", "sleep", "600"], umask=0)
    until(file.exists, timeout=30)
    assert file.stat().st_mode & 0o7777 == 0o600
    assert verdict(file).name == "alive"


def test_a_file_that_others_may_write_is_not_believed(start, tmp_path):
    file = tmp_path / "beat"
    file.touch(0o644)
    for mode in (0o664, 0o646, 0o666):
        file.chmod(mode)
        told = verdict(file, "--max-age", "1h")
        assert (told.name, told.code) == ("unsafe", 1)
        assert "others than its owner may write to it" in told.answer["reason"]
    file.chmod(file.stat().st_mode & ~0o022)
    assert verdict(file, "--max-age", "1h").passes
