"""Hundreds of random states of migrations and of Django's table, each judged by Django's own `migrate --check` and by ours."""

import json
import random
import subprocess
import sys
from collections import Counter

import harness
from harness import CHECKER

STATES = 400
SEED = 20261121

# Run by Django, in one process for all states: what `migrate --check` does in each.
DJANGO = """
import json, sys
from django.conf import settings
states = json.load(open("states.json"))
settings.configure(
    SECRET_KEY="x", INSTALLED_APPS=["a", "b"], USE_TZ=True,
    DATABASES={state: {"ENGINE": "django.db.backends.sqlite3", "NAME": f"{state}.db"} for state in ["default", *states]},
)
import django
django.setup()
from django.core.management import CommandError, call_command
from django.db import connections
from django.db.migrations.exceptions import CircularDependencyError, InconsistentMigrationHistory, NodeNotFoundError
from django.db.migrations.recorder import MigrationRecorder
from django.test import override_settings

answers = {}
for state, rows in states.items():
    if rows is None:
        connections[state].ensure_connection()
    else:
        recorder = MigrationRecorder(connections[state])
        recorder.ensure_schema()
        for app, name in rows:
            recorder.record_applied(app, name)
    try:
        with override_settings(MIGRATION_MODULES={app: f"{state}.{app}.migrations" for app in "ab"}):
            call_command("migrate", database=state, check_unapplied=True, skip_checks=True)
        answers[state] = "passes"
    except SystemExit:
        answers[state] = "unapplied"
    except (CommandError, CircularDependencyError, InconsistentMigrationHistory, NodeNotFoundError, ValueError) as error:
        answers[state] = type(error).__name__
    connections[state].close()
print(json.dumps(answers))
"""


def migration(replaces, dependencies):
    return (
        "from django.db import migrations\n\n\nclass Migration(migrations.Migration):\n"
        f"    replaces = {replaces!r}\n    dependencies = {dependencies!r}\n    operations = []\n"
    )


def app_files(dice, app, others):
    """Migrations of one app: a line, now and then forked, squashed and with the old ones gone, or with a mistake in it."""
    count = dice.randint(1, 5)
    names = [f"{number:04}_m" for number in range(1, count + 1)]
    after = {name: [(app, before)] for before, name in zip(names, names[1:])} | {names[0]: []}
    files = {name: ([], after[name]) for name in names}
    if count > 2 and dice.random() < 0.15:
        files[names[-1]] = ([], [(app, names[-3])])
    for name in names:
        if others and dice.random() < 0.3:
            files[name][1].append(("a", dice.choice([*others, "__first__"])))
    if dice.random() < 0.65:
        first = dice.randint(0, count - 1)
        last = dice.randint(first, count - 1)
        squashed = f"{names[first]}_squashed_{names[last]}"
        inside = names[first : last + 1]
        files[squashed] = ([(app, name) for name in inside], list(files[names[first]][1]))
        gone = dice.random()
        for name in inside if gone < 0.3 else inside[:1] if gone < 0.4 else []:
            del files[name]
        if last + 1 < count and dice.random() < 0.5:
            files[names[last + 1]][1][:1] = [(app, squashed)]
    if dice.random() < 0.05:
        files[dice.choice(list(files))][1].append((app, dice.choice([*files, "0099_gone"])))
    return names, files


def rows(dice, app, names, files):
    """What the table holds: all, some from the beginning, or any; and what stands for them or is there no more."""
    how = dice.random()
    some = names if how < 0.55 else names[: dice.randint(0, len(names))] if how < 0.85 else [n for n in names if dice.random() < 0.5]
    squashed = [name for name, (replaces, _) in files.items() if replaces]
    done = [name for name in squashed if all(old in some for _, old in files[name][0])]
    recorded = [*some, *(name for name in (done if dice.random() < 0.8 else squashed) if dice.random() < 0.7)]
    if squashed and dice.random() < 0.15:
        recorded = [name for name in recorded if (app, name) not in files[squashed[0]][0]]
    return [(app, name) for name in [*recorded, *(["0050_gone"] if dice.random() < 0.1 else [])]]


def random_state(dice, folder):
    """Writes the files; gives the table's rows, or nothing where there is no table."""
    table, others = [], []
    for app in "ab":
        names, files = app_files(dice, app, others)
        others = names
        place = folder / app / "migrations"
        place.mkdir(parents=True)
        (place / "__init__.py").touch()
        for name, said in files.items():
            (place / f"{name}.py").write_text(migration(*said))
        table += rows(dice, app, names, files)
    return table if dice.random() < 0.97 else None


def test_in_random_states_our_answer_is_that_of_djangos_migrate_check(tmp_path):
    dice = random.Random(SEED)
    for app in "ab":
        (tmp_path / app).mkdir()
        (tmp_path / app / "__init__.py").touch()
    states = {f"s{number}": random_state(dice, tmp_path / f"s{number}") for number in range(STATES)}
    (tmp_path / "states.json").write_text(json.dumps(states))
    environment = harness.environment(PYTHONPATH=tmp_path, PYTHONDONTWRITEBYTECODE=1)
    command = [sys.executable, "-c", DJANGO]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    theirs = json.loads(done.stdout.splitlines()[-1])

    lines = ["[subsets]", f"all = {json.dumps(list(states))}"]
    for state in states:
        url, folders = f"sqlite://{tmp_path}/{state}.db", [f"{tmp_path}/{state}/*/migrations"]
        lines += [f"[checks.{state}]", 'type = "migrations"', 'tool = "django"', 'timeout = "60s"']
        lines += [f"url = {json.dumps(url)}", f"folders = {json.dumps(folders)}"]
    (tmp_path / "checker.toml").write_text("\n".join(lines))
    command = [CHECKER, "run", "all", "--config", tmp_path / "checker.toml", "--timeout", "120s", "--format", "json"]
    done = subprocess.run(command, env=harness.environment(), capture_output=True, text=True, timeout=180, check=False)
    ours = json.loads(done.stdout)["checks"]
    wrong = {
        state: (theirs[state], ours[state], states[state])
        for state in states
        if (theirs[state] == "passes") != (ours[state]["status"] == "ok")
    }
    assert not wrong, f"{len(wrong)} of {STATES}, seed {SEED}: {wrong}"
    # Each way to answer has had its turn.
    assert min(Counter(theirs.values())[way] for way in ("passes", "unapplied")) > STATES / 10, Counter(theirs.values())
    assert {"CommandError", "InconsistentMigrationHistory", "NodeNotFoundError"} <= set(theirs.values()), Counter(theirs.values())
