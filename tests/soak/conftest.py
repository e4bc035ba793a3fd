"""The run that all tests here are about, and the table of what was measured."""

from dataclasses import replace

import pytest

from soaking import MEASURES, REDUCED, WHOLE, Scene, growth

SCENE = pytest.StashKey()
UNITS = {"rss": "KiB", "anonymous": "KiB"}


def pytest_addoption(parser):
    parser.addoption("--seconds", type=float, help=f"how long to run (default {REDUCED.seconds:.0f}, of the whole {WHOLE.seconds:.0f})")
    parser.addoption("--whole", action="store_true", help="as many probes and restarts as are promised")


@pytest.fixture(scope="session")
def soak(request, tmp_path_factory):
    """The scene, when all is over."""
    counts = WHOLE if request.config.getoption("--whole") else REDUCED
    counts = replace(counts, seconds=request.config.getoption("--seconds") or counts.seconds)
    scene = Scene(tmp_path_factory.mktemp("soak"), counts)
    try:
        scene.start()
        scene.run()
        request.config.stash[SCENE] = scene
        scene.stop()
        yield scene
    finally:
        scene.end()


def pytest_terminal_summary(terminalreporter, config):
    scene = config.stash.get(SCENE, None)
    if scene is None:
        return
    say = terminalreporter.write_line
    terminalreporter.section(f"soak of {scene.lasted:.0f} s")
    say(f"- {last_number(scene, 'judging')} judgements in process, {scene.executed.done} commands, {scene.requests.done} HTTP requests")
    say(f"- {scene.restarts.done} workers started as processes, every other one killed; {last_number(scene, 'restarting')} in one process")
    say(f"- {scene.redis_restarts.done} restarts of Redis")
    say("")
    say("| program | measure | first third | last third | growth | most |")
    say("|---|---|---|---|---|---|")
    for name, series in scene.series.items():
        for index, measure in enumerate(MEASURES):
            seen = growth([(moment, values[index]) for moment, values in series])
            unit = UNITS.get(measure, "")
            cells = [f"{value:,.0f} {unit}".strip() for value in (seen.first, seen.last, seen.by, seen.most)]
            say(f"| {name} | {measure} | {' | '.join(cells)} |")


def last_number(scene, name):
    return scene.told.get(name, (0, "? ?"))[1].split()[-1]
