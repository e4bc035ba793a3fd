"""A real Django project in a folder of its own, whose migrations Django makes, squashes and applies by its own commands."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import harness

CONTRIB = [Path(importlib.util.find_spec(f"django.contrib.{app}").origin).parent / "migrations" for app in ("auth", "contenttypes")]

SETTINGS = """
SECRET_KEY = "not-a-real-secret-0123456789-0123456789-0123456789"
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "people", "shop", "plain"]
AUTH_USER_MODEL = "people.Person"
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
DATABASES = {{"default": {database!r}}}
"""
# The driver's version is not that of the one it stands in for, which Django asks for.
ON_MYSQL = """
import pymysql

pymysql.version_info = (2, 2, 7, "final", 0)
pymysql.install_as_MySQLdb()
"""
PEOPLE = """
from django.contrib.auth.models import AbstractUser


class Person(AbstractUser):
    pass
"""
SHOP = """
from django.conf import settings
from django.db import models


class Goods(models.Model):
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE)
"""


class Shop:
    """Apps `people` (the users' own model), `shop` (which depends on that) and `plain`, which has no migrations."""

    def __init__(self, folder, database):
        self.folder = folder
        for app in ("people", "shop", "plain"):
            (folder / app).mkdir(parents=True)
            (folder / app / "__init__.py").touch()
        before = ON_MYSQL if database["ENGINE"].endswith(".mysql") else ""
        (folder / "settings.py").write_text(before + SETTINGS.format(database=database))
        (folder / "people" / "models.py").write_text(PEOPLE)
        (folder / "plain" / "models.py").write_text("from django.db import models\n\n\nclass Note(models.Model):\n    pass\n")
        self.fields()
        (folder / "plain" / "migrations.py").write_text("# An app may have a module of this name that is no package.\n")
        self.made("people", "shop")

    @property
    def folders(self):
        """Where the migration files are, as a configuration names them."""
        return [f"{self.folder}/*/migrations", *map(str, CONTRIB)]

    def fields(self, *names):
        """The model of the shop has these fields, and its owner."""
        lines = "".join(f"    {name} = models.IntegerField(default=0)\n" for name in names)
        (self.folder / "shop" / "models.py").write_text(SHOP + lines)

    def made(self, *apps, name=None, options=()):
        self.done("makemigrations", *apps, *(["--name", name] if name else []), *options)

    def file(self, name):
        return self.folder / "shop" / "migrations" / f"{name}.py"

    def run(self, *arguments):
        """Runs Python in the project."""
        environment = harness.environment(DJANGO_SETTINGS_MODULE="settings", PYTHONPATH=self.folder, PYTHONDONTWRITEBYTECODE=1)
        command = [sys.executable, *arguments]
        return subprocess.run(command, env=environment, cwd=self.folder, capture_output=True, text=True, timeout=120, check=False)

    def done(self, *arguments):
        done = self.run("-m", "django", *arguments)
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"

    def python(self, code):
        done = self.run("-c", code)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def record(self, call):
        """Changes Django's table by its own hand: `record_applied("shop", "x")`."""
        code = "from django.db import connection\nfrom django.db.migrations.recorder import MigrationRecorder"
        self.python(f"import django\ndjango.setup()\n{code}\nMigrationRecorder(connection).{call}")

    def migrate_check(self):
        """Whether `migrate --check` passes, and its words where it does not."""
        done = self.run("-m", "django", "migrate", "--check")
        assert done.returncode in (0, 1), done
        return done.returncode == 0, done.stdout + done.stderr
