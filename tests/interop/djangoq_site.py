"""Settings of a real Django site with Django-Q2, as a user has one; told by the test, in `$SITE`, what is where."""

import json
import os
import time
from pathlib import Path

SITE = json.loads(os.environ["SITE"])

if SITE["database"]["ENGINE"].endswith("mysql"):
    import pymysql

    # Django asks for a version of the driver in C that this one in Python says it is as good as.
    pymysql.version_info = (2, 2, 7, "final", 0)
    pymysql.install_as_MySQLdb()

SECRET_KEY = SITE["secret_key"]
USE_TZ = SITE.get("use_tz", True)
TIME_ZONE = SITE.get("time_zone", "UTC")
USE_I18N = True
LANGUAGE_CODE = SITE.get("language", "en")
INSTALLED_APPS = ["django_q", "health_check"]
DATABASES = {"default": SITE["database"]}
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
CACHES = {"default": SITE["cache"]}
Q_CLUSTER = {"name": "shop", "workers": 1, "timeout": 60, "retry": 90} | SITE["q"]

LOCAL, CLUSTER = (f"health_check.contrib.django_q.backends.DjangoQ{which}HealthCheck" for which in ("Local", "Cluster"))
HEALTH_CHECK = {"SUBSETS": {"local": [LOCAL], "cluster": [CLUSTER]}}


def work(begun, seconds):
    """Tells by a file that it has begun, in every language."""
    Path(begun).touch()
    time.sleep(seconds)
