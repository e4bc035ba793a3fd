"""What a site has already told Django of its dependencies, as settings of the checker's kinds.

A check that says where its dependency is (`url`, `broker`, …) is left as it is. No value is part of what goes wrong here.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Mapping
from typing import Any, Callable
from urllib.parse import quote, urlencode, urlsplit

from django.apps import apps
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS, connections, router

Settings = dict[str, Any]

# Where MySQL's clients look for the server's Unix socket: as Debian, Red Hat and MySQL itself build them.
MYSQL_SOCKETS = ("/run/mysqld/mysqld.sock", "/var/lib/mysql/mysql.sock", "/tmp/mysql.sock")


class Unturned(Exception):
    """What Django was told cannot be told the checker."""

    def __init__(self, what: str, hint: str | None = None) -> None:
        super().__init__(what)
        self.hint = hint


def complete(check: Mapping[str, Any]) -> Settings:
    """The check with what Django knows of its dependency."""
    check = dict(check)
    own = OF_KIND.get(str(check.get("type")))
    return own(check) if own else check


def database(check: Settings) -> Settings:
    alias = check.pop("alias", DEFAULT_DB_ALIAS)
    check.setdefault("url", None)
    check["url"] = check["url"] or database_url(alias)
    return check


def migrations(check: Settings) -> Settings:
    check = database(check)
    check.setdefault("tool", "django")
    if check["tool"] == "django" and not {"apps", "folders", "expected"} & check.keys():
        check["apps"] = migration_folders()
    return check


def migration_folders() -> dict[str, str]:
    """Where each app's migrations are, by its label, as Django's own loader finds them; nothing of them is imported."""
    from django.db.migrations.loader import MigrationLoader

    folders = {}
    for app in apps.get_app_configs():
        name, explicit = MigrationLoader.migrations_module(app.label)
        if name is None:
            continue
        try:
            spec = importlib.util.find_spec(name)
        except ImportError:
            spec = None
        if spec is not None and spec.submodule_search_locations:
            folders[app.label] = next(iter(spec.submodule_search_locations))
        elif explicit:
            raise Unturned(f'MIGRATION_MODULES["{app.label}"] is no package')
    if not folders:
        raise Unturned("no app of this site has migrations")
    return folders


def database_url(alias: str) -> str:
    known = connections.settings
    if alias not in known:
        raise Unturned(f'there is no DATABASES["{alias}"]')
    given, place = known[alias], f'DATABASES["{alias}"]'
    engine = str(given.get("ENGINE", "")).rpartition(".")[2]
    own = {
        "postgresql": postgresql_url,
        "postgresql_psycopg2": postgresql_url,
        "postgis": postgresql_url,
        "mysql": mysql_url,
        "sqlite3": sqlite_url,
        "spatialite": sqlite_url,
    }.get(engine)
    if own is None:
        raise Unturned(f"{place} is no PostgreSQL, MySQL or SQLite", "Give the check a `url`, or leave it out.")
    return own(given, place)


def postgresql_url(given: Mapping[str, Any], place: str) -> str:
    options = given.get("OPTIONS") or {}
    for name in ("service", "passfile"):
        if name in options:
            raise Unturned(f'{place}["OPTIONS"]["{name}"] stands for a file that only libpq reads', "Give the check a `url`.")
    parameters = {name: options[name] for name in ("sslmode", "sslrootcert", "sslcert", "sslkey") if options.get(name)}
    search_path = search_path_of(str(options.get("options") or ""))
    if search_path:
        parameters["options[search_path]"] = search_path
    host = str(given.get("HOST") or "")
    if not host or host.startswith("/"):
        # A URL with a user must have a host; the parameter has the last word.
        parameters["host"] = host or "/var/run/postgresql"
        host = "localhost"
    return server_url("postgresql", given, host, given.get("NAME") or "postgres", parameters)


def search_path_of(options: str) -> str | None:
    """The schemas that `-c search_path=…` asks for, which decide which table of migrations is meant."""
    for part in options.replace("-c ", "-c").split():
        name, _, path = part.removeprefix("-c").removeprefix("--").partition("=")
        if name == "search_path":
            return path
    return None


def mysql_url(given: Mapping[str, Any], place: str) -> str:
    options = given.get("OPTIONS") or {}
    if "read_default_file" in options:
        raise Unturned(f'{place}["OPTIONS"]["read_default_file"] is a file that only MySQL\'s own client reads', "Give the check a `url`.")
    tls = options.get("ssl") or {}
    parameters = {f"ssl-{name}": tls[name] for name in ("ca", "cert", "key") if isinstance(tls, Mapping) and tls.get(name)}
    mode = options.get("ssl_mode") or ("VERIFY_CA" if "ssl-ca" in parameters else None)
    if mode:
        parameters["ssl-mode"] = mode
    host = str(given.get("HOST") or "localhost")
    if host.startswith("/"):
        parameters["socket"] = host
        host = "localhost"
    elif socket := mysql_socket(host, options):
        parameters["socket"] = socket
    return server_url("mysql", given, host, given.get("NAME") or "", parameters)


def mysql_socket(host: str, options: Mapping[str, Any]) -> str | None:
    """The Unix socket that Django's driver asks: to MySQL's own client `localhost` is no name of a host, to PyMySQL it is one."""
    told = options.get("unix_socket")
    if driver_of_mysql() == "pymysql":
        return told and os.fspath(told)
    if host != "localhost":
        return None
    told = told or os.environ.get("MYSQL_UNIX_PORT") or next(filter(os.path.exists, MYSQL_SOCKETS), MYSQL_SOCKETS[0])
    return os.fspath(told)


def driver_of_mysql() -> str:
    try:
        import MySQLdb
    except ImportError:
        # Nor can Django ask anything then.
        return "MySQLdb"
    return str(MySQLdb.__name__)


def server_url(scheme: str, given: Mapping[str, Any], host: str, name: Any, parameters: Mapping[str, Any]) -> str:
    user, password = str(given.get("USER") or ""), str(given.get("PASSWORD") or "")
    port = str(given.get("PORT") or "")
    login = f"{quote(user, safe='')}:{quote(password, safe='')}" if password else quote(user, safe="")
    url = f"{scheme}://{login + '@' if login else ''}{bracketed(host)}{':' + port if port else ''}/{quote(str(name), safe='')}"
    return f"{url}?{urlencode(parameters)}" if parameters else url


def bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def sqlite_url(given: Mapping[str, Any], place: str) -> str:
    name = os.fspath(given.get("NAME") or "")
    if not name or name == ":memory:" or name.startswith("file:"):
        raise Unturned(f"{place} is in the memory of a process, or named by a URI: nobody else can ask it")
    return f"sqlite://{quote(os.path.abspath(name))}"


def cache(check: Settings) -> Settings:
    alias = check.pop("alias", "default")
    if check.get("url"):
        return check
    given, place = django_cache(alias)
    backend = str(given.get("BACKEND", ""))
    if backend.endswith(".db.DatabaseCache"):
        table = str(given.get("LOCATION", ""))
        check.update(url=cache_database_url(table), table=table, **cache_keys(given))
    elif "redis" in backend.lower():
        check["url"] = redis_cache_url(given, place)
    elif backend.endswith((".memcached.PyMemcacheCache", ".memcached.PyLibMCCache")):
        check["url"] = memcached_url(locations(given)[0])
    else:
        raise Unturned(
            f"{place} is each process's own, or a kind of cache that the checker does not know",
            "Leave the check out: a cache within the process, in a file or of no use has nothing to ask; or give it a `url`.",
        )
    return check


def django_cache(alias: str) -> tuple[Mapping[str, Any], str]:
    known = settings.CACHES
    if alias not in known:
        raise Unturned(f'there is no CACHES["{alias}"]')
    return known[alias], f'CACHES["{alias}"]'


def locations(given: Mapping[str, Any]) -> list[str]:
    location = given.get("LOCATION") or ""
    parts = location.replace(";", ",").split(",") if isinstance(location, str) else list(location)
    return [str(part).strip() for part in parts] or [""]


def redis_cache_url(given: Mapping[str, Any], place: str) -> str:
    first = locations(given)[0]
    if not first:
        raise Unturned(f'{place}["LOCATION"] names no Redis')
    options = {key.lower(): option for key, option in (given.get("OPTIONS") or {}).items()}
    url = urlsplit(first if "://" in first else f"redis://{first}")
    password, user, number = options.get("password"), options.get("username"), options.get("db")
    login, at, host = url.netloc.rpartition("@")
    if password and not at:
        login, at = f"{quote(str(user or ''), safe='')}:{quote(str(password), safe='')}", "@"
    path = f"/{number}" if number is not None and url.scheme != "unix" and url.path in ("", "/") else url.path
    return url._replace(netloc=f"{login}{at}{host}", path=path).geturl()


def memcached_url(location: str) -> str:
    path = location[5:] if location.startswith("unix:") else location
    if path.startswith("/"):
        return f"memcached+unix://{quote(path)}"
    if not path:
        raise Unturned("the cache names no memcached")
    return f"memcached://{path}"


def cache_database_url(table: str) -> str:
    # The model that Django's own cache asks the routers for is nobody's: what answers for all models answers for it.
    from django.core.cache.backends.db import Options

    class CacheEntry:
        _meta = Options(table)

    return database_url(router.db_for_read(CacheEntry) or DEFAULT_DB_ALIAS)


def cache_keys(given: Mapping[str, Any]) -> Settings:
    return {"key_prefix": given.get("KEY_PREFIX") or None, "version": given.get("VERSION")}


def redis(check: Settings) -> Settings:
    if not check.get("url"):
        check["url"] = required("REDIS_URL")
    return check


def rabbitmq(check: Settings) -> Settings:
    if not check.get("url"):
        given = getattr(settings, "BROKER_URL", None) or getattr(settings, "CELERY_BROKER_URL", None)
        if not given:
            raise Unturned("neither BROKER_URL nor CELERY_BROKER_URL is set", "Give the check a `url`.")
        check["url"] = amqp(first_of(given))
    return check


def first_of(brokers: Any) -> str:
    """Of several brokers the first, as a list of them or with `;` between. Those of Sentinels belong together."""
    first = brokers if isinstance(brokers, str) else str(next(iter(brokers), ""))
    return first if first.startswith("sentinel") else re.split(r";(?=[a-z+]+://)", first)[0]


def amqp(url: str) -> str:
    for scheme, standard in (("pyamqp://", "amqp://"), ("librabbitmq://", "amqp://")):
        if url.startswith(scheme):
            return standard + url[len(scheme) :]
    return url


def celery(check: Settings) -> Settings:
    """Celery's own settings, by the namespace that most sites give them."""
    namespace = check.pop("namespace", "CELERY")

    def told(name: str) -> Any:
        return getattr(settings, f"{namespace}_{name}" if namespace else name, None)

    if not check.get("broker"):
        broker = told("BROKER_URL")
        if not broker:
            raise Unturned(f"{namespace}_BROKER_URL is not set", "Give the check a `broker`, or a `namespace`.")
        check["broker"] = amqp(first_of(broker))
        options = told("BROKER_TRANSPORT_OPTIONS") or {}
        check.setdefault("master_name", options.get("master_name"))
        check.setdefault("key_prefix", options.get("global_keyprefix"))
        check.setdefault("exchange", told("CONTROL_EXCHANGE"))
    backend = told("RESULT_BACKEND")
    if backend and "result_backend" not in check:
        check.update(celery_results(str(backend), told("RESULT_BACKEND_TRANSPORT_OPTIONS") or {}))
    return check


def celery_results(backend: str, options: Mapping[str, Any]) -> Settings:
    if backend == "django-db":
        return {"result_backend": f"db+{database_url(DEFAULT_DB_ALIAS)}", "result_table": "django_celery_results_taskresult"}
    if backend.startswith(("redis", "rediss", "sentinel", "db+")):
        return {"result_backend": backend, "result_key_prefix": options.get("global_keyprefix")}
    # What keeps nothing that could be asked: `rpc://`, a cache, no backend at all.
    return {}


def django_q(check: Settings) -> Settings:
    given = getattr(settings, "Q_CLUSTER", None) or {}
    check.setdefault("cluster", given.get("name", "default"))
    check.setdefault("secret_key", settings.SECRET_KEY)
    if check.get("redis") or check.get("cache"):
        return check
    # As Django-Q finds its broker. Redis keeps the stats itself; beside any other one they are in the cache.
    if not any(given.get(name) for name in ("broker_class", "iron_mq", "sqs", "orm", "mongo")):
        named = given.get("django_redis")
        check["redis"] = redis_cache_url(*django_cache(named)) if named else django_q_redis(given.get("redis") or {})
        return check
    cache_of_it, place = django_cache(given.get("cache", "default"))
    backend = str(cache_of_it.get("BACKEND", ""))
    keys = {f"cache_{name.replace('key_', '')}": value for name, value in cache_keys(cache_of_it).items()}
    if backend.endswith(".db.DatabaseCache"):
        table = str(cache_of_it.get("LOCATION", ""))
        check.update(cache=cache_database_url(table), cache_table=table, **keys)
    elif "redis" in backend.lower():
        check.update(cache=redis_cache_url(cache_of_it, place), **keys)
    else:
        raise Unturned(
            f"Django-Q keeps its stats in {place}, which nobody outside of its process can read",
            'Set Q_CLUSTER["cache"] to a cache in Redis or in the database.',
        )
    return check


def django_q_redis(given: Any) -> str:
    if isinstance(given, str):
        return given
    host, port, number = given.get("host", "localhost"), given.get("port", 6379), given.get("db", 0)
    if given.get("unix_socket_path"):
        return f"unix://{given['unix_socket_path']}?db={number}"
    user, password = given.get("username") or "", given.get("password") or ""
    login = f"{quote(user, safe='')}:{quote(password, safe='')}@" if password else ""
    return f"{'rediss' if given.get('ssl') else 'redis'}://{login}{bracketed(host)}:{port}/{number}"


def storage(check: Settings) -> Settings:
    alias = check.pop("alias", "default")
    if check.get("url"):
        return check
    check.setdefault("mode", "write")
    known = getattr(settings, "STORAGES", None) or {}
    if alias not in known:
        raise Unturned(f'there is no STORAGES["{alias}"]')
    backend, options = str(known[alias].get("BACKEND", "")), known[alias].get("OPTIONS") or {}
    if backend.endswith("FileSystemStorage"):
        folder = options.get("location") or settings.MEDIA_ROOT
        check["url"] = f"file://{quote(os.path.abspath(os.fspath(folder)))}"
    elif backend.startswith("storages.backends.s3"):
        check.update(s3(options, f'STORAGES["{alias}"]'), **{key: check[key] for key in check if key != "url"})
        location = str(options.get("location") or getattr(settings, "AWS_LOCATION", None) or "").strip("/")
        if location:
            # The site's own names are all below it, and perhaps its rights.
            if check["mode"] == "write":
                check["prefix"] = f"{location}/{check.get('prefix') or 'checker'}"
            elif check.get("path"):
                check["path"] = f"{location}/{check['path']}"
    else:
        raise Unturned(
            f'STORAGES["{alias}"] is neither a folder nor S3',
            "Give the check a `url`: shared/README.md tells those of Azure and Google Cloud.",
        )
    return check


def s3(options: Mapping[str, Any], place: str) -> Settings:
    """As django-storages reads its options, else its settings."""

    def told(name: str) -> Any:
        return options.get(name) or getattr(settings, f"AWS_{name.upper()}", None) or getattr(settings, f"AWS_S3_{name.upper()}", None)

    bucket = options.get("bucket_name") or getattr(settings, "AWS_STORAGE_BUCKET_NAME", None)
    if not bucket:
        raise Unturned(f"{place} names no bucket")
    key, secret = told("access_key") or told("access_key_id"), told("secret_key") or told("secret_access_key")
    return {"url": f"s3://{bucket}", "endpoint": told("endpoint_url"), "region": told("region_name"), "account": key, "secret": secret}


def mail(check: Settings) -> Settings:
    if check.get("url"):
        return check
    if not str(settings.EMAIL_BACKEND).endswith("smtp.EmailBackend"):
        raise Unturned("EMAIL_BACKEND sends no mail over SMTP", "Give the check a `url`, or leave it out.")
    user, password = settings.EMAIL_HOST_USER or "", settings.EMAIL_HOST_PASSWORD or ""
    login = f"{quote(user, safe='')}:{quote(password, safe='')}@" if user else ""
    scheme = "smtps" if settings.EMAIL_USE_SSL else "smtp"
    check["url"] = f"{scheme}://{login}{bracketed(settings.EMAIL_HOST)}:{settings.EMAIL_PORT}"
    if scheme == "smtp":
        check.setdefault("encryption", "starttls" if settings.EMAIL_USE_TLS else "none")
    return check


def required(name: str) -> str:
    given = getattr(settings, name, None)
    if not given:
        raise Unturned(f"{name} is not set", "Set it, or give the check a `url`.")
    return str(given)


OF_KIND: Mapping[str, Callable[[Settings], Settings]] = {
    "cache": cache,
    "celery": celery,
    "database": database,
    "django-q": django_q,
    "mail": mail,
    "migrations": migrations,
    "rabbitmq": rabbitmq,
    "redis": redis,
    "storage": storage,
}

# What a setting of Django's that is read here may itself raise.
WRONG: tuple[type[Exception], ...] = (AttributeError, ImproperlyConfigured, KeyError, TypeError, ValueError)
