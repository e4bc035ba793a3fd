"""Every fault in every driver with every sink that it applies to: what is told of it, and by when.

All scenes are played at once, for they mostly wait; each test reads what was seen in one. A part of them is played by
`tests/run`, all of them by `tests/faults/run`.
"""

import figures


def test_every_scene_was_played_to_its_end(stage):
    assert not stage.failures, "\n".join(f"{key}:\n{why}" for key, why in stage.failures.items())


def test_every_look_told_what_was_due(scene):
    for view in scene.views():
        assert not scene.wrong(view), "\n".join([*scene.wrong(view), scene.story(view)])


def test_every_step_was_told(scene):
    assert len(scene.marks) == len(scene.steps), scene.key
    for view in scene.views():
        due = [step.verdicts[view] for step in scene.steps if view in step.verdicts]
        told = [verdict for verdict, _, _ in scene.told_after(view)]
        assert told == due, scene.story(view)


def test_the_command_says_the_same_of_live_and_ready(scene):
    assert scene.facts["commands"]
    for view, verdict, want, passes, code, output in scene.facts["commands"]:
        assert code == (0 if passes else 1), (scene.key, view, verdict, want, output)


def test_a_living_worker_is_never_called_dead_and_a_dead_one_never_alive(stage, whole):
    sums = figures.figures(stage.scenes.values())
    assert sums.mistaken_looks == sums.missed == 0, sums
    assert sums.accuracy == 1.0
    assert sums.looks >= (100_000 if whole else 1_000)


def test_the_page_shows_what_is_asserted():
    assert figures.table() in figures.FILE.read_text()
    assert figures.settings() in figures.FILE.read_text()
    assert figures.not_played() in figures.FILE.read_text()
