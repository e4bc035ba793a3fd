"""Holds a bill of materials against `Cargo.lock` and what cargo says of a command:  sbom.py FILE PACKAGE"""

import json
import subprocess
import sys
import tomllib
from pathlib import Path


# What is released.
TARGET = "x86_64-unknown-linux-musl"


def locked():
    packages = tomllib.loads(Path("Cargo.lock").read_text())["package"]
    return {(package["name"], package["version"]): package.get("checksum") for package in packages}


def linked(package):
    """What is linked into it, the workspace's own members too."""
    command = ["cargo", "tree", "--locked", "--package", package, "--all-features", "--edges", "normal", "--target", TARGET]
    lines = subprocess.run([*command, "--prefix", "none", "--format", "{p}"], capture_output=True, text=True, check=True).stdout
    return {(words[0], words[1].removeprefix("v")) for line in lines.splitlines() if (words := line.split())}


def main(file, package):
    bill = json.loads(Path(file).read_text())
    named = {(one["name"], one["version"]): one for one in bill["components"]}
    subject = bill["metadata"]["component"]
    known = locked()
    problems = [f"{name} {version} is not in it" for name, version in linked(package) - named.keys() - {(subject["name"], subject["version"])}]
    for (name, version), one in named.items():
        hashes = [entry["content"] for entry in one.get("hashes", []) if entry["alg"] == "SHA-256"]
        if (name, version) not in known:
            problems.append(f"{name} {version} is not in Cargo.lock")
        elif known[name, version] and hashes != [known[name, version]]:
            problems.append(f"{name} {version} has other hashes than Cargo.lock: {hashes}")
        elif known[name, version] and not one.get("licenses"):
            problems.append(f"{name} {version} has no licence")
    print(f"{file}: {len(named)} crates")
    if problems:
        sys.exit("\n".join(sorted(problems)))


main(*sys.argv[1:])
