"""The installed libraries, each built once, and programs that are linked with them."""

from pathlib import Path

import pytest

import harness
from c_library import BUILDS, CRATE, MUSL, SANITIZED, VALGRIND, Installed, install


@pytest.fixture(scope="session")
def shipped(tmp_path_factory):
    """The library as it is shipped, without a feature."""
    prefix = tmp_path_factory.mktemp("shipped")
    install(prefix)
    return Installed(prefix)


@pytest.fixture(scope="session")
def musl(tmp_path_factory):
    """The static library for musl, whose exports panic where they are told to."""
    prefix = tmp_path_factory.mktemp("musl")
    install(prefix, f"TARGET={MUSL}", "FEATURES=panics")
    return Installed(prefix, "musl-gcc")


@pytest.fixture(scope="session")
def everything(tmp_path_factory):
    """The shared library with all features, of the workspace's own debug build."""
    prefix = tmp_path_factory.mktemp("everything")
    (prefix / "lib" / "pkgconfig").mkdir(parents=True)
    library = harness.TARGET / "debug" / "libheartbeat.so"
    # Under the name by which programs will look for it.
    for name in ("libheartbeat.so", "libheartbeat.so.0"):
        (prefix / "lib" / name).symlink_to(library)
    page = f"Name: heartbeat\nDescription: x\nVersion: 0\nCflags: -I{CRATE}\nLibs: -L{prefix}/lib -lheartbeat\n"
    (prefix / "lib" / "pkgconfig" / "heartbeat.pc").write_text(page)
    return Installed(prefix)


@pytest.fixture
def built(request, tmp_path):
    """Compiles a program in one of the ways of BUILDS; gives the words that start it."""

    def build(source, way):
        fixture, how = BUILDS[way]
        library = request.getfixturevalue(fixture)
        options = {"sanitized": SANITIZED, "musl": ["-static"]}.get(way, [])
        program = library.program(source, tmp_path / f"{Path(source).stem}-{way}", *options, **how)
        return [*VALGRIND, program] if way == "valgrind" else [program]

    return build
