"""Real Django sites in folders of their own, served by real servers, and their commands run as people run them."""

import http.client
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import harness

# Where the package is that these tests run with: a site finds the same one.
PACKAGE = Path(__import__("heartbeat").__file__).resolve().parent.parent

SETTINGS = """
import json
from pathlib import Path

SECRET_KEY = "not-a-real-secret-0123456789-0123456789"
ALLOWED_HOSTS = ["*"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
INSTALLED_APPS = ["django.contrib.contenttypes", "heartbeat.django"]
MIDDLEWARE = ["heartbeat.django.LivenessMiddleware", "django.middleware.common.CommonMiddleware"]
ROOT_URLCONF = "site_urls"
BASE_DIR = Path(__file__).parent
"""
URLS = """
from django.http import HttpResponse
from django.urls import include, path

urlpatterns = [
    path("healthcheck/", include("heartbeat.django.urls")),
    path("slow/<int:seconds>", lambda request, seconds: HttpResponse("slow")),
]
"""
WSGI = "from django.core.wsgi import get_wsgi_application\napplication = get_wsgi_application()\n"
ASGI = "from django.core.asgi import get_asgi_application\napplication = get_asgi_application()\n"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


@dataclass
class Done:
    code: int
    out: str
    err: str
    lines: list = field(init=False)

    def __post_init__(self):
        self.lines = self.out.splitlines()


class Site:
    """A Django project: its settings are `SETTINGS`, `settings` on top of them, and `code` behind that."""

    def __init__(self, folder, settings=None, urls=URLS, code=""):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        values = "".join(f"{name} = {value!r}\n" for name, value in (settings or {}).items())
        self.write("site_settings.py", SETTINGS + values + code)
        self.write("site_urls.py", urls)
        self.write("site_wsgi.py", WSGI)
        self.write("site_asgi.py", ASGI)

    def write(self, name, text):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def environment(self, **extra):
        path = os.pathsep.join([str(self.folder), str(PACKAGE)])
        return harness.environment(DJANGO_SETTINGS_MODULE="site_settings", PYTHONPATH=path, PYTHONDONTWRITEBYTECODE=1, **extra)

    def command(self, *arguments, timeout=60, **environment):
        """What `manage.py` answers."""
        command = [sys.executable, "-m", "django", *map(str, arguments)]
        done = subprocess.run(
            command, env=self.environment(**environment), cwd=self.folder, capture_output=True, text=True, timeout=timeout, check=False
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def python(self, code, timeout=60):
        """What Python prints in the site, once Django is set up there."""
        command = [sys.executable, "-c", f"import django\ndjango.setup()\n{code}"]
        done = subprocess.run(command, env=self.environment(), cwd=self.folder, capture_output=True, text=True, timeout=timeout, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


class Served(harness.Program):
    """A site that a server serves, on a port of its own or at a Unix socket."""

    def __init__(self, command, site, **environment):
        super().__init__([sys.executable, "-m", *command], site.environment(**environment), site.folder)

    def ask(self, path, headers=(), method="GET", timeout=30):
        """Asks over a connection of its own. Headers are pairs, and go out as they are."""
        connection = self.connection(timeout)
        try:
            connection.putrequest(method, path, skip_host=any(name == "Host" for name, _ in headers), skip_accept_encoding=True)
            for name, value in headers:
                connection.putheader(name, value)
            connection.endheaders()
            answer = connection.getresponse()
            return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def connection(self, timeout):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def answers(self):
        if self.process.poll() is not None:
            raise AssertionError(f"the server ended:\n{self.output}")
        try:
            return self.ask("/healthcheck/liveness", timeout=5).status == 200
        except OSError:
            return False

    def ready(self):
        harness.until(self.answers, timeout=60, what=f"{self.command} answers")
        return self


class Gunicorn(Served):
    def __init__(self, site, *options, **environment):
        self.port = harness.free_port()
        options = options or ("--workers", "1", "--threads", "16")
        super().__init__(["gunicorn", "--bind", f"127.0.0.1:{self.port}", "--timeout", "120", *options, "site_wsgi"], site, **environment)


class Uvicorn(Served):
    def __init__(self, site, **environment):
        self.port = harness.free_port()
        command = ["uvicorn", "--host", "127.0.0.1", "--port", str(self.port), "--lifespan", "off", "--no-proxy-headers", "site_asgi:application"]
        super().__init__(command, site, **environment)
