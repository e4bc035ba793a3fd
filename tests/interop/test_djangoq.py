"""Real Django-Q2 clusters, judged by `checker cluster --source django-q`, beside FOJ's own check where that is wrong."""

import os
import signal
import sqlite3
import time

import pytest

import harness
from djangoq import Site, own_cache, redis_cache, table_cache
from harness import until

REDIS_BROKER = "redis broker"
REDIS_CACHE = "orm broker, redis cache"
SQLITE_CACHE = "orm broker, sqlite cache"
POSTGRES_CACHE = "orm broker, postgres cache"
MARIADB_CACHE = "orm broker, mariadb cache"
ORM = {"orm": "default", "poll": 0.2}
TABLE = ["--cache-table", "q cache"]


@pytest.fixture
def site(start, tmp_path, own_broker):
    """Makes a site that keeps its stats in the place of this name."""

    def make(place, **more):
        if place == REDIS_BROKER:
            return Site(start, tmp_path, ["--redis", own_broker.url], {"redis": own_broker.url}, **more).migrated()
        if place == REDIS_CACHE:
            source = ["--cache", own_broker.url, "--cache-prefix", "shop", "--cache-version", "3"]
            return Site(start, tmp_path, source, ORM, redis_cache(own_broker), **more).migrated()
        if place == SQLITE_CACHE:
            source = ["--cache", f"sqlite://{tmp_path}/db.sqlite3", *TABLE]
            return Site(start, tmp_path, source, ORM, table_cache(), **more).migrated()
        server = start(harness.Postgres if place == POSTGRES_CACHE else harness.MariaDb)
        until(server.answers, timeout=60, what=f"{server.command} answers")
        shop = Site(start, tmp_path, ["--cache", server.url, *TABLE], ORM, table_cache(), server.django, **more).migrated()
        shop.server = server
        return shop

    return make


def guard(cluster):
    """The process that guards the others and writes the stats: the only child of the one that was started."""
    return until(lambda: next(iter(children(cluster.pid)), None), what="the guard is there")


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]


@pytest.mark.parametrize("place", [REDIS_BROKER, REDIS_CACHE, SQLITE_CACHE, POSTGRES_CACHE, MARIADB_CACHE])
def test_wherever_its_stats_are_a_cluster_is_told_from_none_to_its_clean_end(site, place):
    shop = site(place)
    none = shop.ask()
    assert (none.status, none.code) == ("fail", 1), none
    assert "no cluster of this name" in none.told["reason"]

    cluster = shop.cluster()
    idle = shop.until_passes()
    assert (idle.verdicts, idle.told["ready"], idle.told["source"]) == (["alive"], 1, "django-q")
    assert shop.ask("--host", "self").status == "pass"
    assert shop.ask("--host", "elsewhere").status == "fail"
    assert shop.ask("--expect", idle.told["workers"][0]["worker"]).status == "pass"
    wrong = shop.ask(key="another-key-that-is-as-long-as-the-right-one-is")
    assert wrong.status == "fail" and "a signature that is wrong" in wrong.told["reason"], wrong

    shop.busy_for(6)
    cluster.signal(signal.SIGTERM)
    draining = shop.until(lambda answer: answer.verdicts == ["draining"])
    assert draining.status == "fail" and "no workers take work" in draining.told["reason"], draining
    assert shop.ask("--for", "live").status == "pass"
    assert cluster.exit_status(40) == 0, cluster.output
    stopped = shop.until_fails("--for", "live")
    assert stopped.verdicts in ([], ["stopped"]), stopped
    shop.until(lambda answer: answer.verdicts == [])


def test_one_that_stops_beside_one_that_works_fails_foj_and_not_us(site):
    shop = site(REDIS_BROKER)
    first, _ = shop.cluster(), shop.until_passes()
    shop.busy_for(15)
    shop.cluster()
    shop.until_passes("--min", "2")
    first.signal(signal.SIGTERM)
    both = shop.until(lambda answer: answer.verdicts == ["alive", "draining"])
    assert both.status == "pass", both
    words, passes = shop.foj()
    assert not passes and "Stopping" in words, words
    assert shop.ask("--min", "2").status == "fail"


@pytest.mark.parametrize("place", [REDIS_BROKER, SQLITE_CACHE])
def test_in_french_a_cluster_that_stops_passes_with_foj_and_not_with_us(site, place):
    shop = site(place, language="fr")
    cluster, _ = shop.cluster(), shop.until_passes()
    shop.busy_for(15)
    cluster.signal(signal.SIGTERM)
    answer = shop.until(lambda answer: answer.verdicts == ["draining"])
    assert answer.status == "fail", answer
    words, passes = shop.foj()
    assert passes, f"it takes no work, and FOJ is content: {words}"


def test_which_statuses_are_unhealthy_is_for_who_asks_to_say(site):
    shop = site(REDIS_BROKER)
    shop.cluster()
    shop.until_passes()
    idle = shop.ask("--unhealthy", "Idle")
    assert idle.status == "fail" and "no workers take work" in idle.told["reason"], idle
    assert shop.ask("--unhealthy", "Stopping", "--unhealthy", "Stopped").status == "pass"


def test_a_frozen_guard_is_told_by_its_name_however_long_a_cache_keeps_its_word(site):
    shop = site(SQLITE_CACHE)
    cluster, _ = shop.cluster(), shop.until_passes()
    for _ in range(5):
        os.kill(guard(cluster), signal.SIGSTOP)
        answer = shop.until(lambda answer: answer.status != "pass", "--timeout", "8s")
        if answer.status != "unknown":
            break
        # It was stopped in the middle of a write, and nobody reads past its lock.
        os.kill(guard(cluster), signal.SIGCONT)
        shop.until_passes()
    assert answer.verdicts == ["silent"] and "silent for" in answer.told["reason"], answer
    os.kill(guard(cluster), signal.SIGCONT)
    shop.until_passes()


def test_a_killed_cluster_is_told_within_what_its_stat_may_last(site):
    shop = site(REDIS_BROKER)
    cluster, _ = shop.cluster(), shop.until_passes()
    cluster.end()
    shop.until_fails(timeout=8)


def test_a_frozen_worker_process_and_a_frozen_pusher_are_alive_to_the_guard_as_the_documentation_says(site):
    shop = site(REDIS_BROKER)
    cluster, _ = shop.cluster(), shop.until_passes()
    frozen = children(guard(cluster))
    assert len(frozen) >= 3, "a worker process, the monitor and the pusher"
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    beats = [shop.ask().status for _ in range(5)]
    assert set(beats) == {"pass"}, beats


def test_a_forged_stat_counts_for_nothing_and_is_told(site, own_broker):
    import redis

    shop = site(REDIS_BROKER)
    client = redis.Redis.from_url(own_broker.url)
    key = "django_q:shop:cluster:12345678-1234-5678-1234-567812345678"
    client.set(key, "gASVAAAAAAAAAAAu:1xUR5Z:QZkPARfiAQ5V1q5vxYRM_v_34ck3Ti04ZYXKARU-KzY")
    forged = shop.ask()
    assert forged.status == "fail" and "a signature that is wrong" in forged.told["reason"], forged
    shop.cluster()
    beside = shop.until(lambda answer: answer.told["ready"] == 1)
    assert (beside.status, beside.code) == ("warn", 0), beside
    own = next(found for found in client.scan_iter("django_q:shop:cluster:*") if found != key.encode())
    client.set(key, client.get(own))
    copied = shop.ask("--min", "2")
    assert copied.status == "fail" and "at another key than its own" in copied.told["reason"], copied


def test_a_stat_that_somebody_keeps_alive_does_not_keep_its_cluster_alive(site, own_broker):
    import redis

    shop = site(REDIS_BROKER)
    cluster, _ = shop.cluster(), shop.until_passes()
    client = redis.Redis.from_url(own_broker.url)
    (key,) = client.scan_iter("django_q:shop:cluster:*")
    cluster.end()
    client.set(key, client.get(key))
    answer = shop.until_fails("--timeout", "8s")
    assert answer.verdicts == ["silent"], answer


def test_a_worker_whose_clock_is_wrong_is_alive_and_the_clock_is_told(site):
    shop = site(SQLITE_CACHE)
    shop.cluster(under=["faketime", "-f", "-1h"])
    answer = shop.until_passes("--timeout", "10s")
    assert answer.verdicts == ["alive"] and "is 60 min off" in answer.told["reason"], answer


def test_with_another_broker_and_djangos_default_cache_nobody_can_tell_of_a_running_cluster(site):
    shop = site(SQLITE_CACHE)
    shop.site["cache"] = own_cache()
    cluster = shop.cluster()
    until(lambda: "running" in cluster.output, timeout=40, what=f"the cluster runs: {cluster.output}")
    assert not shop.foj()[1]
    assert shop.ask().status == "fail"


@pytest.mark.parametrize("place", [REDIS_BROKER, REDIS_CACHE, POSTGRES_CACHE, MARIADB_CACHE])
def test_a_frozen_server_is_unknown_within_the_timeout(site, place, own_broker):
    shop = site(place)
    shop.cluster()
    shop.until_passes()
    server = own_broker if place in (REDIS_BROKER, REDIS_CACHE) else shop.server
    for pid in harness.session_members(server.pid):
        os.kill(pid, signal.SIGSTOP)
    is_unknown_in_time(shop)


def test_a_cache_in_a_sqlite_file_that_somebody_has_locked_is_unknown_within_the_timeout(site, tmp_path):
    shop = site(SQLITE_CACHE)
    shop.cluster()
    shop.until_passes()
    other = sqlite3.connect(tmp_path / "db.sqlite3", timeout=30, isolation_level=None)
    # It writes all the time.
    other.execute("BEGIN EXCLUSIVE")
    is_unknown_in_time(shop)
    other.execute("ROLLBACK")
    other.close()
    shop.until_passes()


def is_unknown_in_time(shop):
    begun = time.monotonic()
    answer = shop.ask("--timeout", "1s")
    assert time.monotonic() - begun < 1.5
    assert (answer.status, answer.code) == ("unknown", 1), answer
    assert shop.ask("--timeout", "1s", "--unknown", "pass").code == 0
