"""All scenes side by side, once for all tests, and what is told of them at the end."""

import pytest

import figures
import matrix
import stage as stages

STAGE = pytest.StashKey()


def pytest_addoption(parser):
    parser.addoption("--whole", action="store_true", help="every fault in every driver with every sink")
    parser.addoption("--page", action="store_true", help="write what was measured to the page")
    parser.addoption("--driver", default="", help="only this driver")
    parser.addoption("--only", default="", help="only the faults whose name holds this")


def chosen(config):
    reduced = not config.getoption("--whole")
    cells = [cell for cell in matrix.cells(reduced) if config.getoption("--only") in cell[0].key]
    return [cell for cell in cells if config.getoption("--driver") in ("", cell[1])]


@pytest.fixture
def scene(stage, request):
    """One of them, played."""
    key = request.param
    if key in stage.not_here:
        pytest.skip(stage.not_here[key])
    if key not in stage.scenes:
        pytest.fail(f"{key} was never played to its end:\n{stage.failures.get(key)}")
    return stage.scenes[key]


def pytest_generate_tests(metafunc):
    if "scene" in metafunc.fixturenames:
        keys = [(fault.key, driver, sink) for fault, driver, sink in chosen(metafunc.config)]
        metafunc.parametrize("scene", keys, indirect=True, ids=["-".join(key).replace(" ", "_") for key in keys])


@pytest.fixture(scope="session")
def whole(request):
    """Whether all of it is played."""
    option = request.config.getoption
    return option("--whole") and not option("--only") and not option("--driver")


@pytest.fixture(scope="session")
def stage(request, tmp_path_factory):
    stage = stages.Stage(tmp_path_factory.mktemp("faults"))
    try:
        stage.perform(chosen(request.config), matrix.why_not)
        if request.config.getoption("--page"):
            figures.FILE.write_text(figures.page(stage))
        request.config.stash[STAGE] = stage
        yield stage
    finally:
        stage.end()


def pytest_terminal_summary(terminalreporter, config):
    stage = config.stash.get(STAGE, None)
    if not stage:
        return
    terminalreporter.section(f"faults: {len(stage.scenes)} scenes in {stage.took:.0f} s")
    for (fault, driver, sink), scene in sorted(stage.scenes.items()):
        for view in scene.views():
            told = [f"{verdict} after {after:.2f} s (by {by:.1f} s)" for verdict, after, by in scene.told_after(view)]
            terminalreporter.write_line(f"{fault:24} {driver:8} {view:11} {', '.join(told) or scene.first}")
        for _, said in scene.others:
            terminalreporter.write_line(f"{'':24} others: {', '.join(f'{who}: {what}' for who, what in said.items())}")
    terminalreporter.write_line(figures.shown(figures.figures(stage.scenes.values()), stage.took))
