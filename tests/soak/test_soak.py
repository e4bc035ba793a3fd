"""What runs for long stays as it is: memory, descriptors, connections and threads, whatever is done to it.

Each measure is taken all the time. The first quarter is warm-up; of what is left, the median of the last third may exceed that
of the first third by the measure's bound, and no more.
"""

import pytest

from soaking import MEASURES, growth

# KiB; what an allocator keeps differs by some pages from one moment to the next. A median of a count is a whole
# number, and what differs by one was on the edge.
BOUNDS = {"rss": 1024, "anonymous": 512, "descriptors": 1, "connections": 1, "threads": 0}
PROGRAMS = ("worker", "restarting", "judging", "heartbeat run", "heartbeat agent", "checker serve")


def grown(soak, program, measure):
    index = MEASURES.index(measure)
    return growth([(moment, values[index]) for moment, values in soak.series[program]])


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("program", PROGRAMS)
def test_it_stays_flat(soak, program, measure):
    seen = grown(soak, program, measure)
    assert seen.by <= BOUNDS[measure], seen


@pytest.mark.parametrize("measure", MEASURES)
def test_what_leaks_is_seen(soak, measure):
    seen = grown(soak, "leaking", measure)
    assert seen.by > BOUNDS[measure], seen


@pytest.mark.parametrize("program", PROGRAMS)
def test_it_was_looked_at_throughout_and_ended_well(soak, program):
    series = soak.series[program]
    assert series[-1][0] - series[0][0] >= 0.95 * soak.counts.seconds
    assert len(series) >= 50
    status, output = soak.told[program]
    assert status == (143 if program == "heartbeat run" else 0), output


def test_all_that_was_to_be_done_was_done(soak):
    assert soak.restarts.done == soak.counts.restarts
    assert soak.redis_restarts.done == soak.counts.redis_restarts
    assert soak.told["judging"][1].split()[-1] == str(soak.counts.probes)
    assert soak.told["restarting"][1].split()[-1] == str(soak.counts.restarts)
    assert soak.executed.done >= soak.counts.seconds
    assert soak.requests.done >= soak.counts.seconds


def test_a_living_worker_was_never_called_dead_and_nothing_failed(soak):
    verdicts = [line.split(":")[0] for line in soak.told["judging"][1].splitlines() if ":" in line]
    # Without Redis a worker is cut off, and alive all the same.
    assert set(verdicts) <= {"alive", "cut off"}
    assert soak.executed.wrong == []
    assert soak.restarts.wrong == []
    assert soak.requests.wrong == []
    assert "panics: 0" in soak.told["worker"][1]
    assert "file_failures: 0" in soak.told["worker"][1]
