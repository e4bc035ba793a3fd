"""What a Celery worker's heartbeat tells when something is wrong: ours and FOJ's, side by side in one and the same worker.

Real workers of Celery in each pool, on a real Redis and a real RabbitMQ, each broken for real; every judge is asked again and
again. FOJ's column is asserted too: it shows that the faults are what they are said to be. Takes four minutes of waiting.
"""

import pytest

import rows
import scenes
from harness import REPOSITORY
from judges import SOON
from rows import BY_CHANCE, CELLS, FAILURES, RIGHT, UNWRITABLE, WORKS, opinion

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
        looks = cell.within(phase, SOON)
        said = [look.verdict for look in looks if look.verdict]
        # That it could not tell is for a machine that had no time, and no answer to rely on.
        assert len(said) > len(looks) * 3 / 4, told(cell)
        assert verdict in said, told(cell)
        assert phase.alive or set(said) == {verdict}, told(cell)


@each(CELLS)
def test_fojs_check_on_our_file_is_right(row, cell):
    assert opinion(cell, "foj_on_ours") == RIGHT, told(cell)


@each(CELLS)
def test_fojs_own_heartbeat_says_what_it_says(row, cell, request):
    _, pool, _ = request.node.callspec.params["cell"]
    if row.says(pool) != BY_CHANCE:
        assert opinion(cell, row.judge, exactly=False) == row.says(pool), told(cell)


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


def broken(whose, failures=tuple(FAILURES)):
    keys = [(f"{failure} {whose}", pool, transport) for failure, pool, transport in UNWRITABLE if failure in failures]
    return pytest.mark.parametrize("cell", keys, indirect=True, ids="-".join)


@broken("ours")
def test_a_worker_whose_file_cannot_be_written_works_on(cell):
    assert (rows.works(cell), cell.facts["works"], cell.facts["lost"]) == (WORKS, True, 0)


@broken("ours", ("EACCES", "ENOSPC"))
def test_it_stays_alive_where_the_file_that_is_there_can_be_written_over(cell):
    assert opinion(cell, "ours") == opinion(cell, "foj_on_ours") == RIGHT, told(cell)


@broken("ours", ("EROFS",))
def test_it_is_silent_after_the_promise_where_nothing_can_be_written(cell):
    assert cell.facts["verdict"] == "silent", told(cell)


@broken("ours", ("directory",))
def test_what_is_no_file_is_unsafe(cell):
    assert opinion(cell, "ours") == RIGHT and cell.facts["verdict"] == "unsafe", told(cell)


@broken("ours", ("dangling link",))
def test_a_dangling_link_is_replaced_and_not_followed(cell):
    assert cell.facts["verdict"] == "alive" and not cell.facts["created"], told(cell)


@broken("ours", ("EACCES", "EROFS", "ENOSPC"))
def test_the_worker_beats_again_once_the_file_can_be_written(cell):
    assert cell.facts["works after"] and cell.facts["alive after"], told(cell)


@broken("foj")
def test_an_error_of_fojs_file_costs_the_worker_its_broker(cell, request):
    key, pool, _ = request.node.callspec.params["cell"]
    assert rows.works(cell) == rows.foj_works(key.removesuffix(" foj"), pool), cell.facts


@broken("foj", ("dangling link",))
def test_foj_follows_a_dangling_link_and_makes_the_file(cell):
    assert cell.facts["created"]


@pytest.mark.parametrize("kind", scenes.ODD)
def test_what_is_no_heartbeat_passes_for_one_with_foj_and_not_with_us(stage, kind):
    foj, ours = stage.odd[kind]
    assert foj and not ours.passes


def test_of_two_workers_on_a_host_the_living_is_alive(stage):
    for cell in rows.across(stage, "two, the living"):
        assert opinion(cell, "ours") == RIGHT, told(cell)


def test_celerys_ping_tells_of_the_loop_and_not_of_the_work(stage):
    for transport in scenes.TRANSPORTS:
        for fact, answers in rows.PINGS.items():
            for (key, pool), answer in answers.items():
                assert stage.cells[key, pool, transport].facts[fact] is answer, (key, pool, transport, fact)


def test_the_page_shows_what_was_measured(stage, record_property):
    shown = rows.markdown(stage)
    record_property("shown", shown + "\n" + rows.times(stage))
    assert shown in PAGE.read_text()
