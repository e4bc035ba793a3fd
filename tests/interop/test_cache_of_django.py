"""The kind of check `cache` in a table that Django made: what it writes is what Django writes, and nothing of it stays."""

import json
import subprocess
import sys

import pytest

import harness
from djangoq import Site
from harness import until
from test_kinds_of_brokers import Asked

TABLE = "shop cache"
KEYS = {"KEY_PREFIX": "shop", "VERSION": 3}

# What is set in the cache is copied to another table, because the check lets nobody see it.
COPY = {
    "sqlite": ['CREATE TRIGGER copy AFTER INSERT ON "shop cache" BEGIN INSERT INTO seen SELECT NEW.cache_key, NEW.value, NEW.expires; END'],
    "postgres": [
        "CREATE FUNCTION copy() RETURNS trigger AS $$ BEGIN INSERT INTO seen SELECT NEW.*; RETURN NEW; END $$ LANGUAGE plpgsql",
        'CREATE TRIGGER copy AFTER INSERT ON "shop cache" FOR EACH ROW EXECUTE FUNCTION copy()',
    ],
    "mariadb": ["CREATE TRIGGER copy AFTER INSERT ON `shop cache` FOR EACH ROW INSERT INTO seen VALUES (NEW.cache_key, NEW.value, NEW.expires)"],
}

# Django's own account of what was copied: its key, what Django stores for the same value, and for how long it is there.
READ = """
import json, datetime
from django.core.cache import cache
from django.db import connection
from django.utils.timezone import now
def rows(select):
    with connection.cursor() as cursor:
        cursor.execute(select)
        return cursor.fetchall()
((key, stored, expires),) = rows("SELECT cache_key, value, expires FROM seen")
bare = key.removeprefix("shop:3:")
value = cache.get(bare)
if isinstance(expires, str):
    expires = datetime.datetime.fromisoformat(expires)
left = (expires.replace(tzinfo=datetime.timezone.utc) - now()).total_seconds()
cache.set("ours", value)
((again,),) = rows("SELECT value FROM seen WHERE cache_key = 'shop:3:ours'")
print(json.dumps([bare, value, stored == again, cache.has_key(bare), left]))
"""

# What is in the table after the check, beside what Django has put there.
LEFT = """
import json
from django.core.cache import cache
from django.db import connection
with connection.cursor() as cursor:
    cursor.execute("SELECT cache_key FROM " + connection.ops.quote_name("shop cache"))
    print(json.dumps([cache.get("own"), [key for key, in cursor.fetchall()]]))
"""


class Shop(Site):
    def cache(self, table=TABLE):
        return {"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": table, **KEYS}

    def run(self, code, table=TABLE):
        code = f"import django; django.setup()\n{code}"
        done = subprocess.run(
            [sys.executable, "-c", code], env=self.environment(cache=self.cache(table)), cwd=harness.REPOSITORY / "tests" / "interop",
            capture_output=True, text=True, timeout=60, check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def sql(self, *statements):
        self.run(f"from django.db import connection\nfor one in {list(statements)!r}:\n    connection.cursor().execute(one)")

    def make_table(self, table=TABLE):
        done = self.manage("createcachetable", cache=self.cache(table))
        assert done.returncode == 0, done.stderr


@pytest.fixture(params=["sqlite", "postgres", "mariadb"])
def shop(request, start, tmp_path):
    if request.param == "sqlite":
        shop, url = Shop(start, tmp_path, [], {}), f"sqlite://{tmp_path}/db.sqlite3"
    else:
        server = start(harness.Postgres if request.param == "postgres" else harness.MariaDb)
        until(server.answers, timeout=60, what=f"{server.command} answers")
        shop, url = Shop(start, tmp_path, [], {}, database=server.django), server.url
    shop.kind = request.param
    shop.asked = Asked(tmp_path, "cache", url=url, table=TABLE, key_prefix="shop", version=3, expire="1m")
    shop.make_table()
    return shop


def test_what_is_set_in_a_table_is_what_django_sets_and_reads_and_nothing_of_it_stays(shop):
    shop.run("from django.core.cache import cache; cache.set('own', [1, 'two'])")
    shop.make_table("seen")
    shop.sql(*COPY[shop.kind])
    told = shop.asked()
    assert told.passes, told
    bare, value, same, there, left = json.loads(shop.run(READ, table="seen"))
    assert bare.startswith("checker:") and len(bare) == len("checker:") + 32
    assert len(value) == 32 and same and there
    assert 50 < left <= 60
    assert json.loads(shop.run(LEFT)) == [[1, "two"], ["shop:3:own"]]


def test_a_cache_without_its_table_fails_until_django_has_made_it(shop):
    assert shop.asked().passes
    quoted = {"mariadb": "`shop cache`"}.get(shop.kind, '"shop cache"')
    shop.sql(f"DROP TABLE {quoted}")
    told = shop.asked()
    assert (told.status, told.reason) == ("fail", "a table is missing"), told
    shop.make_table()
    assert shop.asked().passes
