"""The kind of check `migrations` beside Alembic's own commands, on the revisions that those make."""

import re
import subprocess
import sys

import pytest

import harness
from asked import Asked

# The tables are the same ones: what is about files alone is asked of one database.
ON_SQLITE = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


class Revisions:
    """A folder of `alembic init`, with a database; its revisions change nothing, so that `alembic check` looks at them alone."""

    def __init__(self, folder, url):
        self.folder = folder
        folder.mkdir()
        self.done("init", "alembic")
        ini = folder / "alembic.ini"
        ini.write_text(re.sub(r"(?m)^sqlalchemy.url = .*$", f"sqlalchemy.url = {url}", ini.read_text()))
        env = folder / "alembic" / "env.py"
        env.write_text(env.read_text().replace("target_metadata = None", "import sqlalchemy\n\ntarget_metadata = sqlalchemy.MetaData()"))

    @property
    def folders(self):
        return [str(self.folder / "alembic" / "versions")]

    def run(self, *arguments):
        command = [sys.executable, "-m", "alembic", *arguments]
        environment = harness.environment(PYTHONDONTWRITEBYTECODE=1)
        return subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=60, check=False)

    def done(self, *arguments):
        done = self.run(*arguments)
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def made(self, name, *options):
        self.done("revision", "--rev-id", name, "-m", name, *options)

    def is_at_heads(self):
        return self.run("current", "--check-heads").returncode == 0


def agree(revisions, ask, passes, *words):
    theirs, ours = revisions.is_at_heads(), ask()
    assert ours.passes == theirs == passes, f"Alembic: {theirs}, ours: {ours}"
    for word in words:
        assert word in ours.output, ours


@pytest.fixture
def revisions(database, tmp_path):
    _, url = database
    theirs = url.replace("sqlite://", "sqlite:///").replace("postgres://", "postgresql+psycopg://")
    made = Revisions(tmp_path / "project", theirs)
    made.url = url
    return made


def test_our_answer_is_that_of_alembics_check_of_the_heads(revisions, tmp_path):
    ask = Asked(tmp_path, "migrations", url=revisions.url, tool="alembic", folders=revisions.folders)
    assert ask().reason == "no migration files are found"
    revisions.made("aaaa")
    agree(revisions, ask, False, "there is no table of migrations: aaaa")
    revisions.made("bbbb")
    revisions.done("upgrade", "aaaa")
    agree(revisions, ask, False, "1 migration is not applied", "bbbb")
    assert "Target database is not up to date" in revisions.run("check").stderr
    revisions.done("upgrade", "head")
    agree(revisions, ask, True)
    assert revisions.run("check").returncode == 0

    # Two branches, of which first one is applied, then both; then they are merged.
    revisions.made("cccc")
    revisions.made("dddd", "--head", "bbbb", "--splice")
    revisions.done("upgrade", "cccc")
    agree(revisions, ask, False, "1 migration is not applied", "dddd")
    revisions.done("upgrade", "heads")
    agree(revisions, ask, True)
    revisions.done("merge", "heads", "--rev-id", "eeee", "-m", "merge")
    agree(revisions, ask, False, "1 migration is not applied", "eeee")
    revisions.done("upgrade", "head")
    agree(revisions, ask, True)
    assert revisions.run("check").returncode == 0
    revisions.done("downgrade", "aaaa")
    agree(revisions, ask, False, "4 migrations are not applied")
    revisions.done("upgrade", "head")

    # At a revision whose file is not there Alembic cannot tell either.
    revisions.made("ffff")
    revisions.done("upgrade", "head")
    next((revisions.folder / "alembic" / "versions").glob("ffff*.py")).unlink()
    agree(revisions, ask, False, "the database is at a revision that is unknown here", "ffff")
    ignored = Asked(tmp_path, "migrations", url=revisions.url, tool="alembic", folders=revisions.folders, unknown="ignore")
    assert ignored().passes


@ON_SQLITE
def test_a_branch_that_depends_on_another_one_is_told_by_what_alembic_would_still_do(revisions, tmp_path):
    ask = Asked(tmp_path, "migrations", url=revisions.url, tool="alembic", folders=revisions.folders)
    revisions.made("aaaa", "--branch-label", "goods")
    revisions.made("bbbb", "--head", "base", "--branch-label", "prices", "--depends-on", "goods")
    revisions.made("cccc", "--head", "goods@head")
    for target, left in (("goods@aaaa", "bbbb, cccc"), ("prices@head", "cccc")):
        revisions.done("upgrade", target)
        agree(revisions, ask, False, left)
    revisions.done("upgrade", "heads")
    agree(revisions, ask, True)
    revisions.made("dddd", "--head", "prices@head", "--depends-on", "cccc")
    agree(revisions, ask, False, "dddd")
    revisions.done("upgrade", "heads")
    # Its table says `dddd` alone, which `current --check-heads` takes for less than all; an upgrade has nothing to do.
    assert "Running upgrade" not in revisions.run("upgrade", "heads").stderr
    assert ask().passes


@ON_SQLITE
def test_the_list_that_alembics_script_makes_will_do_in_place_of_the_files(revisions, script, tmp_path):
    revisions.made("aaaa", "--branch-label", "goods")
    revisions.made("bbbb", "--head", "base", "--depends-on", "goods")
    revisions.made("cccc", "--head", "goods@head")
    revisions.done("merge", "heads", "--rev-id", "dddd", "-m", "merge")
    code = script("from alembic")
    environment = harness.environment(PYTHONDONTWRITEBYTECODE=1)
    made = subprocess.run([sys.executable, "-c", code], cwd=revisions.folder, env=environment, capture_output=True, text=True, check=True)
    file = tmp_path / "expected.txt"
    file.write_text(made.stdout)
    ask = Asked(tmp_path, "migrations", url=revisions.url, tool="alembic", expected=str(file))
    agree(revisions, ask, False, "aaaa, bbbb, cccc, dddd")
    revisions.done("upgrade", "cccc")
    agree(revisions, ask, False, "bbbb, dddd")
    revisions.done("upgrade", "head")
    agree(revisions, ask, True)
