"""The instructions of a probe and of a beat, counted and held against tests/bench/counts.json: so that a regression is seen on any machine.

    counts.py [--write]

Counted is what callgrind sees of the local probe and of a publisher, built in release for musl: files, arguments and environment are the same each
time, and a count is the same to a per mille, however busy the machine. More than a tenth away from what stands there, in either direction, fails;
`--write` puts the new counts there.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import harness
import living

HERE = Path(__file__).parent
KEPT = HERE / "counts.json"
MUSL = "x86_64-unknown-linux-musl"
RELEASE = harness.TARGET / MUSL / "release"
MOST = 0.10
BEATS = 200


def count(command, *options):
    """What callgrind counts of a command in an environment of nothing, and what that printed."""
    told = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", *options, *command]
    done = subprocess.run([str(word) for word in told], capture_output=True, text=True, timeout=300, check=False, env={"PATH": "/usr/bin:/bin"})
    found = re.search(r"Collected : (\d+)", done.stderr)
    assert done.returncode == 0 and found, f"{told}:\n{done.stdout}{done.stderr}"
    return int(found[1]), done.stdout


def counts(folder):
    beat = folder / "beat"
    living.write(beat)
    checker = RELEASE / "checker"
    plain, told = count([checker, "worker", "--file", beat])
    assert told.startswith("alive: "), told
    full, told = count([checker, "worker", "--file", beat, "--for", "ready", "--format", "json"])
    assert json.loads(told)["verdict"] == "alive", told
    program = folder / "beats"
    rust = ["rustc", "-O", "--edition", "2024", HERE / "beats.rs", "--target", MUSL, "-o", program]
    rust += ["--extern", f"heartbeat={RELEASE}/libheartbeat.rlib", "-L", f"dependency={RELEASE}/deps"]
    rust += ["-L", f"dependency={harness.TARGET}/release/deps"]
    subprocess.run([str(word) for word in rust], check=True)
    beats, told = count([program, folder / "own", BEATS], "--toggle-collect=heartbeat::publisher::Publisher::beat")
    return {"probe": plain, "probe, ready, as JSON": full, "beat": beats // int(told)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    write = parser.parse_args().write
    # A path of one length, whatever the machine's temporary folder.
    with tempfile.TemporaryDirectory(prefix="counts-", dir="/dev/shm") as folder:
        found = counts(Path(folder))
    if write:
        KEPT.write_text(json.dumps(found, indent=4) + "\n")
    kept = json.loads(KEPT.read_text())
    assert kept.keys() == found.keys(), f"{KEPT} has other counts: write it with --write"
    wrong = 0
    for name, instructions in found.items():
        change = instructions / kept[name] - 1
        wrong += abs(change) > MOST
        print(f"{name:24} {instructions:9,} instructions, {change:+.1%}{'   MORE THAN A TENTH AWAY' if abs(change) > MOST else ''}")
    sys.exit(bool(wrong))


main()
