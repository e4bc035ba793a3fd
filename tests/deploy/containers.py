"""Images and containers of the tests' own: Debian's buildah and podman with storage, settings and state in one folder.

In the default form the images hold the debug builds, which need glibc: a base with Debian's own libraries takes the place of
`scratch`, and all else is as in the files of deploy/image. With DEPLOY_IMAGES naming a cargo target folder, they are made of what is
shipped: the static executables, on nothing.
"""

import itertools
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import harness
from harness import REPOSITORY, environment, until

IMAGE = REPOSITORY / "deploy" / "image"
TARGET = "x86_64-unknown-linux-musl"
SHIPPED = Path(os.environ["DEPLOY_IMAGES"]).absolute() if os.environ.get("DEPLOY_IMAGES") else None
# A kubelet's and Docker's way to run them; /run/heartbeat is the one place that can be written to.
RESTRICTED = ["--read-only", "--read-only-tmpfs=false", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--network=host"]
BEATS = "--tmpfs=/run/heartbeat:rw,size=1m,mode=1777,nosuid,nodev,noexec"

NUMBERS = itertools.count()


class Containers:
    def __init__(self, folder):
        self.folder = Path(folder)
        settings = self.folder / "containers.conf"
        # Podman's own limits may be higher than this process may set.
        settings.write_text(
            '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]\n'
            '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "none"\n'
            # Where control groups are of both versions at once, crun runs nothing.
            'runtime = "runc"\n'
        )
        policy = self.folder / "policy.json"
        policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        self.env = environment(CONTAINERS_CONF=settings)
        self.storage = ["--root", self.folder / "root", "--runroot", self.folder / "runroot", "--storage-driver", "overlay"]
        self.policy = ["--signature-policy", policy]

    def command(self, program, *arguments):
        # Where no systemd runs, podman complains of the health checks' timers with every container.
        quiet = ["--log-level", "fatal"]
        return [str(part) for part in (program, *self.storage, *quiet, *arguments)]

    def run(self, program, *arguments, check=True, timeout=120):
        command = self.command(program, *arguments)
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=timeout, check=False)
        assert not check or done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def podman(self, *arguments, **keywords):
        return self.run("podman", *arguments, **keywords)

    def build(self, tag, file, context, *options):
        # Docker's format: OCI's own has no HEALTHCHECK.
        self.run("buildah", "build", *self.policy, "--format", "docker", "--pull-never", "--tag", tag, "--file", file, *options, context)
        return tag

    def inspect(self, image):
        return json.loads(self.podman("image", "inspect", image).stdout)[0]

    def end(self):
        self.podman("rm", "--all", "--force", "--time", "0", check=False)
        # Overlays are mounted below it.
        self.run("buildah", "rm", "--all", check=False)
        self.podman("rmi", "--all", "--force", check=False)


class Container:
    """One started container; its output is that of the worker within."""

    def __init__(self, containers, *arguments):
        self.containers = containers
        self.id = containers.podman("run", "--detach", *RESTRICTED, *arguments).stdout.split()[-1]

    def exec(self, *command):
        """Runs a probe as a kubelet does: a command within the container, nothing on standard input."""
        return self.containers.podman("exec", self.id, *command, check=False)

    def state(self):
        return json.loads(self.containers.podman("inspect", self.id).stdout)[0]["State"]

    def health(self):
        """What the HEALTHCHECK says now. Podman asks it from timers of systemd, which is not everywhere: so it is told to."""
        return self.containers.podman("healthcheck", "run", self.id, check=False).returncode

    def logs(self):
        done = self.containers.podman("logs", self.id, check=False)
        return done.stdout + done.stderr

    def passes(self, *command, timeout=30):
        return until(lambda: self.exec(*command).returncode == 0 or None, timeout, f"{command} passes; {self.logs()}")

    def end(self):
        self.containers.podman("rm", "--force", "--time", "0", self.id, check=False)


class Foreground(harness.Program, Container):
    """One whose standard input is the test's."""

    def __init__(self, containers, *arguments):
        self.containers = containers
        self.id = f"foreground-{next(NUMBERS)}"
        super().__init__(containers.command("podman", "run", "--name", self.id, *RESTRICTED, *arguments), containers.env)

    def end(self):
        Container.end(self)
        super().end()


def libraries(programs):
    """What a dynamic program asks for, as the linker tells it."""
    found = set()
    for program in programs:
        told = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        found |= {Path(path) for path in re.findall(r"(/\S+) \(0x", told)}
    return found


def stage(folder, programs):
    """A folder with these programs, without what only a debugger reads: they are 20 times as large with it."""
    folder.mkdir(parents=True)
    for program in programs:
        subprocess.run(["objcopy", "--strip-debug", program, folder / program.name], check=True)
    return folder


def images(containers):
    """Builds the image of deploy/image and a worker's own; gives their names."""
    folder = containers.folder
    if SHIPPED:
        base, context = "scratch", SHIPPED
        worker = harness.TARGET / TARGET / "debug" / "examples" / "worker"
        options = []
    else:
        worker = harness.CHECKER.parent / "examples" / "worker"
        context = folder / "target"
        stage(context / TARGET / "dist", [harness.CHECKER, harness.HEARTBEAT])
        base = glibc_base(containers, [harness.CHECKER, harness.HEARTBEAT, worker])
        options = ["--from", base]
    checker = containers.build("localhost/checker", IMAGE / "Containerfile", context, *options)
    own = stage(folder / "own", [worker])
    arguments = ["--build-arg", f"BASE={base}"]
    return checker, containers.build("localhost/orders-worker", IMAGE / "worker.Containerfile", own, *arguments)


def glibc_base(containers, programs):
    """An image with nothing but the libraries that these programs are linked to."""
    folder = containers.folder / "base"
    for path in libraries(programs):
        copy = folder / path.relative_to("/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    file = containers.folder / "base.Containerfile"
    file.write_text("FROM scratch\nCOPY . /\n")
    return containers.build("localhost/glibc", file, folder)
