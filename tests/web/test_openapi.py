"""`/openapi.json` by schemathesis, a reader and tester of such descriptions that is not ours: it is one, and it is true.

Against the real server, with data that fits the description and with data that does not.
"""

import json
import subprocess
import sys
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
import schemathesis

import harness

TOKEN = "T0ken-of-the-tests"

CHECKS = """
[subsets]
readiness = ['good', 'bad']
startup = ['good']
notes = ['bad', 'weak']
[checks.good]
type = 'command'
command = ['true']
[checks.bad]
type = 'command'
command = ['false']
[checks.weak]
type = 'command'
command = ['false']
critical = false
"""

CONFIGURATIONS = {
    "as it comes": "",
    "all that may be told": """
        [service]
        name = 'orders'
        environment = 'test'
        version = '1.2.3'
        commit = 'abc'
        [server]
        detail = 'safe'
        durations = true
        expose_build_info = true
    """,
    "less than usual": """
        [server]
        failure_status = 500
        expose_version = false
        warnings_fail = false
        page = false
    """,
}

# Everything that schemathesis can check is checked. A 503 is what it is asked for, and no error of the server.
SETTINGS = """
[checks.not_a_server_error]
expected-statuses = ["2xx", "4xx", "503", "{failing}"]
"""


def fetch(address, headers=()):
    with urllib.request.urlopen(urllib.request.Request(address, headers=dict(headers)), timeout=20) as answer:
        return answer.read()


def run(folder, description, base, *arguments, failing=503):
    """Runs it with a description, at an address or in a file, on what is served below another address."""
    settings = folder / "schemathesis.toml"
    settings.write_text(SETTINGS.format(failing=failing))
    command = [Path(sys.executable).with_name("schemathesis"), "--config-file", settings, "run", description, "--url", base]
    command += ["--checks", "all", "--mode", "all", "--seed", "5", "--continue-on-failure", "--no-color", *arguments]
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=harness.environment(HOME=folder, HYPOTHESIS_STORAGE_DIRECTORY=folder / "examples"),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    said = done.stdout + done.stderr
    print(said)
    assert done.returncode == 0


# What they are at their edges, and for one of them at random too.
EDGES = ["--phases", "coverage"]
EDGES_AND_CHANCE = ["--phases", "coverage,fuzzing", "--max-examples", "10"]


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_what_is_described_is_what_is_answered(serve, tmp_path, name):
    configuration = CONFIGURATIONS[name]
    server = serve(configuration + CHECKS)
    schemathesis.openapi.from_dict(json.loads(fetch(f"{server.url}/openapi.json"))).validate()
    phases = EDGES_AND_CHANCE if "safe" in configuration else EDGES
    run(tmp_path, f"{server.url}/openapi.json", server.url, *phases, failing=500 if "500" in configuration else 503)


def test_with_a_token_and_without(serve, tmp_path):
    server = serve(f"[server.access]\ntoken = '{TOKEN}'\n{CHECKS}")
    description = tmp_path / "openapi.json"
    description.write_bytes(fetch(f"{server.url}/openapi.json", {"X-Probe-Token": TOKEN}))
    run(tmp_path, description, server.url, *EDGES, "--header", f"X-Probe-Token: {TOKEN}")
    run(tmp_path, description, server.url, *EDGES)


def test_behind_a_secret_path(serve, tmp_path):
    server = serve(f"[server.access]\npath_secret = 'S3cret'\nprotect_healthz = true\n{CHECKS}")
    place = f"{server.url}/S3cret/openapi.json"
    base = urllib.parse.urljoin(place, json.loads(fetch(place))["servers"][0]["url"])
    assert base == f"{server.url}/S3cret/"
    run(tmp_path, place, base, *EDGES)
