"""Writes checker/probe.ld: which functions of `checker` a probe runs, so that the linker puts them beside each other.

    order.py CHECKER...

A probe's time is mostly that of the kernel, which maps 16 pages of the executable where one is touched: some 6 µs each time. Among twenty
megabytes what a probe runs lies in thirty such places, side by side in three. The programs are released ones that still have their symbols:

    cargo dist --config profile.dist.strip=false
    cargo dist --no-default-features --config profile.dist.strip=false --target-dir target/bench-local

A function that is missing in the list costs a fault and nothing else, and one that is no more costs nothing: so the list is made anew when
`tests/run bench` shows more faults than before, and not with each change.
"""

import collections
import fnmatch
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import harness
import living

MOST = 40
SCRIPT = harness.REPOSITORY / "checker" / "probe.ld"
HEAD = """\
/* What a probe runs, side by side in the executable: see tests/bench/order.py, which has written it.
   The rest is placed by the linker's own script. */
SECTIONS
{
  .text.probe : ALIGN(64K)
  {
    *crt1.o(.text) *crti.o(.text) *crtbegin*.o(.text)
    *libc.a:memcpy.lo(.text) *libc.a:memset.lo(.text) *libc.a:memmove.lo(.text) *libc.a:__set_thread_area.lo(.text) *libc.a:syscall_cp.lo(.text)
"""
TAIL = """\
  }
}
INSERT BEFORE .text;
"""


def functions(program, *words):
    """The names of what it calls, as its symbols have them: where something is inlined, of what it is inlined into."""
    with tempfile.NamedTemporaryFile() as out:
        told = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out.name}", "--demangle=no", program, *words]
        subprocess.run([str(word) for word in told], capture_output=True, timeout=300, check=False, env={"PATH": "/usr/bin:/bin"})
        found = re.findall(r"^c?fn=\(\d+\) (\S+)", Path(out.name).read_text(), re.MULTILINE)
    assert found, f"{told} calls nothing"
    return found


def pattern(name):
    """Of a function's section, without what each compilation gives it anew."""
    name = re.sub(r"'\d+$", "", name)
    if name.startswith("_ZN"):
        return re.sub(r"17h[0-9a-f]{16}E.*", "17h*", name)
    if name.startswith("_R"):
        return re.sub(r"Cs[0-9A-Za-z]+_", "Cs*_", name)
    return name


def symbols(program):
    """The names of its functions, each with all that the same place is called."""
    places = collections.defaultdict(list)
    told = subprocess.run(["nm", "--defined-only", program], capture_output=True, text=True, check=True)
    for place, kind, name in map(str.split, told.stdout.splitlines()):
        if kind in "tTwW":
            places[place].append(name)
    return {name: names for names in places.values() for name in names}


def main():
    patterns = set()
    with tempfile.TemporaryDirectory(prefix="order-") as folder:
        beat = Path(folder, "beat")
        for given in sys.argv[1:]:
            program = Path(folder, "checker")
            subprocess.run(["strip", "--strip-debug", "-o", program, given], check=True)
            for tasks in (0, 1):
                living.write(beat, tasks, seen=True)
                for words in ([], ["--for", "ready"], ["--format", "json"], ["--format", "nagios"], ["--max-age", "1ms"]):
                    patterns |= {pattern(name) for name in functions(program, "worker", "--file", beat, *words)}
            patterns |= {pattern(name) for name in functions(program, "worker", "--file", Path(folder, "none"))}
    # By its symbol; callgrind knows it as the part below main.
    patterns.add("__libc_start_main")
    names = [symbols(program) for program in sys.argv[1:]]
    patterns |= {pattern(alias) for own in names for name, aliases in own.items() if pattern(name) in patterns for alias in aliases}
    patterns = {name for name in patterns if re.fullmatch(r"[A-Za-z_][\w.$*]*", name)}
    # A few names are those of hundreds of functions, for as many types.
    kept = sorted(name for name in patterns if all(len(fnmatch.filter(own, name)) <= MOST for own in names))
    SCRIPT.write_text(HEAD + "".join(f"    *(.text.{name} .text.unlikely.{name})\n" for name in kept) + TAIL)
    print(f"{SCRIPT}: {len(kept)} functions", file=sys.stderr)


main()
