"""Workers on hosts with other clocks than the checker's and Redis' own, and a network that breaks between them.

Real network namespaces: needs root, else it is shown as skipped.
"""

import json
import os
import signal
import time
from pathlib import Path

import pytest

import harness
from network import Agent, FileWorker, Network, Worker

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root for network namespaces")

INTERVAL = 0.5
PROMISE = 3.0
CLOCKS = {"ahead": "+1h", "behind": "-1h", "far": "+3d"}


@pytest.fixture
def network(tmp_path):
    network = Network(tmp_path, CLOCKS)
    yield network
    network.end()


@pytest.fixture
def workers(network, tmp_path, start):
    """Two on each of the two hosts that are an hour off, and two on the third, of which an agent tells."""
    places = [("a1", "ahead", "mail"), ("a2", "ahead", "pdf"), ("b1", "behind", "mail"), ("b2", "behind", "pdf")]
    workers = {name: start(Worker, network.hosts[host], name, tmp_path, queue) for name, host, queue in places}
    folder = tmp_path / "far"
    folder.mkdir()
    for name in ("f1", "f2"):
        workers[name] = start(FileWorker, network.hosts["far"], name, folder, "mail")
    start(Agent, network.hosts["far"], folder)
    harness.until(lambda: len(network.beats()) == 6, what="all beat")
    return workers


def cluster(host, *arguments):
    done = host.ask("cluster", "c", "--redis", host.url, "--format", "json", "--list", *arguments)
    return done.returncode, json.loads(done.stdout)


def verdicts(answer):
    return {worker["worker"]: worker["verdict"] for worker in answer["workers"]}


def test_no_verdict_changes_with_the_clocks_of_the_hosts(network, workers, start):
    clocks = {name: host.unix_ms() - network.redis.unix_ms() for name, host in network.hosts.items()}
    assert {name: round(ms / 3_600_000) for name, ms in clocks.items()} == {"ahead": 1, "behind": -1, "far": 72}
    written = {name: harness.record(worker.file)["at_unix_ms"] for name, worker in workers.items()}
    assert written["a1"] - written["b1"] > 7_000_000, "the workers do live by those clocks"
    assert written["f1"] - written["a1"] > 200_000_000, "those whose agent tells of them, too"

    far = network.hosts["far"]
    table = start(harness.Program, far.command(harness.CHECKER, "watch", "--cluster", "c", "--redis", far.url))
    harness.until(lambda: table.output.count("alive") >= 6, what="a line for each in the table")
    for host in network.hosts.values():
        code, answer = cluster(host, "--min", "6", "--queue", "mail:4", "--expect", "b1", "--expect", "f1", "--max-lost", "0")
        assert (code, answer["fresh"], answer["ready"], answer["lost"]) == (0, 6, 6, []), answer
        assert verdicts(answer) == dict.fromkeys(workers, "alive")
        assert all(0 <= worker["age_ms"] <= PROMISE * 1000 for worker in answer["workers"]), answer
        code, answer = cluster(host, "--min", "2", "--host", "ahead")
        assert (code, answer["fresh"]) == (0, 2), answer
    for name, host in (("a1", "ahead"), ("b1", "behind"), ("a1", "far"), ("b1", "far"), ("f1", "far"), ("f1", "behind")):
        done = network.hosts[host].ask("worker", "--file", workers[name].file, "--for", "ready", "--format", "json")
        assert (done.returncode, json.loads(done.stdout)["verdict"]) == (0, "alive"), done.stdout

    workers["b2"].signal(signal.SIGKILL)
    killed = time.monotonic()
    harness.until(lambda: cluster(far, "--max-lost", "0")[0] == 1, what="its loss is told")
    since = time.monotonic() - killed
    assert PROMISE - INTERVAL - 0.2 <= since <= PROMISE + 2, since
    for host in network.hosts.values():
        code, answer = cluster(host, "--min", "5", "--max-lost", "0")
        assert (code, answer["fresh"]) == (1, 5), answer
        assert [lost["worker"] for lost in answer["lost"]] == ["b2"], answer
        most = (time.monotonic() - killed + INTERVAL + 1) * 1000
        assert PROMISE * 1000 <= answer["lost"][0]["silent_ms"] <= most, answer
        assert verdicts(answer) | {"b2": "-"} == dict.fromkeys(workers, "alive") | {"b2": "-"}, answer
    harness.until(lambda: any("b2" in line and "silent" in line for line in table.lines), what="the table tells it too")
    quiet = [line for line in table.lines if "silent" in line and "b2" not in line]
    assert not quiet, "and of nobody else"

    # An agent sees the end itself, and waits for no promise.
    workers["f2"].signal(signal.SIGKILL)
    killed = time.monotonic()
    lost = lambda: {each["worker"]: each["silent_ms"] for each in cluster(network.hosts["ahead"])[1]["lost"]}
    harness.until(lambda: "f2" in lost(), what="its loss is told")
    assert time.monotonic() - killed <= 2 * INTERVAL + 1
    assert lost()["f2"] <= (time.monotonic() - killed + INTERVAL + 0.5) * 1000, lost()


def test_a_clock_that_is_stepped_under_a_worker_and_its_checker_changes_nothing(network, tmp_path, start):
    clock = tmp_path / "clock"
    clock.write_text("+0\n")
    host = network.hosts["ahead"]
    host.clock = Path(clock)
    worker = start(Worker, host, "w", tmp_path)
    harness.until(lambda: "w" in names(network), what="it beats")
    beats = []
    for step, hours in (("+3600", 1), ("-3600", -1), ("+864000", 240), ("+0", 0)):
        # Renamed, so that nobody reads half of it.
        (tmp_path / "next").write_text(step + "\n")
        (tmp_path / "next").rename(clock)
        moved = lambda hours=hours: abs(harness.record(worker.file)["at_unix_ms"] / 1000 - time.time() - hours * 3600) < 60
        harness.until(moved, what=f"the worker's clock is {hours} h off")
        for _ in range(4):
            beats.append(harness.record(worker.file)["at_mono_ms"])
            for asked in ("live", "ready"):
                done = host.ask("worker", "--file", worker.file, "--for", asked, "--format", "json")
                answer = json.loads(done.stdout)
                assert (done.returncode, answer["verdict"]) == (0, "alive"), answer
                assert answer["age_ms"] <= 2 * INTERVAL * 1000 + 500, answer
            code, answer = cluster(host, "--max-lost", "0")
            assert (code, verdicts(answer)) == (0, {"w": "alive"}), answer
    assert beats == sorted(beats)


def names(network):
    return network.client.hvals("heartbeat:{c}:names")[0].split("\n") if network.client.exists("heartbeat:{c}:names") else []


@pytest.mark.parametrize(("begin", "end"), [(Network.pull, Network.plug), (Network.swallow, Network.pass_on)])
def test_a_network_that_breaks_is_noticed_within_the_promise_and_its_return_within_two_intervals(network, tmp_path, start, begin, end):
    interval, promise = 1.0, 9.0
    places = {"a1": "ahead", "a2": "ahead", "a3": "ahead", "a4": "ahead", "b1": "behind"}
    settings = {"interval": "1s", "promise": "9s"}
    workers = {name: start(Worker, network.hosts[host], name, tmp_path, **settings) for name, host in places.items()}
    # Beside them, two of which an agent tells.
    folder = tmp_path / "files"
    folder.mkdir()
    for name in ("f1", "f2"):
        workers[name] = start(FileWorker, network.hosts["ahead"], name, folder, **settings)
    agent = start(Agent, network.hosts["ahead"], folder, interval="1s")
    harness.until(lambda: len(network.beats()) == len(workers), what="all beat")
    cut, whole, far = workers["a1"], workers["b1"], network.hosts["far"]
    beats = []

    def looked(worker, *arguments):
        record = harness.record(cut.file)
        if not beats or record["seq"] != beats[-1][0]:
            beats.append((record["seq"], record["at_mono_ms"]))
        return harness.verdict(worker.file, *arguments)

    assert harness.record(cut.file)["stat"]["failures"] == 0
    begun = time.monotonic()
    begin(network, "ahead")
    harness.until(lambda: looked(cut) and harness.record(cut.file)["stat"]["failures"], promise, "the dead connection is noticed")
    harness.until(lambda: looked(cut).name == "cut off", promise + 5, "it is cut off")
    assert promise - interval <= time.monotonic() - begun <= promise + 2 * interval + 0.5
    harness.until(lambda: len(cluster(far, "--max-lost", "0")[1]["lost"]) == 6, what="those there are lost to the others")
    while time.monotonic() < begun + 16:
        answer = looked(cut)
        assert (answer.name, answer.passes) == ("cut off", True)
        assert not looked(cut, "--for", "ready").passes
        assert looked(whole, "--for", "ready").name == "alive"
        assert looked(workers["f1"], "--for", "ready").name == "alive", "it knows of no Redis"
        time.sleep(0.1)
    gaps = [later[1] - earlier[1] for earlier, later in zip(beats, beats[1:], strict=False) if later[0] == earlier[0] + 1]
    assert max(gaps) <= 2_000 * interval, "the file's beats stay on time"

    end(network, "ahead")
    ended, back = time.time(), {}

    def all_back():
        for worker, lost_at in network.beats().items():
            if (beaten := lost_at / 1000 - promise) >= ended:
                back.setdefault(worker, round(beaten - ended, 2))
        return len(back) == len(workers)

    harness.until(all_back, what="all are back")
    assert max(back.values()) <= 2 * interval, back
    harness.until(lambda: harness.verdict(cut.file, "--for", "ready").passes, what="its file says so")
    harness.until(lambda: verdicts(cluster(far, "--max-lost", "0")[1]) == dict.fromkeys(workers, "alive"), what="all are well")
    told = [("cannot publish to Redis" in line, "is reached again" in line) for line in agent.lines]
    assert told == [(True, False), (False, True)], agent.output


def test_a_network_that_loses_three_in_ten_loses_no_worker(network, tmp_path, start):
    host = network.hosts["ahead"]
    workers = [start(Worker, host, f"w{n}", tmp_path, promise="10s") for n in range(4)]
    harness.until(lambda: len(network.beats()) == 4, what="all beat")
    network.lose(30)
    end = time.monotonic() + 15
    beats = {worker.name: set() for worker in workers}
    while time.monotonic() < end:
        for worker in workers:
            assert harness.verdict(worker.file, "--for", "ready").name == "alive"
            beats[worker.name].add(harness.record(worker.file)["stat"]["ok_mono_ms"])
        # Within its own network, so that nothing is lost on the way.
        assert network.client.zcount("heartbeat:{c}:workers", time.time() * 1000, "+inf") == 4
        time.sleep(0.2)
    assert all(len(seen) >= 4 for seen in beats.values()), beats
