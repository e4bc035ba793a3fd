"""libheartbeat as its users have it: installed by its own Makefile, found by pkg-config, linked by the C compiler."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import harness

CRATE = harness.REPOSITORY / "heartbeat" / "c"
HEADER = CRATE / "heartbeat.h"
MUSL = "x86_64-unknown-linux-musl"
STRICT = ["-Wall", "-Wextra", "-Werror", "-pedantic"]
SANITIZED = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-g"]

# What is "possibly lost" may belong to the publisher's thread, which ends by itself a moment after its heartbeat.
VALGRIND = ["valgrind", "--quiet", "--error-exitcode=99", "--leak-check=full", "--errors-for-leak-kinds=definite,indirect"]
# In what ways a program is linked: the library, and whether it is the static one.
BUILDS = {
    "shared": ("shipped", {}),
    "static": ("shipped", {"static": True}),
    "musl": ("musl", {"static": True}),
    "sanitized": ("shipped", {}),
    "valgrind": ("shipped", {}),
}


def run(*command, env=None, timeout=120):
    """Runs a command to its end; gives what it printed. It must succeed."""
    words = [str(word) for word in command]
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, f"{words}: exit {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


@dataclass
class Installed:
    """One installed library, and how programs are linked with it."""

    prefix: Path
    compiler: str = "gcc"

    def pkg_config(self, *options):
        env = os.environ | {"PKG_CONFIG_PATH": str(self.prefix / "lib" / "pkgconfig"), "PKG_CONFIG_LIBDIR": ""}
        return run("pkg-config", *options, "heartbeat", env=env).split()

    def program(self, source, output, *options, static=False, standard="c99"):
        """Compiles a program with all warnings, and links it with the shared library, or with the static one."""
        if static:
            libraries = self.pkg_config("--variable=static")
        else:
            libraries = [*self.pkg_config("--libs"), f"-Wl,-rpath,{self.prefix / 'lib'}"]
        cflags = self.pkg_config("--cflags")
        run(self.compiler, f"-std={standard}", *STRICT, "-O1", "-o", output, source, *cflags, *options, *libraries, "-pthread")
        return output


def install(prefix, *settings):
    # Rust's own profile, target folder and all else come from the Makefile.
    command = ["make", "--silent", "-C", CRATE, "install", f"PREFIX={prefix}", *settings]
    run(*command, env=os.environ | {"CARGO_TARGET_DIR": str(harness.TARGET)}, timeout=600)
