"""A thousand who ask at once about a database that is frozen: one run of each check answers them all."""

import asyncio
import os
import signal
import time
from pathlib import Path

import crowd
import harness

ASKERS = 1_000
TIMEOUT = CACHE = 2.0


def with_descendants(pid):
    """The process and all that it has started: PostgreSQL's processes have sessions of their own."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(entry.parent.name)] = int(entry.read_text().rpartition(") ")[2].split()[1])
        except OSError:
            # It has ended just now.
            continue
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def test_a_thousand_ask_about_a_frozen_database(serve, start, tmp_path):
    postgres = start(harness.Postgres, "log_statement=all", "log_connections=on", "log_line_prefix=%a:")
    harness.until(postgres.answers, timeout=60, what="PostgreSQL answers")
    crowd.allow_descriptors(ASKERS + 200)
    runs, hangs = tmp_path / "runs", tmp_path / "hangs"
    server = serve(f"""
        [server]
        cache = '{CACHE:.0f}s'
        detail = 'safe'
        [subsets]
        readiness = ['database', 'counted']
        [checks.database]
        type = 'database'
        url = '{postgres.url}'
        timeout = '{TIMEOUT:.0f}s'
        [checks.counted]
        type = 'command'
        command = ['sh', '-c', 'echo run >>{runs}; while test -e {hangs}; do sleep 0.1; done']
        timeout = '{TIMEOUT:.0f}s'
    """)
    assert asyncio.run(crowd.ask(server, "/readyz"))[0] == 200, server.output
    # What PostgreSQL logs may come a moment after its answer.
    asked_before = harness.until(lambda: questions(postgres), what="PostgreSQL tells of the first question")
    frozen = with_descendants(postgres.pid)
    hangs.touch()
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    try:
        # What was answered well before is too old from then on.
        time.sleep(CACHE)
        with crowd.Healthz(server, "a thousand who wait"):
            told = asyncio.run(all_at_once(server))
        held = crowd.memory(server)
        connections = connections_to(postgres.port)
    finally:
        hangs.unlink()
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)
    assert held < 128
    assert connections <= 1

    # There is a place to wait for each of them.
    waited = [took for took, (status, _, text) in told if status == 503 and '"timed out"' in text]
    print(f"{len(waited)} answers after {min(waited):.2f} to {max(waited):.2f} s")
    assert len(waited) == ASKERS
    assert max(waited) < TIMEOUT + 2 * crowd.Healthz.SOON

    # All that the thousand have sent is with the server by now, and is answered first.
    begun = time.monotonic()
    harness.until(lambda: questions(postgres) > asked_before, what="PostgreSQL is asked what it was asked while it was frozen")
    harness.until(lambda: asyncio.run(crowd.ask(server, "/readyz"))[0] == 200, timeout=30, what="it passes again")
    took = time.monotonic() - begun
    print(f"it passed again after {took:.2f} s")
    assert took < CACHE + 2 * crowd.Healthz.SOON
    # One run before, one while it was frozen, and one afterwards.
    harness.until(lambda: questions(postgres) - asked_before >= 2, what="PostgreSQL tells of the last question")
    assert (questions(postgres) - asked_before, runs.read_text().count("run")) == (2, 3), postgres.output


async def all_at_once(server):
    async def one():
        begun = time.monotonic()
        answer = await crowd.ask(server, "/readyz")
        return time.monotonic() - begun, answer

    return await asyncio.gather(*(one() for _ in range(ASKERS)))


def questions(postgres):
    """How often the check has asked, by the server's own log."""
    return sum(line.startswith("checker:") and "SELECT 1" in line for line in postgres.output.splitlines())


def connections_to(port):
    """How many clients' connections to this port there are."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    established = "01"
    return sum(row[2].endswith(f":{port:04X}") and row[3] == established for row in rows)
