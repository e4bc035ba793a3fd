"""All outages side by side, once for all tests, and the table of what was seen."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from breaks import FOR_AN_AGENT, OUTAGES
from scene import INTERVAL, AgentGroup, Group

GROUPS = pytest.StashKey()


def pytest_addoption(parser):
    parser.addoption("--seconds", type=float, default=120, help="how long the outages last (at least 20; default 120)")


@pytest.fixture(scope="session")
def groups(request, tmp_path_factory):
    """Every outage by its name, when all is over."""
    seconds = request.config.getoption("--seconds")
    # Three quarters of an outage are longer than the promise.
    promise = min(30.0, seconds / 4)
    folder = tmp_path_factory.mktemp("outages")
    kinds = [(Group, OUTAGES), (AgentGroup, FOR_AN_AGENT)]
    groups = [kind(outage(), folder, seconds, promise) for kind, outages in kinds for outage in outages]
    try:
        for group in groups:
            group.start()
        for group in groups:
            group.wait_published()
        over = threading.Event()
        watch = threading.Thread(target=look_at_beats, args=(groups, over), daemon=True)
        watch.start()
        with ThreadPoolExecutor(len(groups)) as pool:
            for done in [pool.submit(group.run) for group in groups]:
                done.result()
        over.set()
        watch.join()
        for group in groups:
            group.stop()
        request.config.stash[GROUPS] = groups
        yield {group.name: group for group in groups}
    finally:
        for group in groups:
            group.end()


def look_at_beats(groups, over):
    while not over.is_set():
        for group in groups:
            group.look_at_beats()
        time.sleep(INTERVAL / 5)


def pytest_terminal_summary(terminalreporter, config):
    groups = config.stash.get(GROUPS, [])
    if not groups:
        return
    terminalreporter.section(f"Redis out of order for {groups[0].seconds:.0f} s, promise {groups[0].promise:.0f} s")
    widths = (26, 10, 26, 26, 28, 8, 8, 16)
    heads = ("outage", "beat gap", "live", "ready", "cluster", "back", "tries", "tasks: n, p99, max")
    rows = [heads, *(row(group) for group in groups)]
    for cells in rows:
        terminalreporter.write_line("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())


def row(group):
    delays = group.delays()
    slowest = group.slowest_return()
    tries = max(counters["redis_failures"] for counters in group.counters)
    return (
        group.name,
        f"{group.longest_gap():.2f} s",
        counted(group.live, "verdict"),
        counted(group.ready, "verdict"),
        counted(group.cluster, "status"),
        f"{slowest:.2f} s" if slowest is not None else "-",
        str(tries),
        f"{group.median_of_tasks():.0f}, {delays[len(delays) * 99 // 100]:.1f} ms, {delays[-1]:.1f} ms",
    )


def counted(answers, key):
    words = [answer.said.get(key) or answer.said["status"] for answer in answers]
    return ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words))
