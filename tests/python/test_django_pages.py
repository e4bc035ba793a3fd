"""The pages "coming from …" have a row for every setting and parameter that the other packages' code knows; and whatever entry they
show is one that the checker takes."""

import ast
import json
import os
import re
from pathlib import Path

import pytest

import harness
from django_site import Site

PAGES = harness.REPOSITORY / "heartbeat" / "python"
FOJ, DHC, PROBES = (f"coming-from-{name}.md" for name in ("full-of-juice", "django-health-check", "django-deploy-probes"))
# Packages whose code is read and never run: two of them have the same name.
READ = Path(os.environ.get("TESTS_PREDECESSORS", harness.TARGET / "tests-predecessors"))


def rows(page):
    """The cells of the page's tables."""
    lines = (PAGES / page).read_text().splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("| ")]


def firsts(page):
    """What stands as code in the first cells."""
    return {code for row in rows(page) for code in re.findall(r"`([^`]+)`", row[0])}


def trees(folder):
    files = sorted(folder.rglob("*.py"))
    assert files, f"{folder} is not there; tests/run makes it"
    return {file: ast.parse(file.read_text()) for file in files}


def calls(tree, *names):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in names:
            yield node


def texts(nodes):
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def foj():
    import health_check

    return trees(Path(health_check.__file__).parent)


def test_every_setting_of_foj_has_a_row():
    known = set()
    for tree in foj().values():
        known |= {key for call in calls(tree, "get_setting") for key in texts(call.args[:1])}
        known |= {key for call in calls(tree, "getattr", "hasattr") if ast.unparse(call.args[0]) == "settings" for key in texts(call.args[1:2])}
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_DEFAULTS":
                known |= texts(node.value.keys)
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "broker_url_setting_key":
                known.add("BROKER_URL")
    # Django's own, and the dictionary itself.
    known -= {"MIDDLEWARE", "HEALTH_CHECK"}
    assert {"SUBSETS", "CELERY_HEARTBEAT_MAX_AGE", "HEALTHCHECK_CACHE_KEY", "REDIS_URL"} < known
    assert known - firsts(FOJ) == set()


def test_every_check_of_foj_has_a_row():
    known = set()
    for file, tree in foj().items():
        package = ".".join(file.with_suffix("").parts[file.parts.index("health_check") + 1 :])
        for node in tree.body:
            is_check = isinstance(node, ast.ClassDef) and any("Check" in ast.unparse(base) for base in node.bases)
            if is_check and package.endswith("backends") and not node.name.startswith("_"):
                known.add(f"{package}.{node.name}")
    assert len(known) > 10
    assert known - firsts(FOJ) == set()


def test_every_system_check_of_foj_has_a_row():
    known = {key.value.value for tree in foj().values() for call in calls(tree, "Error", "Warning") for key in call.keywords if key.arg == "id"}
    assert known and known - firsts(FOJ) == set()


def dhc_checks():
    """Each check of DHC's with its parameters: the fields of a dataclass that it may be made with."""
    checks = {}
    for file, tree in trees(READ / "health_check").items():
        if file.name != "checks.py" and file.parent.name != "contrib":
            continue
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                fields = [field for field in fields_of(node) if "ClassVar" not in ast.unparse(field.annotation) and "init=False" not in ast.unparse(field)]
                checks[node.name] = {field.target.id for field in fields} - ({"base_url", "feed_url"} if node.bases[0].id in ("AtlassianStatusPage", "Feed") else set())
    return checks


def fields_of(node):
    """Fields stand in the class itself, or where one is declared in two ways, below an `if` or a `try` there."""
    for inner in ast.iter_child_nodes(node):
        if isinstance(inner, ast.AnnAssign):
            yield inner
        elif not isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from fields_of(inner)


def test_every_check_of_dhc_has_a_row_with_its_parameters():
    shown = {}
    for code in firsts(DHC):
        if match := re.fullmatch(r"(\w+)\(([\w, ]*)\)", code):
            shown[match[1]] = set(match[2].split(", ")) - {""}
    known = dhc_checks()
    assert len(known) > 25
    assert shown == known


def test_every_setting_of_dhcs_view_and_command_is_told():
    page = (PAGES / DHC).read_text()
    (view,) = [node for tree in trees(READ / "health_check").values() for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "HealthCheckView"]
    own = {node.target.id for node in view.body if isinstance(node, ast.AnnAssign)}
    own |= {node.targets[0].id for node in view.body if isinstance(node, ast.Assign)} | {node.name for node in view.body if getattr(node, "name", "") == "get_executor"}
    command = ast.parse((READ / "health_check" / "management" / "commands" / "health_check.py").read_text())
    options = {text for node in ast.walk(command) if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".add_argument") for text in texts(node.args)}
    assert {"checks", "feed_author"} < own and "--forwarded-host" in options
    known = own - {"template_name"} | {option for option in options if option.startswith("--")} - {"--http"}
    assert {name for name in known if f"`{name}" not in page and f" {name}`" not in page} == set()


def test_every_setting_of_deploy_probes_has_a_row():
    (tree,) = [tree for file, tree in trees(READ / "django_deploy_probes").items() if file.name == "conf.py"]
    (defaults,) = [node.value for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == "DEFAULT_DEPLOY_PROBES"]
    known = texts(defaults.keys)
    assert len(known) > 30
    assert known - firsts(PROBES) == set()


@pytest.mark.parametrize("page", [FOJ, DHC, PROBES])
def test_every_entry_that_a_page_shows_is_one_that_the_checker_takes(page, tmp_path):
    entries = set()
    for row in rows(page):
        for code in (code for cell in row[1:] for code in re.findall(r"`([^`]+)`", cell)):
            if code.startswith('{"type"') or (cell_is_check(row) and re.fullmatch(r'"[a-z-]+"', code)):
                entries.add(code)
    entries = sorted(code for code in entries if "…" not in code)
    assert len(entries) > (3 if page == PROBES else 10)
    settings = {
        "DATABASES": {name: {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / name)} for name in ("default", "replica")},
        "CACHES": {name: {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": "redis://h"} for name in ("default", "x")},
        "MEDIA_ROOT": str(tmp_path),
        "REDIS_URL": "redis://h",
        "BROKER_URL": "amqp://h",
        "CELERY_BROKER_URL": "amqp://h",
        "CELERY_RESULT_BACKEND": "redis://h",
        "Q_CLUSTER": {"name": "shop", "redis": "redis://h"},
        "HEALTH_CHECK": {"SUBSETS": {f"s{number}": [ast.literal_eval(entry)] for number, entry in enumerate(entries)}},
    }
    # One name for two checks is no concern of a page's.
    for number, (name, (entry,)) in enumerate(list(settings["HEALTH_CHECK"]["SUBSETS"].items())):
        settings["HEALTH_CHECK"]["SUBSETS"][name] = [{**({"type": entry} if isinstance(entry, str) else entry), "name": f"n{number}"}]
    done = Site(tmp_path / "site", settings).command("check")
    assert done.code == 0, done.err


def cell_is_check(row):
    return "." in row[0] and "backends" in row[0] or re.match(r"`\w+\(", row[0])


def test_every_python_block_of_the_page_on_django_works(tmp_path):
    """Its settings and URLs, put together as they stand there."""
    blocks = re.findall(r"```python\n(.*?)```", (PAGES / "django.md").read_text(), re.S)
    settings, urls, file = blocks
    databases = {name: {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / name)} for name in ("default", "replica")}
    caches = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": "redis://h"}}
    site = Site(tmp_path / "site", {"DATABASES": databases, "CACHES": caches}, urls=urls, code="INSTALLED_APPS = ['django.contrib.contenttypes']\n")
    text = (site.folder / "site_settings.py").read_text()
    site.write("site_settings.py", text + settings.replace("    # …\n", "    'django.contrib.contenttypes',\n", 1))
    assert site.command("check").code == 0, site.command("check").err
    report = site.command("health_check", "-s", "readiness", "--format", "json")
    assert json.loads(report.out)["checks"].keys() == {"database", "migrations"}
    site.write("checker.toml", "[subsets]\nreadiness = ['it']\n[checks.it]\ntype = 'command'\ncommand = ['true']\n")
    site.write("site_settings.py", text + "INSTALLED_APPS = ['heartbeat.django']\n" + file)
    assert site.command("health_check", "--subset", "readiness").code == 0
