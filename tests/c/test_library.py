"""What is installed: the header in C and C++, the symbols, the name by which it is linked, the file for pkg-config, the sizes."""

import re

import pytest

import harness
from c_library import CRATE, HEADER, STRICT, install, run
from c_header import functions

COMPILERS = [
    ("gcc", "c99", "c"),
    ("gcc", "c11", "c"),
    ("gcc", "c2x", "c"),
    ("g++", "c++11", "c++"),
    ("g++", "c++20", "c++"),
    ("musl-gcc", "c99", "c"),
]


@pytest.mark.parametrize(("compiler", "standard", "language"), COMPILERS)
def test_the_header_compiles_alone_and_twice_with_every_warning(compiler, standard, language, tmp_path):
    source = tmp_path / "source"
    call = "int main(void) { return (int)heartbeat_builder_set_no_file(heartbeat_builder_new()); }\n"
    source.write_text(f'#include "{HEADER}"\n#include "{HEADER}"\n{call}')
    run(compiler, "-x", language, f"-std={standard}", *STRICT, "-Wshadow", "-Wconversion", "-c", source, "-o", tmp_path / "object")


def test_the_shared_library_exports_what_the_header_declares_and_nothing_else(shipped):
    library = shipped.prefix / "lib" / "libheartbeat.so"
    symbols = run("nm", "-D", "--defined-only", "--format=posix", library).splitlines()
    assert {line.split()[0] for line in symbols} == {function.name for function in functions()}


def test_the_static_library_defines_what_the_header_declares(shipped):
    library = shipped.prefix / "lib" / "libheartbeat.a"
    symbols = run("nm", "--defined-only", "--extern-only", "--format=posix", library).split()
    assert {symbol for symbol in symbols if re.fullmatch(r"heartbeat(_\w+)?", symbol)} == {function.name for function in functions()}


def test_the_shared_library_needs_the_c_library_alone_and_stays_once_it_is_loaded(shipped):
    dynamic = run("readelf", "--dynamic", "--wide", shipped.prefix / "lib" / "libheartbeat.so")
    assert re.search(r"SONAME.*\[libheartbeat\.so\.0\]", dynamic)
    assert re.search(r"FLAGS_1.*NODELETE", dynamic)
    assert set(re.findall(r"NEEDED.*\[(.+?)\]", dynamic)) <= {"libc.so.6", "libgcc_s.so.1", "ld-linux-x86-64.so.2"}


def test_what_is_shipped_panics_for_no_test(shipped):
    for library in ("libheartbeat.so", "libheartbeat.a"):
        assert b"heartbeat_test_panics" not in (shipped.prefix / "lib" / library).read_bytes()


def test_a_packager_gets_everything_below_his_own_root(shipped, tmp_path):
    install("/usr", f"DESTDIR={tmp_path}", "LIBDIR=/usr/lib/somewhere")
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if not path.is_dir()}
    version = shipped.pkg_config("--modversion")[0]
    lib = "usr/lib/somewhere"
    assert found == {
        "usr/include/heartbeat.h",
        f"{lib}/libheartbeat.a",
        f"{lib}/libheartbeat.so",
        f"{lib}/libheartbeat.so.0",
        f"{lib}/libheartbeat.so.{version}",
        f"{lib}/pkgconfig/heartbeat.pc",
    }
    assert (tmp_path / lib / "libheartbeat.so").resolve().name == f"libheartbeat.so.{version}"
    assert str(tmp_path) not in (tmp_path / lib / "pkgconfig" / "heartbeat.pc").read_text()


def test_a_library_for_another_machine_is_stripped_by_that_machines_own_tool(tmp_path):
    settings = ["TARGET=aarch64-unknown-linux-gnu", "STRIP=aarch64-linux-gnu-strip", f"PREFIX={tmp_path}"]
    told = run("make", "--dry-run", "-C", CRATE, "install", *settings)
    assert re.findall(r"(?m)^(\S*strip) --strip-debug", told) == ["aarch64-linux-gnu-strip"]


def test_pkg_config_tells_what_the_compiler_wants(shipped, musl):
    native = harness.TARGET / "dist" / "heartbeat-native-static-libs"
    static = shipped.pkg_config("--static", "--libs")
    assert [word for word in native.read_text().split() if word not in static] == []
    assert "-lc" not in shipped.pkg_config("--libs")
    # gcc's own unwinder is made for glibc, so Rust's comes along.
    assert (musl.prefix / "lib" / "heartbeat" / "libunwind.a").exists() and "-lunwind" in musl.pkg_config("--static", "--libs")


def test_the_sizes_are_those_of_the_page(shipped, musl, tmp_path):
    page = (CRATE / "README.md").read_text()

    def told(what):
        return int(re.search(rf"\| {re.escape(what)}[^|]*\| (\d+) kB", page)[1])

    def size(path):
        return path.stat().st_size / 1000

    empty = tmp_path / "empty.c"
    empty.write_text("int main(void) { return 0; }\n")
    sizes = {"`libheartbeat.so`": size(shipped.prefix / "lib" / "libheartbeat.so"), "`libheartbeat.a`": size(shipped.prefix / "lib" / "libheartbeat.a")}
    worker = CRATE / "examples" / "worker.c"
    for what, library, options in (("a program with the static library", shipped, []), ("a static program, by musl", musl, ["-static"])):
        program = library.program(worker, tmp_path / "program", "-s", *options, static=True)
        without = tmp_path / "without"
        run(library.compiler, "-s", *options, empty, "-o", without)
        sizes[what] = size(program) - size(without)
    print(sizes)
    for what, kilobytes in sizes.items():
        assert 0.8 * told(what) < kilobytes <= 1.1 * told(what), sizes
