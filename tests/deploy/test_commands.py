"""Runs the blocks of deploy's pages that need containers; tests/docs runs the others. The convention is in tests/docs/blocks.py.

`buildah` and `podman` there are Debian's own, with the tests' storage and limits, and with the libraries below what is no static build.
"""

import os
import re
import shlex
import shutil

import pytest

import containers as own
import harness
from blocks import blocks, commands, printed
from harness import REPOSITORY

# One process builds the images, and runs these.
pytestmark = pytest.mark.xdist_group("images")

PAGES = sorted((REPOSITORY / "deploy").rglob("*.md"))
BLOCKS = [block for page in PAGES for block in blocks(page.relative_to(REPOSITORY), page.read_text()) if block.comment("containers") is not None]


@pytest.fixture
def work(containers, images, broker, tmp_path):
    """A folder as the repository's is where it is built, and the environment of its commands."""
    (tmp_path / "deploy").symlink_to(REPOSITORY / "deploy")
    (tmp_path / "target").symlink_to(own.SHIPPED or containers.folder / "target")
    shutil.copy(containers.folder / "own" / "worker", tmp_path / "worker")
    programs = tmp_path / "bin"
    programs.mkdir()
    storage = shlex.join(map(str, containers.storage))
    base = "scratch" if own.SHIPPED else "localhost/glibc"
    policy = shlex.join(map(str, containers.policy))
    scripts = {
        "podman": f'exec {shutil.which("podman")} {storage} --log-level fatal "$@"\n',
        "buildah": f'[[ $* == *worker.Containerfile* ]] && below=(--build-arg BASE={base}) || below=(--from {base})\n'
        f'exec {shutil.which("buildah")} {storage} build {policy} "${{below[@]}}" "${{@:2}}"\n',
    }
    for name, script in scripts.items():
        (programs / name).write_text(f"#!/bin/bash\n{script}")
        (programs / name).chmod(0o755)
    environment = containers.env | {"PATH": f"{programs}:{os.environ['PATH']}", "REDIS_URL": broker.url}
    yield tmp_path, environment
    containers.podman("rm", "--all", "--force", "--time", "0", check=False)


def test_there_are_such_blocks_and_each_is_a_dialogue():
    assert BLOCKS and {block.language for block in BLOCKS} == {"console"}


@pytest.mark.parametrize("page", sorted({block.page for block in BLOCKS}), ids=str)
def test_what_the_page_shows_works(page, work, start):
    """All blocks of a page in one folder: what one builds, the next one uses."""
    folder, environment = work
    for block in (block for block in BLOCKS if block.page == page):
        shown = commands(block.text)
        mark = "\x1eexit:"
        script = "exec </dev/null\n" + "".join(f"{command.text}\nprintf '\\n{mark}%s\\n' $?\n" for command in shown)
        shell = start(harness.Program, ["bash", "-c", script], environment, folder)
        shell.exit_status(300)
        parts = re.split(rf"\n{mark}(\d+)\n", shell.output)
        assert len(parts) == 2 * len(shown) + 1, shell.output
        for command, told, status in zip(shown, parts[0::2], parts[1::2]):
            assert int(status) == command.status, f"$ {command.text}\n{told}[exit {status}]"
            wanted = "\n".join(command.expected)
            assert not wanted.strip() or printed(command.expected, told), f"$ {command.text}\nprinted:\n{told}\nthe page shows:\n{wanted}"
