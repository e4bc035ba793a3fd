"""`application/health+json` as draft-inadarei-api-health-check-06 has it: every rule that it gives for a member, on every kind of answer."""

import json
import re
import time
import urllib.error
import urllib.request
from datetime import datetime

import jsonschema
import pytest

STATUS = {"enum": ["pass", "warn", "fail"]}
TEXT = {"type": "string", "minLength": 1}
LINKS = {"type": "object", "additionalProperties": {"type": "string", "format": "uri-reference"}}
NO_OUTPUT_OF_WHAT_PASSES = {
    "if": {"properties": {"status": {"const": "pass"}}, "required": ["status"]},
    "then": {"properties": {"output": False, "affectedEndpoints": False}},
}
# Sections 3 and 4 of the draft. Members that it does not know are allowed everywhere.
DRAFT = {
    "type": "object",
    "required": ["status"],
    "properties": {
        "status": STATUS,
        "version": TEXT,
        "releaseId": TEXT,
        "notes": {"type": "array", "items": TEXT},
        "output": TEXT,
        "checks": {
            "type": "object",
            # A component, or a component and what is measured of it; neither name holds a colon.
            "propertyNames": {"pattern": "^[^:]+(:[^:]+)?$"},
            "additionalProperties": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/check"}},
        },
        "links": LINKS,
        "serviceId": TEXT,
        "description": TEXT,
    },
    **NO_OUTPUT_OF_WHAT_PASSES,
    "$defs": {
        "check": {
            "type": "object",
            "properties": {
                "componentId": TEXT,
                "componentType": {"anyOf": [{"enum": ["component", "datastore", "system"]}, {"pattern": "^[a-z]+:"}]},
                "observedUnit": TEXT,
                "status": STATUS,
                "affectedEndpoints": {"type": "array", "items": {"type": "string", "format": "uri-reference"}},
                "time": {"pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$"},
                "output": TEXT,
                "links": LINKS,
            },
            "dependentRequired": {"observedUnit": ["observedValue"]},
            **NO_OUTPUT_OF_WHAT_PASSES,
        }
    },
}

CONFIGURATION = """
[service]
name = "orders"
version = "1.2"
commit = "abc1234"
[server]
{server}
[subsets]
readiness = ["good"]
warns = ["good", "warns"]
fails = ["good", "fails", "warns"]
unknown = ["good", "unknown"]
odd = ["odd"]
[checks.good]
type = "command"
command = ["true"]
[checks.warns]
type = "command"
command = ["false"]
critical = false
[checks.fails]
type = "command"
command = ["false"]
[checks.unknown]
type = "command"
command = ["/there/is/no/such/program"]
[checks.odd]
type = "worker"
file = "/there/is/no/such/worker"
critical = false
unknown = "fail"
owner = "nobody-of-that-name"
"""


def ask(server, path):
    """A document that keeps to the draft, and its HTTP status."""
    question = urllib.request.Request(server.url + path, headers={"Accept": "application/health+json"})
    try:
        answer = urllib.request.urlopen(question, timeout=20)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        assert answer.headers["Content-Type"] == "application/health+json"
        assert answer.headers["Cache-Control"]
        document = json.load(answer)
        keeps_to_the_draft(document, answer.status)
        return document, answer.status


def keeps_to_the_draft(document, status):
    jsonschema.Draft202012Validator(DRAFT).validate(document)
    passes = document["status"] != "fail"
    assert passes == (200 <= status < 400) and (passes or 400 <= status < 600), f"{document['status']} with {status}"
    # What somebody should look at is explained.
    assert document["status"] == "pass" or document["output"]
    for check in (check for entries in document["checks"].values() for check in entries):
        datetime.fromisoformat(check["time"])


DRAFTED = {"status": "warn", "output": "x", "checks": {"a:uptime": [{"observedValue": 1, "observedUnit": "s", "time": "2026-01-31T23:59:59Z"}]}}


@pytest.mark.parametrize(
    "wrong",
    [
        {"status": "ok"},
        {"status": "pass"},
        {"output": None},
        {"version": 1},
        {"checks": {"a:b:c": [{}]}},
        {"checks": {"": [{}]}},
        {"checks": {"a": {}}},
        {"checks": {"a": []}},
        {"checks": {"a": [{"time": "yesterday"}]}},
        {"checks": {"a": [{"time": "2026-13-31T23:59:59Z"}]}},
        {"checks": {"a": [{"time": "2026-01-31T23:59:59Z", "observedUnit": "s"}]}},
        {"checks": {"a": [{"time": "2026-01-31T23:59:59Z", "status": "pass", "output": "x"}]}},
        {"checks": {"a": [{"time": "2026-01-31T23:59:59Z", "componentType": "thing"}]}},
    ],
)
def test_the_rules_here_find_what_breaks_them(wrong):
    keeps_to_the_draft(DRAFTED | {"whatever": {"else": 1}}, 200)
    with pytest.raises((jsonschema.ValidationError, AssertionError, ValueError)):
        keeps_to_the_draft(DRAFTED | wrong, 200)


@pytest.mark.parametrize("more", ["", 'detail = "safe"', "durations = true", 'detail = "full"\ndurations = true\nfailure_status = 500'])
def test_every_answer_keeps_to_the_draft(serve, more):
    server = serve(CONFIGURATION.format(server=more + "\nwarnings_fail = false"))
    told = {}
    for path in ["/healthz", "/readyz", *(f"/healthcheck/{name}" for name in ["warns", "fails", "unknown", "odd", "liveness"])]:
        document, _ = ask(server, path)
        told[path.rpartition("/")[2]] = document["status"]
        for name, (check,) in document["checks"].items():
            assert check["componentType"] == "component"
            assert name.endswith(":responseTime") == ("durations" in more) == ("observedValue" in check)
            assert check.get("observedUnit", "ms") == "ms" and check.get("observedValue", 1) > 0
            assert ("output" in check) == ("detail" in more and check["status"] != "pass")
    assert told == {
        "healthz": "pass", "readyz": "pass", "warns": "warn", "fails": "fail", "unknown": "fail", "odd": "warn", "liveness": "pass"
    }


def test_a_warning_that_does_not_pass_is_told_as_what_it_counts_for(serve):
    server = serve(CONFIGURATION.format(server="warnings_fail = true"))
    document, status = ask(server, "/healthcheck/warns")
    assert (document["status"], status) == ("fail", 503)
    assert document["checks"]["warns"][0]["status"] == "warn"


@pytest.mark.parametrize(
    "more, told",
    [
        ("expose_version = false\nexpose_build_info = true", {}),
        ("", {"serviceId": "orders", "version": "1.2"}),
        ("expose_build_info = true", {"serviceId": "orders", "version": "1.2", "releaseId": "abc1234"}),
    ],
)
def test_it_says_which_service_it_is_as_far_as_that_may_be_told(serve, more, told):
    document, _ = ask(serve(CONFIGURATION.format(server=more)), "/readyz")
    assert {member: document[member] for member in ["serviceId", "version", "releaseId"] if member in document} == told
    assert document["description"] == "readiness"


def test_the_time_of_a_check_is_when_it_was_asked(serve):
    server = serve(CONFIGURATION.format(server='cache = "1h"'))
    first, _ = ask(server, "/readyz")
    asked = datetime.fromisoformat(first["checks"]["good"][0]["time"])
    assert re.fullmatch(r".*Z", first["checks"]["good"][0]["time"])
    assert abs(asked.timestamp() - time.time()) < 60
    # Times are whole seconds.
    time.sleep(1.1)
    assert ask(server, "/readyz")[0] == first
