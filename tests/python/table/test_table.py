"""What a Celery worker's heartbeat tells when something is wrong: ours and FOJ's, side by side in one and the same worker.

Real workers of Celery in each pool, on a real Redis and a real RabbitMQ, each broken for real; every judge is asked again and
again. FOJ's column is asserted too: it shows that the faults are what they are said to be. Takes four minutes of waiting.
"""

import re

import pytest

import scenes
from harness import REPOSITORY
from judges import LIMIT, SOON
from rows import CELLS, RIGHT, ROWS, opinion
from scenes import POOLS, TRANSPORTS

PAGE = REPOSITORY / "heartbeat" / "python" / "CELERY.md"

# All of it is done once, whichever of the tests are asked for.
pytestmark = pytest.mark.xdist_group("table")


@pytest.fixture(scope="session")
def stage(tmp_path_factory):
    return scenes.perform(tmp_path_factory.mktemp("table"))


@pytest.fixture
def cell(stage, request):
    key = request.param
    if key not in stage.cells:
        pytest.fail(f"{key} was never played:\n" + "\n".join(f"{name}:\n{why}" for name, why in stage.failures.items()))
    return stage.cells[key]


def each(cells):
    keys = [tuple(part.key if hasattr(part, "key") else part for part in cell) for cell in cells]
    return pytest.mark.parametrize("row, cell", [(cell[0], key) for cell, key in zip(cells, keys)], indirect=["cell"], ids=map("-".join, keys))


def told(cell):
    """The story for whoever reads a failure."""
    start = cell.phases[0].since
    phases = [f"{'alive' if p.alive else 'dead'} from {p.since - start:.1f} to {p.until - start:.1f}" for p in cell.phases]
    looks = [f"{look.began - start:7.1f} {look.verdict}: {look.ours}, FOJ {look.foj}, FOJ on ours {look.foj_on_ours}" for look in cell.looks]
    return "\n".join([*phases, *looks])


def test_every_scene_was_played_to_its_end(stage):
    assert not stage.failures, "\n".join(f"{name}:\n{why}" for name, why in stage.failures.items())


@each(CELLS)
def test_ours_is_right_at_every_look(row, cell):
    assert opinion(cell, "ours") == RIGHT, told(cell)


@each(CELLS)
def test_ours_says_what_it_is(row, cell):
    for phase, verdict in zip(cell.phases, row.verdicts):
        since = phase.since if phase.alive else phase.since + SOON
        said = [look.verdict for look in cell.looks if since <= look.began and look.ended <= phase.until]
        assert verdict in said, told(cell)
        assert phase.alive or set(said) == {verdict}, told(cell)


@each(CELLS)
def test_fojs_check_on_our_file_is_right(row, cell):
    assert opinion(cell, "foj_on_ours") == RIGHT, told(cell)


@each(CELLS)
def test_fojs_own_heartbeat_says_what_it_says(row, cell, request):
    _, pool, transport = request.node.callspec.params["cell"]
    assert opinion(cell, row.judge, tolerance=1) == row.says(pool, transport), told(cell)


@each(CELLS)
def test_our_checker_reads_fojs_file_as_foj_does(row, cell):
    """But for the looks around the moment at which its age reaches the limit."""
    looks = list(cell.looks)
    for before, look, after in zip(looks, looks[1:], looks[2:]):
        if look.ours_on_foj is not None and before.foj == look.foj == after.foj:
            assert look.ours_on_foj == look.foj, told(cell)


@each([cell for cell in CELLS if cell[0].key in ("down", "frozen")])
def test_a_worker_without_its_broker_is_not_ready_and_comes_back(row, cell):
    assert cell.facts["ready"] is False
    assert cell.facts["works again"], "a task sent afterwards is done"
    assert cell.facts["ready again"]


@each([cell for cell in CELLS if cell[0].key == "draining"])
def test_a_draining_worker_is_not_ready_and_exits_cleanly(row, cell):
    assert cell.facts["ready"] is False
    assert cell.facts["exit"] == 0


FAILURES = ("EACCES", "EROFS", "ENOSPC", "directory", "dangling link")


def unwritable(whose):
    return pytest.mark.parametrize(
        "cell",
        [(f"{failure} {whose}", pool, transport) for failure in FAILURES for transport in TRANSPORTS for pool in POOLS],
        indirect=True,
        ids="-".join,
    )


@unwritable("ours")
def test_a_worker_whose_file_cannot_be_written_works_on(cell):
    assert cell.facts["works"]
