"""The configuration's JSON Schema, by a validator that is not ours: it is a schema, what is right fits it, and what is wrong does not."""

import json
import subprocess
import tomllib

import pytest
from jsonschema import Draft202012Validator

from harness import CHECKER, REPOSITORY
from test_pages import BLOCKS

SCHEMA = json.loads(subprocess.run([CHECKER, "schema"], capture_output=True, check=True).stdout)
KINDS = json.loads(subprocess.run([CHECKER, "checks", "--format", "json"], capture_output=True, check=True).stdout)
BROKEN = sorted((REPOSITORY / "checker/tests/broken").glob("*.toml"))
# What only a reading of the file can tell: names that are not there, circles, files, variables, and what a kind makes of its values.
BEYOND = {"C003", "C007", "C009", "C010", "C011", "C012", "C013", "C015", "C016", "C017", "C018", "C020", "C021", "C022"}


def mistakes(text):
    return [error.message for error in Draft202012Validator(SCHEMA).iter_errors(tomllib.loads(text))]


def test_it_is_a_schema():
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind["kind"])
def test_each_kinds_example_fits(kind):
    text = f"[checks.it]\ntype = '{kind['kind']}'\n{kind['example']}\ntimeout = '${{TIMEOUT:-1s}}'\n"
    assert mistakes(text) == []


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind["kind"])
def test_a_key_that_the_kind_does_not_know_does_not_fit(kind):
    assert mistakes(f"[checks.it]\ntype = '{kind['kind']}'\n{kind['example']}\n").__len__() == 0
    assert mistakes(f"[checks.it]\nno-such-key = 1\ntype = '{kind['kind']}'\n{kind['example']}\n")


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.comment("configuration") is not None], ids=lambda block: f"{block.page}:{block.line}")
def test_the_configurations_of_the_pages_fit(block):
    assert mistakes(block.text) == []


def a_schema_can_tell(file):
    codes = {line.split()[1] for line in file.with_suffix(".expected").read_text().splitlines()}
    # The variables of one file stand for what is wrong, which a schema never sees.
    return not codes <= BEYOND and file.stem != "unset-variables"


@pytest.mark.parametrize("file", filter(a_schema_can_tell, BROKEN), ids=lambda file: file.stem)
def test_what_is_broken_does_not_fit_where_a_schema_can_tell(file):
    assert mistakes(file.read_text())


@pytest.mark.parametrize(
    "text",
    [
        "[server.access]\ntoken = { file = '/run/secrets/token' }",
        "[server]\nfailure_status = '${STATUS:-503}'\ncache = '${CACHE}'\ndurations = '${DURATIONS}'\ndetail = '${DETAIL}'",
        "[checks.it]\ntype = 'tcp'\naddress = { file = '/run/secrets/address' }",
    ],
)
def test_what_comes_from_outside_fits(text):
    assert mistakes(text) == []
