"""A real Celery application, as a user has one; told by the test, through the environment, where its broker is."""

import json
import os
import pathlib
import time

from celery import Celery

if database := os.environ.get("DJANGO_DATABASE"):
    # Results by Django's models (django-celery-results).
    import django
    from django.conf import settings
    from django.core.management import call_command

    settings.configure(DATABASES={"default": json.loads(database)}, INSTALLED_APPS=["django_celery_results"], USE_TZ=True)
    django.setup()
    call_command("migrate", verbosity=0)

broker = os.environ["BROKER_URL"]
# Over AMQP few ask for results here.
app = Celery("orders", broker=broker, backend=os.environ.get("RESULT_BACKEND", broker if broker.startswith("redis") else None))
options = {"global_keyprefix": os.environ.get("KEY_PREFIX"), "master_name": os.environ.get("MASTER_NAME")}
app.conf.update(
    control_exchange=os.environ.get("CONTROL_EXCHANGE", "celery"),
    broker_transport_options={name: value for name, value in options.items() if value},
    result_backend_transport_options={"global_keyprefix": os.environ.get("RESULT_KEY_PREFIX")},
    task_default_queue=os.environ["QUEUE"],
    task_track_started=True,
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
    broker_use_ssl=json.loads(os.environ.get("BROKER_USE_SSL", "null")),
)

if probe_file := os.environ.get("FOJ_FILE"):
    from django.conf import settings

    settings.configure(HEALTH_CHECK={"CELERY_HEARTBEAT_FILE": probe_file})

    from health_check.contrib.celery_heartbeat.bootsteps import LivenessProbe

    app.steps["worker"].add(LivenessProbe)


@app.task(name="work")
def work(seconds, mark=None):
    if mark:
        pathlib.Path(mark).touch()
    time.sleep(seconds)
    return "done"


@app.task(name="shop.ping")
def ping():
    return "pong"


@app.task(name="shop.broken")
def broken():
    raise ValueError("S3cret")
