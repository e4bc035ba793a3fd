"""The image for 64-bit ARM, of executables that are built for it, run by QEMU in the place of such a machine."""

import json
import os
import subprocess
from pathlib import Path

import pytest

import harness
from containers import BEATS, IMAGE, SHIPPED, Container
from harness import until

# One process builds the images, and runs these.
pytestmark = [
    pytest.mark.xdist_group("images"),
    pytest.mark.skipif(not SHIPPED, reason="it is built for minutes: tests/run images"),
]

TARGET = "aarch64-unknown-linux-musl"
QEMU = "/usr/bin/qemu-aarch64-static"
BINFMT = Path("/usr/lib/binfmt.d/qemu-aarch64.conf")


@pytest.fixture(scope="module")
def built():
    """Where the two are; without them, these tests have not run."""
    folder = SHIPPED / TARGET / "dist"
    assert (folder / "checker").exists() and (folder / "heartbeat").exists(), f"{folder} has no executables: cargo dist-arm64"
    return folder


def qemu(*words):
    return [QEMU, *words]


def test_the_executables_are_static_and_for_arm(built):
    for program in ("checker", "heartbeat"):
        command = ["readelf", "--wide", "--file-header", "--program-headers", built / program]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert "Machine:                           AArch64" in told
        assert "Type:                              EXEC" in told, "it stands at a fixed address"
        assert "INTERP" not in told and "DYNAMIC" not in told, program


def test_a_probe_for_arm_judges_what_a_heartbeat_for_arm_writes(start, built, tmp_path):
    """Either alone too: a record is the same on any machine."""
    beat = tmp_path / "beat"
    wrapper = start(harness.Program, qemu(built / "heartbeat", "run", "--file", beat, "--promise", "3s", "--", "sleep", "600"))

    def passes(*command):
        words = [*command, "worker", "--file", beat]
        done = subprocess.run(words, env=harness.environment(), capture_output=True, text=True, timeout=60, check=False)
        return done.returncode == 0, done.stdout + done.stderr

    for command in (qemu(built / "checker"), [harness.CHECKER]):
        until(lambda: passes(*command)[0], timeout=30, what=f"{command} passes")
    wrapper.end()
    for command in (qemu(built / "checker"), [harness.CHECKER]):
        passed, told = passes(*command)
        assert not passed and told.startswith(("gone", "silent")), told


@pytest.fixture(scope="module")
def emulated(tmp_path_factory):
    """The kernel starts programs for ARM with QEMU, until the end of these tests."""
    name = f"heartbeat-arm-{os.getpid()}"
    _, _, kind, offset, magic, mask, _, _ = BINFMT.read_text().strip().split(":")
    # F: the interpreter is opened now, and so is there in a container too.
    line = f":{name}:{kind}:{offset}:{magic}:{mask}:{QEMU}:F"
    folder = tmp_path_factory.mktemp("binfmt")
    # It stays mounted as long: the kernel forgets all formats with the last mount.
    script = 'mount -t binfmt_misc binfmt_misc "$1" && printf %s "$3" >"$1/register" && echo taken && read _ && printf %s -1 >"$1/$2"'
    holder = harness.Program(["unshare", "--mount", "sh", "-c", script, "sh", folder, name, line])
    taken = holder.next_line()
    if taken != "taken":
        holder.end()
        pytest.skip(f"the kernel takes no other formats of programs here: {taken}")
    yield
    holder.process.stdin.write("\n")
    holder.process.stdin.flush()
    assert holder.exit_status() == 0, holder.output
    holder.end()


def test_the_image_for_arm_serves_beats_is_judged_and_stops(containers, images, built, emulated, tmp_path):
    options = ["--build-arg", f"TARGET={TARGET}", "--platform", "linux/arm64"]
    name = containers.build("localhost/checker-arm64", IMAGE / "Containerfile", SHIPPED, *options)
    told = containers.inspect(name)
    assert (told["Os"], told["Architecture"]) == ("linux", "arm64")
    file = tmp_path / "checker.toml"
    file.write_text('[service]\nname = "arm"\n')
    address = f"127.0.0.1:{harness.free_port()}"
    entry = ["heartbeat", "run", "--stop-timeout", "20s", "--", "checker", "serve", "--listen", address]
    mounted = [BEATS, f"--volume={file}:/etc/checker/checker.toml:ro"]
    container = Container(containers, *mounted, "--platform", "linux/arm64", "--entrypoint", json.dumps(entry), name)
    try:
        container.passes("checker", "worker", timeout=60)
        container.passes("checker", "http", f"http://{address}/healthz", timeout=60)
        containers.podman("stop", "--time", "60", container.id)
        assert container.state()["ExitCode"] == 0, container.logs()
    finally:
        container.end()
