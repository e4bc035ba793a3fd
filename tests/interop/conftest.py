"""Fixtures of the tests of migrations."""

import re

import pytest

import harness
from harness import REPOSITORY, until


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request, start, tmp_path):
    """An empty database: as Django's settings have it, and its URL."""
    if request.param == "sqlite":
        file = tmp_path / "shop.sqlite3"
        file.touch()
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": str(file)}, f"sqlite://{file}"
    server = start({"postgresql": harness.Postgres, "mariadb": harness.MariaDb}[request.param])
    until(server.answers, timeout=60, what=f"{request.param} answers")
    return server.django, server.url


@pytest.fixture
def script():
    """The one script of the documentation that begins with these words."""

    def find(words):
        page = (REPOSITORY / "shared" / "README.md").read_text()
        (found,) = (block for block in re.findall(r"```python\n(.*?)```", page, re.S) if block.startswith(words))
        return found

    return find
