"""What pip installs: the wheel, on the oldest and the newest Python there is and with no Rust, and what a wheel is built from."""

import base64
import hashlib
import importlib
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import types
import zipfile
from pathlib import Path

import pytest

import harness
from blocks import blocks

PACKAGE = harness.REPOSITORY / "heartbeat" / "python"
# On an index, and in the names of files. What is imported is `heartbeat`.
DISTRIBUTION, FILES = "heartbeat-checker", "heartbeat_checker"
VERSION = re.search(r'^version = "(.+)"', (harness.REPOSITORY / "Cargo.toml").read_text(), re.MULTILINE)[1]


@pytest.fixture(scope="session")
def wheel():
    """The wheel that `tests/run python` has made."""
    if not os.environ.get("HEARTBEAT_WHEEL"):
        pytest.skip("no wheel: `tests/run python` makes one")
    return Path(os.environ["HEARTBEAT_WHEEL"])


def interpreters():
    """The oldest and the newest CPython from 3.9 on that can make an environment, each with its version."""
    names = [f"python3.{minor}" for minor in range(9, 20)]
    folders = [*map(Path, os.environ["PATH"].split(":"))]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates = [folder / name for folder in folders for name in names] + sorted(pyenv.glob("versions/3.*/bin/python"))
    candidates = [Path(sys.executable).resolve(), *candidates]
    code = "import ensurepip, sys, sysconfig, venv; assert not sysconfig.get_config_var('Py_GIL_DISABLED'); print(*sys.version_info[:2])"
    found = {}
    for candidate in candidates:
        if os.access(candidate, os.X_OK) and "shims" not in candidate.parts:
            asked = subprocess.run([candidate, "-c", code], capture_output=True, text=True, check=False, timeout=30)
            version = tuple(map(int, asked.stdout.split()))
            if asked.returncode == 0 and version >= (3, 9):
                found.setdefault(version, candidate)
    return [found[version] for version in sorted(found)]


@pytest.fixture(params=["oldest", "newest"])
def fresh(request, wheel, tmp_path):
    """The folder of the commands of a new environment, with the wheel alone in it; made where no Rust is."""
    found = interpreters()
    if len(found) < 2 and request.param == "oldest":
        pytest.skip(f"there is one Python only: {found}")
    python = found[0] if request.param == "oldest" else found[-1]
    path = "/usr/bin:/bin"
    assert shutil.which("cargo", path=path) is shutil.which("rustc", path=path) is None
    # An environment's own pip would take ten times as long to come as all the rest.
    subprocess.run([python, "-m", "venv", "--without-pip", tmp_path / "fresh"], env=harness.environment(PATH=path), check=True)
    commands = tmp_path / "fresh" / "bin"
    assert pip(commands, "install", "--quiet", "--no-index", wheel).returncode == 0
    return commands


def pip(commands, *arguments):
    """The tests' own pip, at work in another environment and with that one's Python."""
    env = harness.environment(PATH="/usr/bin:/bin", PIP_DISABLE_PIP_VERSION_CHECK=1)
    command = [sys.executable, "-m", "pip", "--python", commands / "python", *arguments]
    return subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, timeout=120, check=False)


USE = """
import os, subprocess, sys, time
before = time.perf_counter()
import heartbeat, heartbeat.aio
took = time.perf_counter() - before
assert heartbeat.__file__.startswith(sys.prefix), heartbeat.__file__
with heartbeat.Heartbeat(file="beat", interval=0.05) as beating, beating.task("x", 60):
    beating.pulse()
    subprocess.run(["checker", "worker", "--file", "beat"], check=True)
assert subprocess.run(["checker", "worker", "--file", "beat"]).returncode == 1
subprocess.run(["heartbeat", "run", "--file", "beat", "--", "checker", "worker", "--file", "beat"], check=True)
try: heartbeat.Heartbeat(cluster="{}")
except heartbeat.Error as error: assert "braces" in str(error)
try: beating.pulse_within(-1)
except ValueError: pass
child = os.fork()
if child == 0: beating.pulse(); beating.stop(); os._exit(0)
assert os.waitpid(child, 0)[1] == 0
from heartbeat import _checker
asked = _checker.Checker(text="[subsets]\\nreadiness = ['it']\\n[checks.it]\\ntype = 'command'\\ncommand = ['true']\\n")
assert asked.read()[1] == ["readiness"] and asked.answer("GET", "/readyz")[0] == 200 and asked.run("readiness")[0] == 0
print(sys.version_info[:2], round(took * 1000, 1), "ms")
"""


def test_a_wheel_in_a_fresh_environment_is_all_that_is_needed(fresh, tmp_path):
    env = {"PATH": f"{fresh}:/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [fresh / "python", "-c", USE], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)
    for command in ("checker", "heartbeat"):
        said = subprocess.run([fresh / command, "--version"], env=env, capture_output=True, text=True, check=True).stdout
        assert said.split() == [command, VERSION]
    checked = pip(fresh, "check")
    assert checked.returncode == 0, checked.stdout
    # What is taken away is all that was brought.
    assert pip(fresh, "uninstall", "--quiet", "--yes", DISTRIBUTION).returncode == 0
    left = [path for path in (tmp_path / "fresh").rglob("*") if "heartbeat" in path.name or path.name == "checker"]
    assert left == []


def test_the_wheel_holds_what_it_says_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        info, data = f"{FILES}-{VERSION}.dist-info", f"{FILES}-{VERSION}.data"
        sources = {
            str(path.relative_to(PACKAGE))
            for path in (PACKAGE / "heartbeat").rglob("*")
            if path.is_file() and path.suffix != ".so" and "__pycache__" not in path.parts
        }
        commands = {f"{data}/scripts/{command}" for command in ("checker", "heartbeat")}
        licences = {f"{info}/licenses/{name}" for name in ("LICENSE-APACHE", "LICENSE-MIT")}
        modules = {"heartbeat/_heartbeat.abi3.so"}
        modules |= {f"{data}/platlib/heartbeat/_{crate.parent.name}.abi3.so" for crate in PACKAGE.glob("*/Cargo.toml")}
        described = {f"{info}/{name}" for name in ("METADATA", "WHEEL", "RECORD")}
        others = {name for name in names if name.startswith(f"{info}/sboms/")}
        assert names == sources | commands | licences | modules | described | others
        for name in commands | modules:
            assert archive.read(name)[:4] == b"\x7fELF"
        for name in commands:
            assert stat.S_IMODE(archive.getinfo(name).external_attr >> 16) == 0o755
        for line in archive.read(f"{info}/RECORD").decode().splitlines():
            name, digest, size = line.rsplit(",", 2)
            if digest:
                content = archive.read(name)
                kind, _, expected = digest.partition("=")
                actual = base64.urlsafe_b64encode(hashlib.new(kind, content).digest()).rstrip(b"=").decode()
                assert (actual, len(content)) == (expected, int(size)), name
        metadata = archive.read(f"{info}/METADATA").decode()
        assert re.search(r"^Tag: cp39-abi3-\w+_x86_64$|^Tag: cp39-abi3-\w+$", archive.read(f"{info}/WHEEL").decode(), re.MULTILINE)
    fields = [line.partition(": ")[::2] for line in metadata.partition("\n\n")[0].splitlines()]
    assert ("Name", DISTRIBUTION) in fields and ("Version", VERSION) in fields and ("Requires-Python", ">=3.9") in fields
    assert ("License-Expression", "MIT OR Apache-2.0") in fields
    required = [value for name, value in fields if name == "Requires-Dist"]
    assert required and all("extra ==" in value for value in required)
    assert {value for name, value in fields if name == "Provides-Extra"} == {"celery", "django", "django-q"}


def test_a_tag_that_promises_more_than_any_file_keeps_is_refused(wheel, tmp_path, monkeypatch):
    """maturin looks at one module alone. The others are three files more, of which each could be built otherwise."""
    monkeypatch.syspath_prepend(PACKAGE)
    monkeypatch.setitem(sys.modules, "maturin", types.ModuleType("maturin"))
    backend = importlib.import_module("backend")
    begin = f"{FILES}-{VERSION}-cp39-abi3-"
    with zipfile.ZipFile(wheel) as archive:
        files = [name for name in archive.namelist() if name.endswith(".so") or "/scripts/" in name]
        assert len(files) == 4
        for name in files:
            # Each alone, as if all others were well.
            with zipfile.ZipFile(tmp_path / "one", "w") as one:
                one.writestr(name, archive.read(name))
            for tag in ("manylinux_2_5_x86_64.manylinux1_x86_64", "musllinux_1_2_x86_64"):
                promising = (tmp_path / "one").rename(tmp_path / f"{begin}{tag}.whl")
                with pytest.raises(SystemExit, match=re.escape(f"{name} needs glibc 2.")):
                    backend.audit(promising)
                promising.rename(tmp_path / "one")
            for tag in ("manylinux_2_99_x86_64", "linux_x86_64"):
                backend.audit((tmp_path / "one").rename(tmp_path / f"{begin}{tag}.whl"))
                (tmp_path / f"{begin}{tag}.whl").rename(tmp_path / "one")
    library = next(path for path in Path("/lib").rglob("libz.so.1"))
    gcc = ["gcc", "-shared", "-x", "c", "/dev/null", "-x", "none", "-Wl,--no-as-needed", library, "-o", tmp_path / "other.so"]
    subprocess.run(gcc, check=True)
    with zipfile.ZipFile(tmp_path / f"{begin}manylinux_2_99_x86_64.whl", "w") as one:
        one.write(tmp_path / "other.so", "heartbeat/_other.so")
    with pytest.raises(SystemExit, match=r"heartbeat/_other.so needs libz.so.1"):
        backend.audit(Path(one.filename))


def test_an_editable_install_has_all_modules(tmp_path):
    if not os.environ.get("HEARTBEAT_BUILD"):
        pytest.skip("it is not known what has been built: `tests/run python` says it")
    package = PACKAGE / "heartbeat"
    before = {path: path.rename(tmp_path / path.name) for path in package.glob("*.so")}
    try:
        code = "import sys; sys.path.insert(0, sys.argv[1]); import backend; print(backend.build_editable(sys.argv[2]))"
        env = harness.environment(PATH=f"{tool_folders()}:{os.environ['PATH']}", HEARTBEAT_CARGO=os.environ["HEARTBEAT_BUILD"])
        done = subprocess.run([sys.executable, "-c", code, PACKAGE, tmp_path], env=env, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "fresh"], check=True)
        python = tmp_path / "fresh" / "bin" / "python"
        assert pip(python.parent, "install", "--quiet", "--no-index", "--no-deps", tmp_path / done.stdout.splitlines()[-1]).returncode == 0
        code = "import heartbeat._checker, heartbeat._heartbeat as it; print(heartbeat._checker.__file__, it.__file__, heartbeat.__path__[0])"
        done = subprocess.run([python, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.stdout.split() == [str(package / "_checker.abi3.so"), str(package / "_heartbeat.abi3.so"), str(package)], done
        assert (tmp_path / "fresh" / "bin" / "checker").exists()
    finally:
        for path in package.glob("*.so"):
            path.unlink()
        for path, kept in before.items():
            kept.rename(path)


def test_no_module_needs_more_than_the_c_library(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        modules = [archive.extract(name, tmp_path) for name in archive.namelist() if name.endswith(".so")]
    for module in modules:
        needed = subprocess.run(["readelf", "-d", module], capture_output=True, text=True, check=True).stdout
        libraries = set(re.findall(r"\(NEEDED\).*\[(.+?)\]", needed))
        assert libraries <= {"libc.so.6", "libgcc_s.so.1", "libm.so.6", "libpthread.so.0", "libdl.so.2", "ld-linux-x86-64.so.2"}


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sdist")
    return make_sdist(PACKAGE, folder)


def tool_folders():
    """Where maturin is, in the environment beside, and Rust."""
    folders = [str(Path(entry).parents[2] / "bin") for entry in sys.path if entry.endswith("site-packages")]
    return ":".join(folders + ([str(Path(os.environ["CARGO"]).parent)] if "CARGO" in os.environ else []))


def make_sdist(backend, folder):
    code = "import sys; sys.path.insert(0, sys.argv[1]); import backend; print(backend.build_sdist(sys.argv[2]))"
    env = harness.environment(PATH=f"{tool_folders()}:{os.environ['PATH']}")
    done = subprocess.run([sys.executable, "-c", code, backend, folder], env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return Path(folder, done.stdout.splitlines()[-1])


def test_a_source_distribution_is_whole_and_the_same_whenever_it_is_made(sdist, tmp_path):
    with tarfile.open(sdist) as archive:
        names = archive.getnames()
        archive.extractall(tmp_path, filter="data")
    root = tmp_path / f"{FILES}-{VERSION}"
    assert {name.partition("/")[0] for name in names} == {root.name}
    assert f"Name: {DISTRIBUTION}\nVersion: {VERSION}\n" in (root / "PKG-INFO").read_text()
    assert 'backend-path = ["heartbeat/python"]' in (root / "pyproject.toml").read_text()
    # Cargo finds every crate, and every version as it is locked.
    cargo = os.environ.get("CARGO", "cargo")
    subprocess.run([cargo, "metadata", "--locked", "--offline", "--format-version", "1"], cwd=root, check=True, stdout=subprocess.DEVNULL)
    # Without git, from what was unpacked, at another time and place.
    again = make_sdist(root / "heartbeat" / "python", tmp_path)
    assert again.read_bytes() == sdist.read_bytes()


def test_without_rust_the_source_says_what_is_missing(sdist, tmp_path):
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    code = "import sys; sys.path.insert(0, sys.argv[1]); import backend; backend.build_wheel(sys.argv[2])"
    backend = tmp_path / f"{FILES}-{VERSION}" / "heartbeat" / "python"
    env = {"PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", code, backend, tmp_path], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("heartbeat is built with Rust, and there is no cargo on PATH")


def mypy(*arguments, **options):
    command = [sys.executable, "-m", "mypy", "--no-incremental", "--cache-dir", os.devnull, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, **options)


def test_the_package_passes_mypy_strict(tmp_path):
    done = mypy("--config-file", PACKAGE / "pyproject.toml", PACKAGE / "heartbeat", PACKAGE / "backend.py", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_programs_that_use_it_pass_mypy_strict_and_wrong_ones_do_not(tmp_path):
    programs = []
    for page in (PACKAGE / "README.md", PACKAGE / "django.md"):
        for block in blocks(page, page.read_text()):
            if block.language == "python":
                name = block.comment("recipe") or f"{page.stem}_{block.line}"
                programs.append(tmp_path / f"{name}.py")
                # Django's own template of settings has this one.
                given = "from pathlib import Path\n\nBASE_DIR = Path()\n" if "BASE_DIR" in block.text else ""
                programs[-1].write_text(given + block.text)
    assert {"plain", "on_asyncio", "beating_rq", "beating_dramatiq", "beating_huey"} < {program.stem for program in programs}
    assert any("LivenessProbe" in program.read_text() for program in programs)
    # Of what has no types, or types for a part of it, nothing can be said; all else is strict.
    others = ["--ignore-missing-imports", "--allow-untyped-calls", "--allow-untyped-decorators"]
    done = mypy("--strict", *others, *(program.name for program in programs), cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    wrong = ["heartbeat.Heartbeat('x')", "heartbeat.Heartbeat(file=True)", "heartbeat.Heartbeat(interval='1s')", "b.status = 'idle'"]
    wrong += ["b.task(1)", "b.task('x', 'y')", "b.pulse_within(None)", "x: int = b.status", "class A(heartbeat.Heartbeat): pass"]
    lines = ["import heartbeat", "b = heartbeat.Heartbeat(file=False)", *wrong]
    (tmp_path / "wrong.py").write_text("\n".join(lines) + "\n")
    done = mypy("--strict", "wrong.py", cwd=tmp_path)
    told = {int(line.split(":")[1]) for line in done.stdout.splitlines() if ": error: " in line}
    assert told == set(range(3, len(lines) + 1)), done.stdout


def test_the_stubs_are_true(tmp_path):
    command = [sys.executable, "-m", "mypy.stubtest", "heartbeat._heartbeat"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
