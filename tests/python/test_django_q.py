"""Real Django-Q2 clusters that beat, each broken in one way, and watched without a pause by the real checker."""

import fcntl
import json
import os
import re
import signal

import pytest

import django_q_cluster as clusters
import harness
from django_q_cluster import Site, Watched
from harness import until

REDIS, ORM = "redis", "orm"


@pytest.fixture(scope="session")
def tables(tmp_path_factory):
    """An SQLite database with all tables, made once for all who test side by side."""
    folder = tmp_path_factory.getbasetemp()
    folder = (folder.parent if os.environ.get("PYTEST_XDIST_WORKER") else folder) / "django_q"
    folder.mkdir(exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return clusters.template(folder)


@pytest.fixture
def site(start, tmp_path, tables, request):
    """Makes a site with this broker, its settings and those of its heartbeat."""

    def make(broker=REDIS, q=(), **heartbeat):
        q = dict(q)
        if broker == REDIS:
            q.setdefault("redis", request.getfixturevalue("own_broker").url)
        else:
            q |= {"orm": "default", "poll": 0.2}
        return Site(start, tmp_path, clusters.sqlite(tmp_path, tables), clusters.own_cache(), q, **heartbeat)

    return make


def told(shop, **counts):
    tasks = harness.record(shop.file)["tasks"]
    return all(tasks[key] == count for key, count in counts.items())


@pytest.mark.parametrize("broker", [REDIS, ORM])
def test_a_cluster_is_told_from_its_start_to_its_clean_end(site, broker):
    shop = site(broker, start_deadline=60)
    assert harness.verdict(shop.file).name == "missing"
    with Watched(shop.file) as watched:
        cluster = shop.cluster().running()
        watched.until("alive")
        since = watched.now()
        record = harness.record(shop.file)
        assert (record["cluster"], record["queues"], record["pid"]) == ("shop", ["shop"], cluster.sentinel)
        assert (record["status"], record["tasks"]["running"]) == ("idle", 0)

        shop.send("'django_q_site.fail', 'S3cret'", *["'django_q_site.work'"] * 20, "bound('S3cret', number=1)")
        shop.has_begun(1)
        until(lambda: told(shop, done=20, failed=1, running=1), timeout=30, what=lambda: harness.record(shop.file))
        busy = harness.record(shop.file)
        assert busy["status"] == "busy", busy
        task = busy["tasks"]
        assert task["name"] == "django_q_site.hold" and "S3cret" not in str(busy), busy
        # 60 s, the 3 s that Django-Q2 adds itself, and a tenth more.
        assert 65_000 < task["due_mono_ms"] - task["since_mono_ms"] < 73_000, busy

        cluster.terminate()
        watched.until("draining")
        shop.release()
        assert cluster.program.exit_status(30) == 0, cluster.output
        watched.until("missing")
        assert watched.told(since) == ["alive", "draining", "missing"]
    assert not shop.file.exists()


@pytest.mark.parametrize("role", ["worker", "monitor", "pusher"])
def test_a_process_that_is_frozen_is_told_by_its_name_and_django_q2_sees_nothing(site, role):
    shop = site()
    with Watched(shop.file) as watched:
        cluster = shop.cluster().running()
        watched.until("alive")
        since = watched.now()
        frozen = cluster.kill(role, signal.SIGSTOP)
        _, took = watched.until("overdue", reason=f"{role} {frozen} is stopped")
        assert 2 < took < 20, took
        assert shop.stats() == ["Idle"]
        os.kill(frozen, signal.SIGCONT)
        watched.until("alive", timeout=15)
        shop.begin("'django_q_site.work'")
        assert watched.told(since) == ["alive", "overdue", "alive"]


def test_a_worker_that_is_frozen_in_a_task_is_told_with_the_task_long_before_its_deadline(site):
    shop = site(ORM, {"timeout": 600, "retry": 900})
    with Watched(shop.file) as watched:
        cluster = shop.cluster().running()
        shop.begin("'django_q_site.hold'")
        frozen = cluster.at_work_on("django_q_site.hold")
        os.kill(frozen, signal.SIGSTOP)
        watched.until("overdue", reason=f"worker {frozen} is stopped in django_q_site.hold")
        os.kill(frozen, signal.SIGCONT)
        shop.release()
        watched.until("alive", timeout=15)
        until(lambda: told(shop, done=1), what=lambda: harness.record(shop.file))


def test_a_sentinel_that_is_frozen_is_silent_and_comes_back(site):
    shop = site()
    with Watched(shop.file) as watched:
        cluster = shop.cluster().running()
        watched.until("alive")
        since = watched.now()
        frozen = cluster.kill("sentinel", signal.SIGSTOP)
        answer, took = watched.until("silent", timeout=20)
        assert took > 3 and "its process is stopped" in answer.answer["reason"], answer
        os.kill(frozen, signal.SIGCONT)
        watched.until("alive")
        time_to_err(watched)
        assert watched.told(since) == ["alive", "silent", "alive"]


def time_to_err(watched):
    """Waits for some more answers: what is wrong after a thaw shows at once, or never."""
    asked = watched.now()
    until(lambda: watched.now() > asked + 15, timeout=30)


def test_a_sentinel_that_is_killed_is_gone_at_once_while_its_orphans_work_on(site):
    shop = site()
    with Watched(shop.file) as watched:
        cluster = shop.cluster().running()
        watched.until("alive")
        since = watched.now()
        orphan = cluster.pid("worker")
        killed = cluster.kill("sentinel")
        answer, took = watched.until("gone")
        assert took < 3 and str(killed) in answer.answer["reason"], answer
        # Who asks for the main process's end gets one without a fault.
        assert cluster.program.exit_status(20) == 0
        assert harness.process_state(orphan) in "SR"
        assert watched.told(since) == ["alive", "gone"]


def test_a_cluster_whose_main_process_is_killed_leaves_its_path_to_the_next(site):
    shop = site()
    with Watched(shop.file) as watched:
        first = shop.cluster().running()
        watched.until("alive")
        orphan = first.sentinel
        os.kill(first.main, signal.SIGKILL)
        watched.until("missing")
        assert harness.process_state(orphan) in "SR"
        since = watched.now()
        second = shop.cluster().running()
        watched.until("alive")
        assert harness.record(shop.file)["pid"] == second.sentinel
        assert watched.told(since)[-1] == "alive"
        until(lambda: "The cluster's main process is gone" in first.output, what=lambda: first.output)


def test_workers_that_are_recycled_or_killed_at_work_are_replaced_without_an_alarm(site):
    shop = site(q={"recycle": 1})
    with Watched(shop.file) as watched:
        cluster = shop.cluster().running()
        watched.until("alive")
        since = watched.now()
        shop.send(*["'django_q_site.work'"] * 8)
        until(lambda: told(shop, done=8), timeout=40, what=lambda: harness.record(shop.file))
        shop.begin("'django_q_site.work', 60, 1", number=1)
        until(lambda: told(shop, running=1), what=lambda: harness.record(shop.file))
        os.kill(cluster.at_work_on("django_q_site.work"), signal.SIGKILL)
        until(lambda: told(shop, failed=1), what=lambda: harness.record(shop.file))
        shop.begin("'django_q_site.work', 0, 2", number=2)
        assert watched.told(since) == ["alive"]


def test_a_queue_that_a_killed_worker_has_left_locked_is_told_and_django_q2_sees_nothing(site):
    shop = site(q={"workers": 1})
    with Watched(shop.file) as watched:
        cluster = shop.cluster().running()
        watched.until("alive")
        since = watched.now()
        # It was waiting for a task, so it holds the lock of the queue.
        killed = cluster.kill("worker")
        until(lambda: cluster.pids("worker") not in ([], [killed]), what="another worker")
        time_to_err(watched)
        assert watched.told(since) == ["alive"], "nothing waits yet"
        shop.send("'django_q_site.work'")
        watched.until("overdue", timeout=40, reason="workers take no tasks")
        assert shop.stats() == ["Working"]
        assert not clusters.Path(shop.folder, "begun-0").exists()


def test_results_that_nobody_takes_are_told(site):
    shop = site()
    with Watched(shop.file) as watched:
        cluster = shop.cluster().running()
        watched.until("alive")
        killed = cluster.kill("monitor")
        until(lambda: cluster.pids("monitor") not in ([], [killed]), what="another monitor")
        shop.begin("'django_q_site.work'")
        watched.until("overdue", timeout=40, reason="monitor takes no results")


def test_a_task_that_django_q2_should_have_killed_is_overdue(site):
    # Its own clock passes zero without meeting it, for it is counted down by a cycle that is no part of it.
    shop = site(q={"timeout": 2, "retry": 90, "guard_cycle": 0.7})
    with Watched(shop.file) as watched:
        shop.cluster().running()
        watched.until("alive")
        shop.begin("'django_q_site.work_deaf', 60")
        watched.until("overdue", reason="django_q_site.work_deaf")
        task = harness.record(shop.file)["tasks"]
        assert task["due_mono_ms"] - task["since_mono_ms"] > 3_000, task


def test_a_task_that_django_q2_kills_in_time_is_no_alarm(site):
    shop = site(q={"timeout": 2, "retry": 90})
    with Watched(shop.file) as watched:
        cluster = shop.cluster().running()
        watched.until("alive")
        since = watched.now()
        # One by its alarm, and one by the sentinel.
        shop.send("'django_q_site.work', 60, 1", "'django_q_site.work_deaf', 60")
        until(lambda: cluster.output.count("after timeout") == 2, timeout=30, what=lambda: cluster.output)
        until(lambda: told(shop, failed=2), what=lambda: harness.record(shop.file))
        assert watched.told(since) == ["alive"]


def test_a_task_of_a_cluster_without_a_timeout_has_the_deadline_of_the_settings_or_none(site):
    shop = site(q={"timeout": None}, task_deadline=3)
    with Watched(shop.file) as watched:
        shop.cluster().running()
        watched.until("alive")
        shop.begin("'django_q_site.work', 60, timeout=50")
        until(lambda: told(shop, running=1), what=lambda: harness.record(shop.file))
        task = harness.record(shop.file)["tasks"]
        assert 55_000 < task["due_mono_ms"] - task["since_mono_ms"] < 62_000, "the task's own timeout"
        shop.begin("'django_q_site.hold', 1", number=1)
        watched.until("overdue", reason="django_q_site.hold")
        shop.release()
        watched.until("alive")


def test_a_task_whose_module_is_slow_to_load_gets_its_deadline_later_and_is_counted_once(site):
    shop = site(q={"workers": 1})
    load = shop.folder / "load"
    code = f"import pathlib, time\nwhile not pathlib.Path({str(load)!r}).exists(): time.sleep(0.05)\nfrom django_q_site import hold\n"
    (shop.folder / "slow_to_load.py").write_text(code)
    with Watched(shop.file) as watched:
        shop.cluster(PYTHONPATH=os.pathsep.join([str(shop.folder), os.environ.get("PYTHONPATH", "")])).running()
        watched.until("alive")
        shop.send("'slow_to_load.hold'")
        until(lambda: told(shop, running=1), timeout=20, what=lambda: harness.record(shop.file))
        assert "due_mono_ms" not in harness.record(shop.file)["tasks"], "Django-Q2's clock does not run yet"
        load.touch()
        nearest = until(lambda: "due_mono_ms" in (tasks := harness.record(shop.file)["tasks"]) and tasks, timeout=20)
        assert nearest["due_mono_ms"] - nearest["since_mono_ms"] > 60_000
        shop.release()
        until(lambda: told(shop, running=0), timeout=20)
        assert told(shop, done=1, failed=0), harness.record(shop.file)


def test_a_drain_has_the_deadline_of_the_settings(site):
    shop = site(drain_deadline=2)
    with Watched(shop.file) as watched:
        cluster = shop.cluster().running()
        shop.begin("'django_q_site.work', 60")
        cluster.terminate()
        watched.until("draining")
        watched.until("drain overdue")


def test_a_guard_that_turns_no_more_is_wedged(site):
    shop = site(loop_budget=2)
    with Watched(shop.file) as watched:
        cluster = shop.cluster().running()
        watched.until("alive")
        shop.begin("'django_q_site.work', 60")
        (shop.folder / "stuck").touch()
        # It would tell of that in its log.
        cluster.kill("pusher")
        _, took = watched.until("wedged")
        assert took > 1
        since = watched.now()
        (shop.folder / "stuck").unlink()
        watched.until("alive")
        assert watched.told(since)[-1] == "alive"


def test_a_redis_that_is_gone_makes_a_cluster_cut_off_and_never_dead(site, own_broker):
    shop = site(loop_budget=2)
    with Watched(shop.file, "--for", "live") as watched:
        shop.cluster().running()
        watched.until("alive")
        since = watched.now()
        own_broker.end()
        watched.until("cut off", timeout=40)
        assert harness.verdict(shop.file, "--for", "ready").status == "fail"
        harness.Program.__init__(own_broker, own_broker.command)
        until(own_broker.answers)
        watched.until("alive", timeout=40)
        shop.begin("'django_q_site.work'")
        assert not watched.dead(since)


@pytest.mark.parametrize("client", ["with a timeout", "without a timeout"])
def test_a_redis_that_is_frozen_makes_a_cluster_cut_off_and_never_wedged(site, own_broker, client):
    timeout = 2 if client == "with a timeout" else None
    shop = site(q={"redis": {"host": "127.0.0.1", "port": own_broker.port, "socket_timeout": timeout}}, loop_budget=2)
    with Watched(shop.file, "--for", "live") as watched:
        shop.cluster().running()
        watched.until("alive")
        since = watched.now()
        own_broker.signal(signal.SIGSTOP)
        watched.until("cut off", timeout=40)
        time_to_err(watched)
        own_broker.signal(signal.SIGCONT)
        watched.until("alive", timeout=40)
        shop.begin("'django_q_site.work'")
        assert not watched.dead(since)


@pytest.mark.parametrize("fault", ["killed", "frozen"])
def test_a_database_that_is_gone_makes_a_cluster_with_its_broker_there_cut_off_and_never_dead(start, tmp_path, fault):
    server = start(harness.Postgres)
    until(server.answers, timeout=60, what="PostgreSQL answers")
    q = {"orm": "default", "poll": 0.2}
    shop = Site(start, tmp_path, server.django, clusters.table_cache(), q, loop_budget=3)
    clusters.migrate(shop)
    with Watched(shop.file, "--for", "live") as watched:
        shop.cluster().running()
        watched.until("alive")
        since = watched.now()
        # First the one that would start others; each of its processes has a session of its own.
        frozen = [server.pid] if fault == "frozen" else []
        if fault == "killed":
            server.kill()
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
            frozen += clusters.children(pid)
        watched.until("cut off", timeout=50)
        time_to_err(watched)
        if fault == "killed":
            server.restart()
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)
        watched.until("alive", timeout=50)
        shop.begin("'django_q_site.work'")
        assert not watched.dead(since)


def test_of_two_clusters_with_one_path_the_second_works_without_and_takes_it_over(site):
    shop = site()
    with Watched(shop.file) as watched:
        first = shop.cluster().running()
        watched.until("alive")
        second = shop.cluster().running()
        until(lambda: "This cluster has no heartbeat" in second.output, what=lambda: second.output)
        assert harness.record(shop.file)["pid"] == first.sentinel
        first.terminate()
        assert first.program.exit_status(20) == 0
        shop.begin("'django_q_site.work'")
        watched.until("alive", timeout=20)
        assert harness.record(shop.file)["pid"] == second.sentinel


def test_a_cluster_whose_beat_file_cannot_be_written_works(site, tmp_path):
    shop = site(file=str(tmp_path / "no such folder" / "beat"))
    shop.cluster().running()
    shop.begin("'django_q_site.work'")


def test_a_cluster_that_has_what_the_documentation_shows_starts(site, tmp_path):
    page = (harness.REPOSITORY / "heartbeat" / "python" / "README.md").read_text()
    app, settings = (
        re.search(rf"<!-- django-q: {name} -->\n```python\n(.*?)```", page, re.S)[1] for name in ("app", "settings")
    )
    shown = {}
    exec(app + settings, shown)
    assert shown["INSTALLED_APPS"] == ["django_q", "heartbeat.django_q"]
    # Nothing of it is this machine's.
    moved = json.loads(json.dumps(shown["Q_CLUSTER"]).replace("/run/shop", str(tmp_path)))
    own = site().site["q"]["redis"]
    moved["redis"] = moved["heartbeat"]["redis"] = own
    shop = site(q=moved)
    with Watched(tmp_path / "beat") as first, Watched(tmp_path / "beat-mail") as second:
        shop.cluster()
        shop.cluster(Q_CLUSTER_NAME="mail")
        first.until("alive")
        second.until("alive")
    records = [harness.record(tmp_path / name) for name in ("beat", "beat-mail")]
    assert [(record["cluster"], record["queues"]) for record in records] == [("shop", ["shop"]), ("shop", ["mail"])]
    assert ["stat" in record for record in records] == [True, False]


def test_settings_that_cannot_be_keep_a_cluster_from_starting(site):
    shop = site(promised=4)
    refused = shop.cluster().program
    assert refused.exit_status(60) == 1 and "heartbeat_django_q.E003" in refused.output, refused.output
    assert "has no setting 'promised'" in refused.output
    shop.site["q"]["heartbeat"] = "/run/beat"
    assert "heartbeat_django_q.E002" in shop.manage("check").stderr
