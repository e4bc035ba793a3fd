"""What this project promises to cost, measured beside what it is compared with: one run, one table, told as Markdown.

    bench.py [--rounds N] [probe] [worker] [fleet] [server] [checks]

Peers take turns with ours within one run, because figures of two moments cannot be compared; the ratios are what matters. A target that is missed
is shown as missed, and fails nothing: a machine that is busy would fail it too. `tests/run bench` builds what is measured, and runs this.
"""

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import harness

HERE = Path(__file__).parent
MUSL = "x86_64-unknown-linux-musl"
MEMORY = Path("/dev/shm")


class Table:
    def __init__(self):
        self.rows = []

    def row(self, what, result, target="", kept=None):
        self.rows.append((what, result, target, {None: "", True: "met", False: "**missed**"}[kept]))
        print(f"  {what:58} {result:44} {target} {self.rows[-1][3]}", file=sys.stderr, flush=True)

    def show(self):
        print("| what | measured | target | |\n|---|---|---|---|")
        for row in self.rows:
            print("| " + " | ".join(row) + " |")


def run(*command, **more):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, **more)
    assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
    return done.stdout


def quarters(times):
    low, middle, high = statistics.quantiles(times, n=4)
    return f"{middle:.3g} ({low:.3g} to {high:.3g})"


# --- the exec probe ------------------------------------------------------------------------------------------------------


def probe(table, folder, rounds):
    build = lambda name, *words: (run(*words, "-o", folder / name), folder / name)[1]  # noqa: E731
    stat = HERE / "stat.c"
    spawn = build("spawn", "musl-gcc", "-O2", "-static", HERE / "spawn.c")
    rust = ("rustc", "-O", "--edition", "2024", HERE / "stat.rs")
    programs = {
        "C, one `stat`, static, musl": build("c-musl", "musl-gcc", "-O2", "-static", stat),
        "C, static, glibc": build("c-static", "cc", "-O2", "-static", stat),
        "C, dynamic, glibc": build("c-dynamic", "cc", "-O2", stat),
        "bare Rust, static, musl": build("rust-musl", *rust, "--target", MUSL, "-C", "relocation-model=static"),
        "bare Rust, dynamic, glibc": build("rust-dynamic", *rust),
    }
    file = folder / "beat"
    worker = harness.DemoWorker(file).beating()
    try:
        commands = {name: f"{program} {file}" for name, program in programs.items()}
        commands["`find -mmin`"] = f"{shutil.which('find')} {file} -mmin -1"
        local, full = harness.environment().get("BENCH_LOCAL"), harness.environment().get("BENCH_FULL")
        ours = {"`checker worker`, the local probe alone": (local, 1.5), "`checker worker`, every feature": (full, 2.0)}
        ours = {name: of for name, of in ours.items() if of[0]}
        commands |= {name: f"{program} worker --file {file}" for name, (program, _) in ours.items()}
        times, memory = spawned(spawn, commands, rounds)
        bare = statistics.median(times["C, one `stat`, static, musl"])
        for name in commands:
            ratio = statistics.median(times[name]) / bare
            result = f"{quarters(times[name])} ms, {ratio:.2f} × C, {memory[name]} KiB"
            if name in ours:
                most = ours[name][1]
                table.row(name, result, f"at most {most} × C, 2,048 KiB", ratio <= most and memory[name] <= 2_048)
            else:
                table.row(name, result)
        others = slow_peers(folder, file)
        for name, command, env in others:
            took = [timed(command, env) for _ in range(7)]
            table.row(name, f"{quarters(took)} ms, {statistics.median(took) / bare:,.0f} × C")
            if ours and "FOJ" in name:
                mine = statistics.median(times[list(ours)[-1]])
                ratio = statistics.median(took) / mine
                table.row(f"{list(ours)[-1]} beside it", f"{ratio:,.0f} times as fast", "at least 2,000 times", ratio >= 2_000)
    finally:
        worker.end()
        for name in others_started:
            name.end()


def spawned(spawn, commands, rounds):
    out = run(spawn, rounds, *commands.values(), env=harness.environment())
    names, times, memory = list(commands), {name: [] for name in commands}, dict.fromkeys(commands, 0)
    for line in out.splitlines():
        number, took, kib = map(int, line.split())
        times[names[number]].append(took / 1e6)
        memory[names[number]] = max(memory[names[number]], kib)
    return times, memory


others_started = []


def slow_peers(folder, file):
    """What others run as a probe of a Celery worker: the health check of django-health-check-full-of-juice, and Celery's own ping."""
    site = folder / "site"
    site.mkdir()
    (site / "settings.py").write_text(
        "SECRET_KEY = 'no secret: a measure'\nINSTALLED_APPS = ['health_check']\nALLOWED_HOSTS = ['*']\n"
        "DATABASES = {}\nHEALTH_CHECK = {'SUBSETS': {'liveness': []}}\n"
    )
    env = harness.environment(DJANGO_SETTINGS_MODULE="settings", PYTHONPATH=site)
    yield (
        "FOJ's `manage.py health_check -s liveness`",
        [sys.executable, "-m", "django", "health_check", "-s", "liveness", "--skip-checks"],
        env,
    )
    redis = harness.start_redis(folder)
    others_started.append(redis)
    (site / "app.py").write_text(f"from celery import Celery\napp = Celery('bench', broker={redis.url!r})\n")
    env = harness.environment(PYTHONPATH=site)
    celery = [sys.executable, "-m", "celery", "-A", "app"]
    worker = harness.Program([*celery, "worker", "--pool", "solo", "-n", "bench@here", "-l", "INFO"], env=env)
    others_started.insert(0, worker)
    harness.until(lambda: "ready" in worker.output, timeout=60, what="the Celery worker is ready")
    yield "`celery inspect ping -d`", [*celery, "inspect", "ping", "-d", "bench@here"], env


def timed(command, env):
    begun = time.perf_counter()
    run(*command, env=env)
    return (time.perf_counter() - begun) * 1_000


# --- in the worker -------------------------------------------------------------------------------------------------------


def worker(table, folder, _rounds):
    release = harness.TARGET / "release"
    program = folder / "worker"
    run("rustc", "-O", "--edition", "2024", HERE / "worker.rs", "--crate-name", "worker", "-o", program,
        "--extern", f"heartbeat={release}/libheartbeat.rlib", "-L", f"dependency={release}/deps")  # fmt: skip
    memory = Path(tempfile.mkdtemp(prefix="heartbeat-bench-", dir=MEMORY))
    disk = folder / "disk"
    disk.mkdir()
    try:
        told = run(program, memory, disk, env=harness.environment()).splitlines()
    finally:
        shutil.rmtree(memory)
    value = {name: float(number) for name, number, *_ in map(str.split, told) if name != "beat"}
    table.row("a clock read and an atomic store", f"{value['bare']:.1f} ns")
    ratio = value["pulse"] / value["bare"]
    table.row("`pulse()`", f"{value['pulse']:.1f} ns, {ratio:.2f} ×", "at most 1.2 ×", ratio <= 1.2)
    table.row("a task's start and end", f"{value['task']:.1f} ns", "below 100 ns", value["task"] < 100)
    scale = value["tasks-2"] / value["tasks-1"]
    table.row("tasks of two threads, beside one's", f"{scale:.2f} times as many a second", "scaling", scale > 1.5)
    for line in told:
        if line.startswith("beat"):
            number, where = float(line.split()[1]), "memory" if str(MEMORY) in line else filesystem(disk)
            table.row(f"a beat's processor time, on {where}", f"{number:.1f} µs", "at most 20 µs", number <= 20)
    table.row("an idle worker's heartbeat, every second", f"{value['idle']:.4f} % of a core", "below 0.005 %", value["idle"] < 0.005)


def filesystem(folder):
    return run("findmnt", "-no", "FSTYPE", "-T", folder).strip()


# --- the fleet -----------------------------------------------------------------------------------------------------------


def fleet(table, folder, _rounds):
    """What `tests/run scale` does not measure: that one has verdicts beside a PING, beats a second, and memory, for up to 1,000,000 workers."""
    redis = harness.start_redis(folder)
    try:
        many = 10_000
        beats = folder / "beats"
        beats.mkdir()
        example = folder / "one"
        one = harness.DemoWorker(example).beating()
        line = harness.record(example)
        one.end()
        line |= {"interval_ms": 1_000, "promise_ms": 60_000, "pid_ns": 1}
        stop = threading.Event()

        def write(number):
            line["id"], line["worker"] = f"{number:032x}", f"worker-{number}"
            line["seq"] = line.get("seq", 0) + 1
            line["at_mono_ms"] = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000_000
            draft = beats / f".draft-{number}"
            draft.write_text(json.dumps(line) + "\n")
            draft.chmod(0o600)
            draft.rename(beats / f"beat-{number}")

        for number in range(many):
            write(number)
        agent = harness.Program([harness.environment()["BENCH_HEARTBEAT"], "agent", "--dir", beats, "--redis", redis.url, "--interval", "1s"])
        try:
            time.sleep(5)
            begun, used = time.monotonic(), seconds(agent.pid)
            time.sleep(20)
            share = (seconds(agent.pid) - used) / (time.monotonic() - begun) * 100
        finally:
            stop.set()
            agent.end()
        table.row(f"an agent's look at {many:,} files that stand still, every second", f"{share:.1f} % of a core", "below 2 %", share < 2)
    finally:
        redis.end()


def seconds(pid):
    """Processor time of a program and its threads."""
    return sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir()) / 1e9


# --- the server ----------------------------------------------------------------------------------------------------------


def server(table, folder, _rounds):
    ours, theirs = harness.free_port(), harness.free_port()
    (folder / "checker.toml").write_text(
        f'[server]\nlisten = "127.0.0.1:{ours}"\ncache = "1s"\n[subsets]\nreadiness = ["port"]\n'
        f'[checks.port]\ntype = "tcp"\naddress = "127.0.0.1:{theirs}"\n'
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; worker_processes auto; pid {folder}/nginx.pid; error_log stderr; events {{ worker_connections 1024; }}\n"
        f"http {{ access_log off; keepalive_requests 1000000; client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};"
        f" uwsgi_temp_path {folder}; scgi_temp_path {folder}; server {{ listen 127.0.0.1:{theirs}; location / {{ return 200 'ok'; }} }} }}\n"
    )
    nginx = harness.Program(["/usr/sbin/nginx", "-c", folder / "nginx.conf", "-p", folder])
    checker = harness.Program([harness.environment()["BENCH_FULL"], "serve", "--config", folder / "checker.toml"])
    try:
        for port in (ours, theirs):
            harness.until(lambda port=port: listens(port), what=f"port {port} answers")
        paths = {"nginx": f"http://127.0.0.1:{theirs}/", "/healthz": f"http://127.0.0.1:{ours}/healthz", "/readyz": f"http://127.0.0.1:{ours}/readyz"}
        for way, header in (("kept", []), ("new", ["-H", "Connection: close"])):
            many, slow = {name: [] for name in paths}, {name: [] for name in paths}
            for _ in range(5):
                for name, url in paths.items():
                    a_second, p99 = load(url, header)
                    many[name].append(a_second)
                    slow[name].append(p99)
            middle = {name: statistics.median(of) for name, of in many.items()}
            late = {name: statistics.median(of) for name, of in slow.items()}
            told = {name: f"{middle[name]:,.0f} a second, p99 {late[name]:.2f} ms" for name in paths}
            table.row(f"nginx's `return 200`, {way} connections", told["nginx"])
            table.row(f"`/healthz`, {way} connections", told["/healthz"], "at least nginx's", middle["/healthz"] >= middle["nginx"])
            table.row(f"cached `/readyz`, {way} connections", told["/readyz"], "within 20 % of `/healthz`", middle["/readyz"] >= 0.8 * middle["/healthz"])
        status = Path(f"/proc/{checker.pid}/status").read_text()
        mebibytes = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1_024
        table.row("resident memory of `checker serve` at the most", f"{mebibytes:.1f} MiB", "below 20 MiB", mebibytes < 20)
    finally:
        checker.end()
        nginx.end()


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def load(url, header):
    """Requests a second, and the 99th percentile in ms, of wrk with 32 connections for 2 s."""
    told = run("wrk", "-t1", "-c32", "-d2s", "--latency", *header, url)
    assert "Non-2xx" not in told, told
    value = lambda word: next(line.split()[1] for line in told.splitlines() if line.split()[:1] == [word])  # noqa: E731
    late = value("99%")
    unit = 0.001 if late.endswith("us") else 1 if late.endswith("ms") else 1_000
    return float(value("Requests/sec:")), float(late.rstrip("mus")) * unit


# --- checks --------------------------------------------------------------------------------------------------------------


def checks(table, folder, _rounds):
    checker = harness.environment()["BENCH_FULL"]
    slow = "".join(f'[checks.c{n}]\ntype = "command"\ncommand = ["sleep", "{0.3 if n == 7 else 0.1}"]\n' for n in range(20))
    names = ", ".join(f'"c{n}"' for n in range(20))
    (folder / "twenty.toml").write_text(f"[subsets]\nall = [{names}]\none = [\"c7\"]\n{slow}")
    twenty, one = [], []
    for _ in range(9):
        for subset, times in (("all", twenty), ("one", one)):
            times.append(timed([checker, "run", subset, "--config", folder / "twenty.toml"], harness.environment()))
    more = statistics.median(twenty) - statistics.median(one)
    table.row("20 checks, beside the slowest one alone", f"{more:.1f} ms more", "at most 5 ms", more <= 5)
    postgres = harness.Postgres()
    try:
        harness.until(postgres.answers, timeout=60, what="PostgreSQL answers")
        (folder / "database.toml").write_text(f'[subsets]\nall = ["database"]\n[checks.database]\ntype = "database"\nurl = "{postgres.url}"\n')
        ours, theirs = [], []
        for _ in range(30):
            theirs.append(timed(["psql", postgres.url.replace("postgres://", "postgresql://"), "-c", "select 1"], harness.environment()))
            ours.append(timed([checker, "run", "all", "--config", folder / "database.toml"], harness.environment()))
        ratio = statistics.median(ours) / statistics.median(theirs)
        table.row("`psql -c 'select 1'`", f"{quarters(theirs)} ms")
        table.row("`checker run` of one PostgreSQL check", f"{quarters(ours)} ms, {ratio:.2f} ×", "at most 1.5 ×", ratio <= 1.5)
    finally:
        postgres.end()


def machine():
    names = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    load = os.getloadavg()[0]
    return f"{len(names)} cores, {names[0]}, Linux {os.uname().release}; load {load:.1f} at the end"


def main():
    parts = {part.__name__: part for part in (probe, worker, fleet, server, checks)}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1_000)
    parser.add_argument("parts", nargs="*", choices=[[], *parts], metavar="part")
    asked = parser.parse_args()
    table = Table()
    for name in asked.parts or parts:
        with tempfile.TemporaryDirectory(prefix="heartbeat-bench-") as folder:
            Path(folder).chmod(0o755)
            parts[name](table, Path(folder), asked.rounds)
    table.show()
    print(f"\nMeasured on {machine()}.")


main()
