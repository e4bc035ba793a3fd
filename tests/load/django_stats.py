"""Django-Q2's own stats, in number, and its own question about all of them: `Stat.get_all()`, timed.

    django_stats.py REDIS_URL STATS ROUNDS

A process of its own saves the stats over and over, as so many clusters' sentinels do; each lives for 3 s. For each round
it prints how long the question took, in ms, and how many stats it found.
"""

import multiprocessing
import os
import sys
import time
import uuid
from types import SimpleNamespace

from django.conf import settings

URL, STATS, ROUNDS = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
settings.configure(
    SECRET_KEY="no secret: a load test",
    USE_TZ=True,
    INSTALLED_APPS=["django_q"],
    Q_CLUSTER={"name": "load", "redis": URL, "timeout": 60, "retry": 120},
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
)

import django  # noqa: E402

django.setup()

from django.utils import timezone  # noqa: E402
from django_q.brokers import get_broker  # noqa: E402
from django_q.conf import Conf  # noqa: E402
from django_q.status import Stat  # noqa: E402


def sentinel(number, broker):
    """What `Stat` reads of a sentinel, with values as a running one has them."""
    process = lambda offset: SimpleNamespace(pid=10_000 + 10 * number + offset)  # noqa: E731
    queue = SimpleNamespace(qsize=lambda: number % 7)
    return SimpleNamespace(
        parent_pid=10_000 + 10 * number,
        pid=10_001 + 10 * number,
        cluster_id=uuid.uuid4(),
        broker=broker,
        tob=timezone.now(),
        reincarnations=number % 3,
        status=lambda: Conf.WORKING if number % 2 else Conf.IDLE,
        result_queue=queue,
        task_queue=queue,
        monitor=process(2),
        pusher=process(3),
        pool=[process(4 + worker) for worker in range(4)],
    )


def save_all(stop, saved):
    broker = get_broker()
    sentinels = [sentinel(number, broker) for number in range(STATS)]
    parent = os.getppid()
    while not stop.is_set() and os.getppid() == parent:
        begun = time.monotonic()
        for each in sentinels:
            Stat(each).save()
        saved.set()
        stop.wait(max(0.0, 0.5 - (time.monotonic() - begun)))


def main():
    stop, saved = multiprocessing.Event(), multiprocessing.Event()
    savers = multiprocessing.Process(target=save_all, args=(stop, saved), daemon=True)
    savers.start()
    if not saved.wait(60):
        sys.exit("the stats were not saved within 60 s")
    broker = get_broker()
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        stats = Stat.get_all(broker)
        print((time.perf_counter() - begun) * 1000, len(stats), flush=True)
        time.sleep(0.2)
    stop.set()
    savers.join(10)


main()
