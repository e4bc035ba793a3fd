"""The package's build backend (PEP 517): one run of cargo builds the modules and the commands, and maturin makes the wheel of them.

Settings, as `--config-settings NAME=VALUE` of pip or as a variable of the environment:

    cargo         HEARTBEAT_CARGO         what cargo is told to build with, instead of `CARGO` below
    commands      HEARTBEAT_COMMANDS      a folder with the commands, built otherwise (as for musl): cargo builds the modules alone
    build-args    MATURIN_PEP517_ARGS     arguments for maturin, as `--compatibility pypi`
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import maturin

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
# What pyproject.toml calls `data`: there while a wheel is made.
DATA = HERE / "wheel-data"

# As files are named by; on an index it is `heartbeat-checker`.
DISTRIBUTION = "heartbeat_checker"
COMMANDS = {"checker": "checker", "heartbeat": "heartbeat-cli"}
CARGO = "build --locked --release"
# `_heartbeat` goes where maturin puts it, any other module of a crate below this folder beside it.
MODULE = "_heartbeat"
# What every Linux with a C library of the wheel's tag has, by PEP 600.
LIBRARIES = re.compile(r"lib(c|dl|gcc_s|m|pthread|rt)\.so\.\d|ld-linux[-\w]*\.so\.\d")
SOURCES = ["Cargo.lock", "Cargo.toml", ".cargo", "LICENSE-APACHE", "LICENSE-MIT", "README.md", "checker", "heartbeat", "shared"]
# The first of 1980, before which no wheel's clock begins.
MOMENT = int(os.environ.get("SOURCE_DATE_EPOCH", 315532800))

Settings = Mapping[str, Any]


def get_requires_for_build_wheel(config_settings: Settings | None = None) -> list[str]:
    # Rust is what whoever builds has: none is fetched.
    return []


get_requires_for_build_editable = get_requires_for_build_wheel
get_requires_for_build_sdist = get_requires_for_build_wheel


def prepare_metadata_for_build_wheel(metadata_directory: str, config_settings: Settings | None = None) -> str:
    with _data(), _maturin():
        name: str = maturin.prepare_metadata_for_build_wheel(metadata_directory, config_settings)
        return name


prepare_metadata_for_build_editable = prepare_metadata_for_build_wheel


def build_wheel(wheel_directory: str, config_settings: Settings | None = None, metadata_directory: str | None = None) -> str:
    return _build(maturin.build_wheel, wheel_directory, config_settings, metadata_directory)


def build_editable(wheel_directory: str, config_settings: Settings | None = None, metadata_directory: str | None = None) -> str:
    return _build(maturin.build_editable, wheel_directory, config_settings, metadata_directory)


def _build(make: Any, wheel_directory: str, config_settings: Settings | None, metadata_directory: str | None) -> str:
    wheel_directory = os.path.abspath(wheel_directory)
    settings = config_settings or {}
    commands = settings.get("commands", os.environ.get("HEARTBEAT_COMMANDS"))
    artifacts = _cargo_build(settings.get("cargo", os.environ.get("HEARTBEAT_CARGO", CARGO)), not commands)
    with tempfile.TemporaryDirectory(prefix="heartbeat-wheel-") as folder, _data() as data:
        said = []
        for artifact in artifacts:
            name, kinds = artifact["target"]["name"], artifact["target"]["kind"]
            crate = Path(artifact["manifest_path"]).parent
            if kinds == ["cdylib"] and crate.is_relative_to(HERE):
                if name == MODULE:
                    module = _stripped(artifact["filenames"][0], Path(folder) / f"lib{name}.so")
                    said.append({**artifact, "filenames": [str(module)]})
                else:
                    # Of an editable wheel, this folder is where the package is.
                    package = HERE if make is maturin.build_editable else data / "platlib"
                    _stripped(artifact["filenames"][0], package / "heartbeat" / f"{name}.abi3.so")
            elif kinds == ["bin"] and name in COMMANDS and not commands:
                _stripped(artifact["executable"], data / "scripts" / name)
        for name in COMMANDS if commands else ():
            (data / "scripts").mkdir(exist_ok=True)
            shutil.copy2(Path(commands, name), data / "scripts" / name)
        with _maturin(said):
            wheel: str = make(wheel_directory, config_settings, metadata_directory)
    try:
        audit(Path(wheel_directory, wheel))
    except SystemExit:
        Path(wheel_directory, wheel).unlink()
        raise
    return wheel


def audit(wheel: Path) -> None:
    """Ends the build where a file in the wheel needs more of a machine than the wheel's tag says. maturin looks at the one module that it is told of."""
    tags = wheel.stem.rpartition("-")[2].split(".")
    if all(tag.startswith("linux_") for tag in tags):
        # It is for the machine that has built it, and says so.
        return
    # A musl's tag promises no glibc at all.
    glibc = min([tuple(map(int, found)) for tag in tags for found in re.findall(r"^manylinux_(\d+)_(\d+)_", tag)], default=(0, 0))
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory(prefix="heartbeat-audit-") as folder:
        for name in archive.namelist():
            with archive.open(name) as file:
                if file.read(4) != b"\x7fELF":
                    continue
            path = archive.extract(name, folder)
            read = subprocess.run(["readelf", "--wide", "--dynamic", "--version-info", path], stdout=subprocess.PIPE, text=True, check=True).stdout
            needs = max((tuple(map(int, found)) for found in re.findall(r"\bGLIBC_(\d+)\.(\d+)", read)), default=(0, 0))
            if needs > glibc:
                raise SystemExit(f"{name} needs glibc {needs[0]}.{needs[1]}, which the wheel's tag does not ask for: {'.'.join(tags)}")
            others = [library for library in re.findall(r"\(NEEDED\).*\[(.+)\]", read) if not LIBRARIES.fullmatch(library)]
            if others:
                raise SystemExit(f"{name} needs {', '.join(others)}, which the wheel's tag does not ask for: {'.'.join(tags)}")


def _cargo_build(arguments: str, with_commands: bool) -> list[dict[str, Any]]:
    """Runs cargo once for all; gives what it has built."""
    words = shlex.split(arguments)
    if "--workspace" not in words:
        crates = [_name(manifest) for manifest in (HERE / "Cargo.toml", *HERE.glob("*/Cargo.toml"))]
        crates += COMMANDS.values() if with_commands else ()
        words += [word for crate in crates for word in ("--package", crate)]
    command = [_cargo(), *words, "--message-format", "json-render-diagnostics"]
    print("Running", shlex.join(command), flush=True)
    # There, because cargo reads .cargo/config.toml above the folder that it is run in.
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"cargo could not build the package: exit status {done.returncode}")
    messages = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return [message for message in messages if message["reason"] == "compiler-artifact" and not message["profile"]["test"]]


def _name(manifest: Path) -> str:
    return next(line for line in manifest.read_text().splitlines() if line.startswith("name = ")).split('"')[1]


def _cargo() -> str:
    cargo = os.environ.get("CARGO") or shutil.which("cargo")
    if not cargo:
        raise SystemExit("heartbeat is built with Rust, and there is no cargo on PATH: https://rustup.rs, or install a wheel")
    return cargo


def _stripped(built: str, to: Path) -> Path:
    to.parent.mkdir(parents=True, exist_ok=True)
    # It comes with the linker that has just been used.
    subprocess.run(["strip", "--strip-unneeded", "-o", to, built], check=True)
    return to


@contextlib.contextmanager
def _data() -> Iterator[Path]:
    with open(HERE / "pyproject.toml", "rb") as lock:
        # Two builds of one tree come one after the other.
        fcntl.flock(lock, fcntl.LOCK_EX)
        shutil.rmtree(DATA, ignore_errors=True)
        DATA.mkdir()
        try:
            yield DATA
        finally:
            shutil.rmtree(DATA)


@contextlib.contextmanager
def _maturin(said: list[dict[str, Any]] | None = None) -> Iterator[None]:
    """Where and how maturin is called. It asks cargo to build, and is told what cargo has built already: a build of the one
    crate alone would be another set of features, and most of all crates once more."""
    before, variables, cargo = Path.cwd(), dict(os.environ), _cargo()
    with tempfile.TemporaryDirectory(prefix="heartbeat-cargo-") as folder:
        messages, answer = Path(folder, "messages"), Path(folder, "cargo")
        messages.write_text("".join(json.dumps(message) + "\n" for message in said or ()))
        case = f'if [ "$1" = rustc ]; then exec cat {shlex.quote(str(messages))}; fi'
        answer.write_text(f'#!/bin/sh\n{case}\nexec {shlex.quote(cargo)} "$@"\n')
        answer.chmod(0o755)
        os.environ.update(CARGO=str(answer), MATURIN_NO_INSTALL_RUST="1")
        os.chdir(HERE)
        try:
            yield
        finally:
            os.chdir(before)
            os.environ.clear()
            os.environ.update(variables)


def build_sdist(sdist_directory: str, config_settings: Settings | None = None) -> str:
    """The part of the repository that a wheel is built from, as it lies there; only pyproject.toml is at its root too."""
    with tempfile.TemporaryDirectory(prefix="heartbeat-sdist-") as folder:
        metadata = Path(folder, prepare_metadata_for_build_wheel(folder), "METADATA").read_bytes()
    version = next(line for line in metadata.decode().splitlines() if line.startswith("Version: ")).partition(" ")[2]
    name = f"{DISTRIBUTION}-{version}"
    project = (HERE / "pyproject.toml").read_text().replace('backend-path = ["."]', 'backend-path = ["heartbeat/python"]')
    # The same bytes whoever makes it, and whenever.
    file = gzip.GzipFile(Path(sdist_directory, f"{name}.tar.gz"), "wb", mtime=MOMENT)
    with file, tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT, dereference=True) as archive:
        for path in _sources():
            archive.add(ROOT / path, f"{name}/{path}", recursive=False, filter=_nobodys)
        for path, content in {"PKG-INFO": metadata, "pyproject.toml": project.encode()}.items():
            entry = tarfile.TarInfo(f"{name}/{path}")
            entry.size = len(content)
            archive.addfile(_nobodys(entry), io.BytesIO(content))
    return f"{name}.tar.gz"


def _sources() -> list[str]:
    """What git knows, and in an unpacked source distribution everything."""
    if (ROOT / ".git").exists():
        listed = subprocess.run(["git", "ls-files", "-z", "--", *SOURCES], cwd=ROOT, stdout=subprocess.PIPE, check=True)
        return sorted(path for path in listed.stdout.decode().split("\0") if (ROOT / path).is_file())
    below = [path for source in SOURCES for path in (ROOT / source, *(ROOT / source).rglob("*"))]
    return sorted(str(path.relative_to(ROOT)) for path in below if path.is_file() and "__pycache__" not in path.parts)


def _nobodys(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mtime = MOMENT
    entry.mode = 0o755 if entry.mode & 0o100 else 0o644
    return entry
