"""Docker's own daemon, in namespaces of its own, and servers of Debian's packages in images for it: no registry can be reached."""

import contextlib
import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import harness
from harness import environment, until
from running import program

NAMESPACES = ["--mount", "--pid", "--fork", "--kill-child", "--net"]
# As Docker's socket and state are below a folder of the test's, nothing of it meets a daemon of this machine.
START = """
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs tmpfs /run
ip link set lo up
exec "$1" --data-root "$2/data" --exec-root /run/docker --pidfile /run/docker.pid --host "unix://$2/docker.sock"
"""


def refused():
    """Why there is no daemon here; None where there is."""
    if os.geteuid():
        return "only root can start one"
    if not shutil.which(program("dockerd")):
        return "there is no dockerd (Debian: docker.io)"
    return None


class Docker(harness.Program):
    def __init__(self, folder):
        self.folder = Path(folder)
        self.env = environment(DOCKER_HOST=f"unix://{folder}/docker.sock", DOCKER_CONFIG=folder, DOCKER_BUILDKIT="0")
        # The Python of the tests is another than that of Debian's docker-compose.
        self.env.pop("PYTHONPATH", None)
        super().__init__(["unshare", *NAMESPACES, "sh", "-ec", START, "sh", program("dockerd"), folder])
        until(self._answers, timeout=120, what="Docker answers")

    def _answers(self):
        assert self.process.poll() is None, self.output
        return self.run("info", check=False).returncode == 0

    def run(self, *arguments, command="docker", check=True, timeout=300, **more):
        words = [command, *(str(argument) for argument in arguments)]
        done = subprocess.run(words, env=self.env, capture_output=True, text=True, timeout=timeout, check=False, **more)
        assert not check or done.returncode == 0, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def within(self, *words, check=False):
        """A command where the daemon is: with the ports and the processes of its containers."""
        first = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()[0]
        command = ["nsenter", "--target", first, "--net", "--pid", "--mount", *words]
        return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, check=check)

    def end(self):
        with contextlib.suppress(AssertionError):
            for container in self.run("ps", "--all", "--quiet", check=False).stdout.split():
                self.run("rm", "--force", "--volumes", container, check=False)
        super().end()


# --- servers --------------------------------------------------------------------------------------------------------------------

# Users, and links that are made when a package is installed.
OF_NO_PACKAGE = ("/etc/passwd", "/etc/group", "/usr/bin/sh", "/usr/bin/awk", "/etc/alternatives/awk", "/bin", "/lib", "/lib64", "/sbin")
SHELL = ["bash", "dash", "coreutils", "grep", "sed", "mawk", "hostname"]
# Large, and no server needs them to run: a compiler for queries, translations, manuals.
WITHOUT = re.compile(r"/usr/(share/(doc|man|info|locale|i18n|lintian)/|lib/\S*(libLLVM|libz3|/llvmjit|/bitcode/))")


def packages(names):
    """These Debian packages, and all that is installed here of what they need."""
    no = [f"--no-{what}" for what in ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")]
    told = subprocess.run(["apt-cache", "depends", "--recurse", "--installed", *no, *names], capture_output=True, text=True, check=True).stdout
    return {line for line in told.splitlines() if re.match(r"\w", line)}


def root(file, servers):
    """An archive of the files of these packages and of a shell, for `docker import`."""
    told = subprocess.run(["dpkg-query", "--listfiles", *sorted(packages(servers + SHELL))], capture_output=True, text=True, check=False).stdout
    paths = set()
    for line in told.splitlines():
        path = Path(line)
        # A package may name /bin/sh where /bin leads to /usr/bin.
        path = path.parent.resolve() / path.name
        if line.startswith("/") and os.path.lexists(path) and not WITHOUT.match(str(path)):
            paths.add(path)
    paths |= {Path(path) for path in OF_NO_PACKAGE}
    with tarfile.open(file, "w") as archive:
        for path in sorted(paths):
            archive.add(path, recursive=False)


# What the official images do at their start, as far as compose.yaml counts on it.
SERVERS = {
    "redis:8": """
USER redis
WORKDIR /data
ENTRYPOINT ["redis-server", "--dir", "/data", "--bind", "0.0.0.0", "--protected-mode", "no"]
""",
    "rabbitmq:4": """
USER rabbitmq
ENV HOME=/var/lib/rabbitmq RABBITMQ_LOGS=- PATH=/usr/lib/rabbitmq/bin:/usr/bin
WORKDIR /var/lib/rabbitmq
ENTRYPOINT ["rabbitmq-server"]
""",
    "postgres:17": """
USER postgres
ENV PGDATA=/var/lib/postgresql/data PATH=POSTGRES:/usr/bin
WORKDIR /var/lib/postgresql/data
COPY start /usr/bin/start
ENTRYPOINT ["sh", "-e", "/usr/bin/start"]
""",
}
POSTGRES = """
if ! test -s "$PGDATA/PG_VERSION"; then
    printf '%s' "$POSTGRES_PASSWORD" >/tmp/password
    initdb --username "$POSTGRES_USER" --pwfile /tmp/password --auth scram-sha-256 --no-sync
    rm /tmp/password
    echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
    export PGPASSWORD=$POSTGRES_PASSWORD
    pg_ctl --wait --options "-c listen_addresses= -k /tmp" start
    createdb --host /tmp --username "$POSTGRES_USER" "$POSTGRES_USER"
    pg_ctl --wait stop
fi
exec postgres -c listen_addresses=* -k /tmp
"""
# Docker gives a new volume the owner that its folder has in the image.
OWNED = {"redis": "/data", "rabbitmq": "/var/lib/rabbitmq", "postgres": "/var/lib/postgresql/data"}


def servers(docker):
    """The images of compose.yaml that come from a registry, of this machine's own servers, whose versions are Debian's."""
    postgres = max(Path("/usr/lib/postgresql").glob("*/bin"))
    archive = docker.folder / "root.tar"
    root(archive, [f"postgresql-{postgres.parent.name}", "rabbitmq-server", "redis-server"])
    docker.run("import", archive, "debian-servers")
    archive.unlink()
    folder = docker.folder / "servers"
    folder.mkdir()
    (folder / "start").write_text(POSTGRES)
    for name, lines in SERVERS.items():
        user = name.partition(":")[0]
        owned = f"RUN mkdir -p /tmp {OWNED[user]} && chmod 1777 /tmp && chown -R {user}: {OWNED[user]} && chmod 0700 {OWNED[user]}"
        (folder / "Dockerfile").write_text(f"FROM debian-servers\n{owned}{lines.replace('POSTGRES', str(postgres))}")
        docker.run("build", "--tag", name, folder)
