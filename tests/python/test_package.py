"""The package itself: what a plain worker sees of it."""

import harness


def test_a_plain_loop_is_judged_by_the_real_checker(worker, beat):
    with worker(queues=["mail"], loop_budget=0.5) as beating:
        beating.pulse()
        assert harness.verdict(beat).name == "alive"
        assert harness.record(beat)["queues"] == ["mail"]
        harness.until(lambda: harness.verdict(beat).name == "wedged")
        beating.pulse()
        harness.until(lambda: harness.verdict(beat).name == "alive")
    assert harness.verdict(beat).name == "missing"
