"""`/metrics`, read as Prometheus reads it: asked with its own headers, and parsed by its own client library."""

import time
import urllib.request
from pathlib import Path

import pytest
import redis
from prometheus_client import parser
from prometheus_client.openmetrics import parser as openmetrics_parser

import harness

# What Prometheus 2.55, 3.1, and 3.1 with native histograms ask with.
ACCEPT = [
    "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,"
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
]
CLASSIC = "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"

CONFIGURATION = """
[server]
detail = "safe"
durations = true
cache = "0s"
[subsets]
readiness = ["good"]
all = ["good", "bad"]
[checks.good]
type = "command"
command = ["true"]
[checks.bad]
type = "command"
command = ["false"]
"""


def ask(server, path, accept="*/*"):
    question = urllib.request.Request(server.url + path, headers={"Accept": accept})
    with urllib.request.urlopen(question, timeout=20) as answer:
        assert answer.status == 200
        return answer.headers["Content-Type"], answer.read().decode()


def probe(server, path):
    """What anybody's probe does, whatever comes of it."""
    try:
        return urllib.request.urlopen(server.url + path, timeout=20).status
    except urllib.error.HTTPError as error:
        return error.code


def scrape(server, path="/metrics", accept=ACCEPT[0]):
    """Every sample by its name and labels, none of them twice; all is of a family that is told once, with its type."""
    kind, text = ask(server, path, accept)
    if kind.startswith("application/openmetrics-text"):
        assert kind == "application/openmetrics-text; version=1.0.0; charset=utf-8"
        families = list(openmetrics_parser.text_string_to_metric_families(text))
    else:
        assert kind == "text/plain; version=0.0.4; charset=utf-8"
        families = list(parser.text_string_to_metric_families(text))
    assert len({family.name for family in families}) == len(families)
    samples = {}
    for family in families:
        assert family.documentation and family.type == "gauge", family
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in samples, key
            samples[key] = sample.value
    return samples


def one(samples, name, **labels):
    return samples[name, tuple(sorted(labels.items()))]


def of(samples, name):
    return [dict(labels) | {"": value} for (own, labels), value in samples.items() if own == name]


@pytest.mark.parametrize("accept", [*ACCEPT, CLASSIC])
@pytest.mark.parametrize("path", ["/metrics", "/healthcheck/all"])
def test_prometheus_reads_what_it_asks_for(serve, path, accept):
    if (path, accept) == ("/healthcheck/all", CLASSIC):
        path = "/metrics?format=text"
    server = serve(CONFIGURATION)
    assert probe(server, "/healthcheck/all") == 503
    samples = scrape(server, path, accept)
    subset = {"subset": "all"} if path == "/healthcheck/all" else {}
    for check, status in [("good", "ok"), ("bad", "fail")]:
        for word in ["ok", "warning", "fail", "unknown"]:
            assert one(samples, "checker_check_status", check=check, status=word, **subset) == (word == status)
        assert one(samples, "checker_check_duration_seconds", check=check, **subset) > 0
    assert one(samples, "checker_subset_up", subset="all") == 0
    if not subset:
        assert one(samples, "checker_subset_up", subset="readiness") == 1
        assert one(samples, "checker_checks", status="fail") == 1
        assert 0 <= one(samples, "checker_check_age_seconds", check="good") < 60


def test_without_details_no_name_is_told(serve):
    server = serve(CONFIGURATION.replace('"safe"', '"none"'))
    probe(server, "/healthcheck/all")
    samples = scrape(server)
    assert {name for name, _ in samples} == {"checker_checks", "checker_subset_up"}
    assert of(samples, "checker_subset_up") == [{"subset": "readiness", "": 1}]


def test_a_pass_that_nobody_asks_for_any_more_is_not_told_for_ever(serve):
    """Ten minutes, on a clock that goes 150 times as fast."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    fast = harness.environment(LD_PRELOAD=library, FAKETIME="+0 x150")
    server = serve(
        CONFIGURATION.replace('cache = "0s"', 'timeout = "10m"').replace('["true"]', '["true"]\ntimeout = "10m"'), env=fast
    )
    stands = lambda status: one(scrape(server), "checker_check_status", check="good", status=status) == 1
    # Four seconds may pass between the two where others have the machine.
    asked = lambda: probe(server, "/readyz") == 200 and stands("ok")
    harness.until(asked, what="it passes")
    harness.until(lambda: stands("unknown"), what="the pass is too old")
    samples = scrape(server)
    assert one(samples, "checker_subset_up", subset="readiness") == 0
    assert one(samples, "checker_check_age_seconds", check="good") > 600
    _, page = ask(server, "/?format=html")
    assert "not asked lately" in page and "before: ok" in page
    # Who asks is told what is.
    harness.until(asked, what="it passes again")


def fleet(broker, tmp_path, cluster):
    """What the checks of a cluster and of one of its workers are configured with."""
    return f"""
[server]
detail = "full"
[subsets]
readiness = ["fleet", "alone"]
[checks.fleet]
type = "cluster"
cluster = '{cluster}'
redis = "{broker.url}"
queues = {{ mail = 1, images = 1 }}
[checks.alone]
type = "worker"
file = "{tmp_path}/web-1"
"""


def test_the_workers_are_told_by_the_names_of_the_commands(serve, start, broker, tmp_path):
    cluster, odd = "metrics", 'web-2 "a\\b" {x}'

    def worker(name, file, queue):
        command = [harness.HEARTBEAT, "run", "--redis", broker.url, "--cluster", cluster, "--worker", name, "--file", tmp_path / file]
        more = ["--queue", queue, "--interval", "200ms", "--promise", "2s", "--", "sleep", "600"]
        return start(harness.Program, [*command, *more])

    worker("web-1", "web-1", "mail")
    stopped = worker(odd, "web-2", "images")
    server = serve(fleet(broker, tmp_path, cluster))
    counts = lambda samples: {found["state"]: found[""] for found in of(samples, "heartbeat_cluster_workers")}
    samples = harness.until(lambda: (found := scrape(server)) and counts(found).get("ready") == 2 and found, what="both beat")
    assert counts(samples) == {"fresh": 2, "ready": 2, "lost": 0}
    ours = {"check": "fleet", "cluster": cluster}
    for queue in ["mail", "images"]:
        assert one(samples, "heartbeat_cluster_queue_workers", queue=queue, **ours) == 1
    verdicts = of(samples, "heartbeat_cluster_worker_verdict")
    assert {(found["worker"], found["verdict"], found[""]) for found in verdicts} == {("web-1", "alive", 1), (odd, "alive", 1)}
    ages = of(samples, "heartbeat_cluster_worker_age_seconds")
    assert len(ages) == 2 and all(found[""] < 60 and found["id"] and found["host"] for found in ages)
    alone = of(samples, "heartbeat_worker_verdict")
    assert [found["verdict"] for found in alone if found[""]] == ["alive"] and len(alone) > 10
    assert [(found["check"], found["worker"]) for found in of(samples, "heartbeat_beat_age_seconds")] == [("alone", "web-1")]
    # The same that the command tells, but for the check that asks.
    listed = [harness.CHECKER, "cluster", cluster, "--redis", broker.url, "--queue", "mail", "--list", "--format", "openmetrics"]
    told = start(harness.Program, listed)
    assert told.exit_status() == 0
    families = openmetrics_parser.text_string_to_metric_families(told.output)
    told = {sample.name: set(sample.labels) for family in families for sample in family.samples}
    for name in {name for name, _ in samples if name.startswith("heartbeat_cluster_")}:
        assert set(of(samples, name)[0]) - {"", "check"} == told[name], name
    # With less detail, no worker has a name.
    nameless = scrape(serve(fleet(broker, tmp_path, cluster).replace('"full"', '"safe"')))
    assert counts(nameless) == {"fresh": 2, "ready": 2, "lost": 0}
    assert not of(nameless, "heartbeat_cluster_worker_verdict") and not of(nameless, "heartbeat_cluster_worker_age_seconds")
    assert one(nameless, "heartbeat_worker_verdict", check="alone", verdict="alive") == 1
    assert not any(name in str(nameless) for name in ["web-1", "web-2"])
    # One that is lost is told as such.
    stopped.signal(19)
    lost = lambda samples: [found["verdict"] for found in of(samples, "heartbeat_cluster_worker_verdict") if found["worker"] == odd]
    harness.until(lambda: lost(scrape(server)) == ["silent"], what="it is silent")
    assert counts(scrape(server)) == {"fresh": 1, "ready": 1, "lost": 1}


def test_there_are_no_more_series_than_a_scrape_can_bear(serve, own_broker, tmp_path):
    server = serve(fleet(own_broker, tmp_path, "many"))
    lost_at = int(time.time() * 1000) + 600_000
    with redis.Redis.from_url(own_broker.url) as connection:
        for name in ["workers", "ready"]:
            connection.zadd("heartbeat:{many}:" + name, {f"{number:032x}": lost_at for number in range(1, 700)})
    samples = harness.until(lambda: (found := scrape(server)) and of(found, "heartbeat_cluster_worker_verdict") and found)
    assert len(of(samples, "heartbeat_cluster_worker_verdict")) == 500
    assert one(samples, "heartbeat_cluster_workers", check="fleet", cluster="many", state="ready") == 699
    # Where nobody can be asked any more, nothing is told, and the scrape goes on.
    own_broker.end()
    harness.until(lambda: not of(scrape(server), "heartbeat_cluster_workers"), what="nothing is told of them")
