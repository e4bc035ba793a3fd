"""deploy/prometheus and deploy/grafana, read by Prometheus' own tools, and by a real Prometheus beside real workers."""

import json
import re
import signal
import subprocess

import pytest
import yaml

import harness
from running import DEPLOY, Prometheus, Serve, ask, copied, program

RULES = yaml.safe_load((DEPLOY / "prometheus/rules.yml").read_text())
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule]
RECORDS = {rule["record"] for group in RULES["groups"] for rule in group["rules"] if "record" in rule}
DASHBOARD = json.loads((DEPLOY / "grafana/heartbeat.json").read_text())


def promtool(*arguments):
    done = subprocess.run([program("promtool"), *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{arguments}:\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def test_promtool_takes_the_configuration_and_the_rules():
    assert "rules found" in promtool("check", "config", str(DEPLOY / "prometheus/prometheus.yml"))
    assert f"{len(ALERTS) + len(RECORDS)} rules found" in promtool("check", "rules", str(DEPLOY / "prometheus/rules.yml"))


def test_the_rules_pass_their_own_tests_and_every_alert_has_one():
    page = DEPLOY / "prometheus/rules_test.yml"
    assert "SUCCESS" in promtool("test", "rules", str(page))
    fires, is_quiet = set(), set()
    for case in (case for test in yaml.safe_load(page.read_text())["tests"] for case in test["alert_rule_test"]):
        (fires if case.get("exp_alerts") else is_quiet).add(case["alertname"])
    assert fires == is_quiet == {rule["alert"] for rule in ALERTS}


@pytest.mark.parametrize("alert", [rule["alert"] for rule in ALERTS])
def test_the_tests_of_the_rules_notice_an_alert_that_never_fires(tmp_path, alert):
    rules = yaml.safe_load((DEPLOY / "prometheus/rules.yml").read_text())
    for rule in (rule for group in rules["groups"] for rule in group["rules"] if rule.get("alert") == alert):
        rule["expr"] = f"({rule['expr']}) and on () vector(0) > 1"
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(rules))
    copied("prometheus/rules_test.yml", tmp_path, {})
    done = subprocess.run([program("promtool"), "test", "rules", tmp_path / "rules_test.yml"], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and alert in done.stdout + done.stderr


def test_the_arithmetic_beside_the_rules_is_what_tune_says():
    shown = (DEPLOY / "prometheus/rules.yml").read_text()
    command = re.search(r"checker (tune --promise.*)", shown)[1].split()
    told = subprocess.run([harness.CHECKER, *command, "--format", "json"], capture_output=True, text=True, check=True)
    assert f"{json.loads(told.stdout)['silent']['worst_ms'] // 1000} s at worst" in shown
    interval = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())["global"]
    assert interval == {"scrape_interval": "15s", "evaluation_interval": "15s"}


# --- the real thing ------------------------------------------------------------------------------------------------------


class Watched:
    """A cluster with a worker in each queue, another that a check looks at alone, the checker that watches them, and Prometheus."""

    def __init__(self, start, broker, folder, demo_worker):
        self._start, self._broker, self._folder, self._demo_worker = start, broker, folder, demo_worker
        self.pdf = self.worker("pdf")
        self.mail = self.worker("mail")
        self.alone = self.loop()
        alone = f'[checks.alone]\ntype = "worker"\nfile = "{folder}/alone"\n'
        changes = {
            'readiness = ["fleet"]': 'readiness = ["fleet", "alone"]',
            "[checks.fleet]": f"{alone}[checks.fleet]",
            # Nothing listens there: it is told as any certificate that cannot be trusted.
            "${SITE:-example.org:443}": f"127.0.0.1:{harness.free_port()}",
        }
        configuration = copied("prometheus/checker.toml", folder, changes)
        self.checker = start(Serve, configuration, env=harness.environment(HEARTBEAT_REDIS_URL=broker.url))
        copied("prometheus/rules.yml", folder, {"for: 30s": "for: 1s", "for: 10m": "for: 1s"})
        changes = {"15s": "1s", "scrape_timeout: 5s": "scrape_timeout: 1s", "scrape_timeout: 12s": "scrape_timeout: 1s"}
        scrape = copied("prometheus/prometheus.yml", folder, changes | {"checker:8080": self.checker.place})
        self.prometheus = start(Prometheus, folder, scrape)

    def loop(self):
        return self._demo_worker("--loop-budget", "500ms", file=self._folder / "alone")

    def worker(self, queue):
        command = [harness.HEARTBEAT, "run", "--redis", self._broker.url, "--cluster", "orders", "--worker", queue]
        command += ["--file", self._folder / queue, "--queue", queue, "--interval", "200ms", "--promise", "2s", "--", "sleep", "600"]
        return self._start(harness.Program, command)


@pytest.fixture
def watched(start, broker, tmp_path, demo_worker):
    return Watched(start, broker, tmp_path, demo_worker)


def names(expression):
    """The metrics that an expression is about."""
    bare = re.sub(r"\{[^}]*\}|\b(by|on|group_left)\s*\([^)]*\)", " ", expression)
    return set(re.findall(r"\b(?:heartbeat_\w+|checker_\w+|scrape_\w+|\w+:\w+:\w+|up|ALERTS)\b", bare))


def test_alerts_fire_and_resolve_and_all_that_is_asked_for_is_served(watched):
    prometheus = watched.prometheus
    fires = lambda *alerts: lambda: set(alerts) <= prometheus.alerts()
    rests = lambda *alerts: lambda: not set(alerts) & prometheus.alerts()
    ready = lambda: [found["value"][1] for found in prometheus.query("cluster:heartbeat_workers_ready:max")] == ["2"]
    harness.until(ready, timeout=60, what="both workers are recorded")
    # This one holds from the beginning.
    harness.until(fires("CertificateSoonOver"), timeout=60, what=prometheus.alerts)
    assert not prometheus.alerts() & {"QueueWithoutWorker", "FleetBelowMinimum", "WorkerWedged", "CheckerDown"}
    watched.alone.say("wedge")
    watched.mail.signal(signal.SIGKILL)
    harness.until(fires("WorkerWedged", "QueueWithoutWorker", "FleetBelowMinimum"), timeout=60, what="three alerts fire")
    told = [found["metric"]["verdict"] for found in prometheus.query('worker:heartbeat_verdict:max{check="alone"}')]
    assert told == ["wedged"]
    watched.mail.end()
    watched.worker("mail")
    harness.until(rests("QueueWithoutWorker", "FleetBelowMinimum"), timeout=60, what="two alerts are resolved")
    assert fires("WorkerWedged")()
    watched.alone.end()
    watched.loop()
    harness.until(rests("WorkerWedged"), timeout=60, what="the third is resolved")

    # What the rules and the dashboard ask for is served, under these names and with these labels.
    served = {found["metric"]["__name__"] for found in prometheus.query('{__name__!=""}')}
    asked = {name for rule in ALERTS for name in names(rule["expr"])}
    asked |= {name for group in RULES["groups"] for rule in group["rules"] for name in names(rule["expr"])}
    assert "heartbeat_cluster_workers" in asked and asked - RECORDS <= served, asked - RECORDS - served
    for title, expression in queries():
        assert names(expression) and names(expression) <= served, f"{title}: {names(expression) - served}"
        result = prometheus.query(variables_filled_in(expression))
        assert result or title in EMPTY_WHERE_ALL_IS_WELL, f"{title}: {expression}"
    # Its lists of choices too.
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            name, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"]).groups()
            assert all(label in found["metric"] for found in prometheus.query(name)), variable["name"]

    # And promtool finds nothing wrong with the exposition itself.
    _, metrics = ask(f"{watched.checker.url}/metrics?format=text")
    linted = subprocess.run([program("promtool"), "check", "metrics"], input=metrics, capture_output=True, text=True, check=False)
    assert linted.returncode == 0, linted.stdout + linted.stderr


# --- Grafana ---------------------------------------------------------------------------------------------------------------

EMPTY_WHERE_ALL_IS_WELL = {"Alerts"}


def panels():
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def queries():
    return [(panel["title"], target["expr"]) for panel in panels() for target in panel["targets"]]


def variables_filled_in(expression):
    for variable in DASHBOARD["templating"]["list"]:
        expression = expression.replace(f"${variable['name']}", ".*")
    return expression.replace("$__rate_interval", "1m")


def test_the_dashboard_has_what_grafana_needs():
    """There is no Grafana here to load it: what its import insists on, and what makes panels lie over each other, is looked at."""
    assert DASHBOARD["id"] is None and re.fullmatch(r"[\w-]{1,40}", DASHBOARD["uid"]) and DASHBOARD["title"]
    assert DASHBOARD["schemaVersion"] >= 36 and DASHBOARD["time"].keys() == {"from", "to"}
    source = next(variable for variable in DASHBOARD["templating"]["list"] if variable["type"] == "datasource")
    assert source["query"] == "prometheus"
    ids, taken = set(), set()
    for panel in panels():
        assert panel["id"] not in ids and not ids.add(panel["id"])
        assert {panel["datasource"]["uid"], *(target["datasource"]["uid"] for target in panel["targets"])} == {f"${{{source['name']}}}"}
        references = [target["refId"] for target in panel["targets"]]
        assert references and len(set(references)) == len(references)
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken and not taken.update(cells), panel["title"]
    used = set(re.findall(r"\$(\w+)", json.dumps([panel["targets"] for panel in panels()])))
    assert used - {"__rate_interval"} <= {variable["name"] for variable in DASHBOARD["templating"]["list"]}
