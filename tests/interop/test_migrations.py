"""The kind of check `migrations`, whose answer is that of Django's own `migrate --check`."""

import re

import pytest

from asked import Asked
from django_shop import Shop

# The tables are the same ones: what is about files alone is asked of one database.
ON_SQLITE = pytest.mark.parametrize("database", ["sqlite"], indirect=True)
ON_MARIADB = pytest.mark.parametrize("database", ["mariadb"], indirect=True)


def agree(shop, ask, passes, *words):
    """Both say the same, and ours gives this reason."""
    theirs, told = shop.migrate_check()
    ours = ask()
    assert ours.passes == theirs == passes, f"Django: {theirs} {told}\nours: {ours}"
    for word in words:
        assert word in ours.output, ours


def test_our_answer_is_that_of_djangos_migrate_check(database, tmp_path):
    django, url = database
    shop = Shop(tmp_path / "project", django)
    ask = Asked(tmp_path, "migrations", url=url, tool="django", folders=shop.folders)
    agree(shop, ask, False, "there is no table of migrations", "auth.0001_initial", "people.0001_initial", "shop.0001_initial")
    shop.done("migrate", "people")
    agree(shop, ask, False, "1 migration is not applied", "shop.0001_initial")
    shop.done("migrate")
    agree(shop, ask, True)

    shop.fields("price")
    shop.made("shop", name="price")
    shop.fields("price", "weight")
    shop.made("shop", name="weight")
    agree(shop, ask, False, "2 migrations are not applied")
    shop.done("migrate", "shop", "0002")
    agree(shop, ask, False, "1 migration is not applied", "shop.0003_weight")
    shop.done("migrate")
    agree(shop, ask, True)

    # Squashed, and the old ones are applied.
    shop.done("squashmigrations", "shop", "0002", "--noinput")
    squashed = "0001_squashed_0002_price"
    agree(shop, ask, True)
    shop.done("migrate", "shop", "0001_initial")
    agree(shop, ask, False, "2 migrations are not applied", "shop.0002_price", "shop.0003_weight")
    shop.done("migrate")
    agree(shop, ask, True)
    shop.record(f"record_unapplied('shop', {squashed!r})")
    agree(shop, ask, True)
    shop.done("migrate")

    # The old files go, and then what the squashed one says of them.
    for old in ("0001_initial", "0002_price"):
        shop.file(old).unlink()
    agree(shop, ask, True)
    shop.record("record_unapplied('shop', '0002_price')")
    agree(shop, ask, False, "the migration files do not fit together")
    shop.record("record_unapplied('shop', '0001_initial')")
    agree(shop, ask, True)
    text = shop.file(squashed).read_text()
    shop.file(squashed).write_text(re.sub(r"    replaces = \[.*?\]\n", "", text, flags=re.S))
    agree(shop, ask, False, "the migration files do not fit together")
    text = shop.file("0003_weight").read_text()
    shop.file("0003_weight").write_text(text.replace("0002_price", squashed))
    agree(shop, ask, True)

    # A migration that was applied and is there no more, of an app that is there and of one that is not.
    shop.record("record_applied('shop', '0009_gone')")
    shop.record("record_applied('gone', '0001_initial')")
    agree(shop, ask, True)
    told = Asked(tmp_path, "migrations", url=url, tool="django", folders=shop.folders, unknown="fail")()
    assert told.reason == "1 applied migration is unknown here" and "shop.0009_gone" in told.output, told

    # One in the middle is missing in the table.
    shop.record(f"record_unapplied('shop', {squashed!r})")
    agree(shop, ask, False, "1 migration is applied before one that it depends on", "shop.0003_weight")
    shop.record(f"record_applied('shop', {squashed!r})")
    agree(shop, ask, True)


@ON_MARIADB
def test_on_mariadb_our_answer_is_that_of_djangos_migrate_check_too(database, tmp_path):
    django, url = database
    shop = Shop(tmp_path / "project", django)
    ask = Asked(tmp_path, "migrations", url=url, tool="django", folders=shop.folders)
    agree(shop, ask, False, "there is no table of migrations", "shop.0001_initial")
    shop.done("migrate", "people")
    agree(shop, ask, False, "1 migration is not applied", "shop.0001_initial")
    shop.done("migrate")
    agree(shop, ask, True)


@ON_SQLITE
def test_branches_and_merges_of_django_are_told_as_django_does(database, tmp_path):
    django, url = database
    shop = Shop(tmp_path / "project", django)
    ask = Asked(tmp_path, "migrations", url=url, tool="django", folders=shop.folders)
    shop.fields("price")
    shop.made("shop", name="price")
    price = shop.file("0002_price").read_text()
    shop.file("0002_price").unlink()
    shop.fields("weight")
    shop.made("shop", name="weight")
    shop.done("migrate")
    agree(shop, ask, True)
    shop.file("0002_price").write_text(price)
    agree(shop, ask, False, "2 migrations are the last ones of their app", "shop.0002_price, shop.0002_weight")
    # Applied by hand, they still do not fit together.
    shop.record("record_applied('shop', '0002_price')")
    agree(shop, ask, False, "2 migrations are the last ones of their app")
    shop.record("record_unapplied('shop', '0002_price')")
    shop.fields("price", "weight")
    shop.made(name="both", options=["--merge", "--noinput"])
    agree(shop, ask, False, "2 migrations are not applied", "shop.0002_price")
    shop.done("migrate")
    agree(shop, ask, True)

    # What nobody can read, Django can; what nobody can follow, neither can.
    text = shop.file("0002_price").read_text()
    shop.file("0002_price").write_text(text.replace("0001_initial", "0001_gone"))
    agree(shop, ask, False, "the migration files do not fit together")
    shop.file("0002_price").write_text(text.replace("    dependencies = [", "    OLD = []\n    dependencies = OLD + ["))
    told = ask()
    assert shop.migrate_check()[0] and told.status == "unknown", told
    assert told.reason == "a migration file cannot be understood", told


@ON_SQLITE
def test_a_new_database_with_a_squashed_migration_is_told_as_django_does(database, tmp_path):
    django, url = database
    shop = Shop(tmp_path / "project", django)
    shop.fields("price")
    shop.made("shop", name="price")
    shop.done("squashmigrations", "shop", "0002", "--noinput")
    ask = Asked(tmp_path, "migrations", url=url, tool="django", folders=shop.folders)
    agree(shop, ask, False, "squashed")
    shop.done("migrate")
    agree(shop, ask, True)


def test_the_list_that_djangos_script_makes_will_do_in_place_of_the_files(database, script, tmp_path):
    django, url = database
    shop = Shop(tmp_path / "project", django)
    shop.fields("price")
    shop.made("shop", name="price")
    shop.done("migrate", "shop", "0001")
    shop.done("squashmigrations", "shop", "0002", "--noinput")
    file = tmp_path / "expected.txt"
    file.write_text(shop.python(script("import django\n")))
    ask = Asked(tmp_path, "migrations", url=url, tool="django", expected=str(file))
    agree(shop, ask, False, "shop.0002_price")
    shop.done("migrate")
    agree(shop, ask, True)
    # The list is that of the build: the files may be elsewhere.
    shop.fields("price", "weight")
    shop.made("shop", name="weight")
    assert not shop.migrate_check()[0] and ask().passes
