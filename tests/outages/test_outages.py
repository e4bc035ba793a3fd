"""Redis out of order for two minutes under working workers: what holds throughout, what is told, and the return.

All outages go on side by side, each with a Redis and five workers of its own; every test reads what was seen of one.
Where a name ends in `-by-agent`, the workers beat to files alone, and one agent publishes them.
"""

import pytest

from breaks import FOR_AN_AGENT, OUTAGES, Outage
from scene import INTERVAL, WORKERS, AgentGroup

ALONE = [outage.name for outage in OUTAGES]
BY_AGENT = [outage.name + AgentGroup.suffix for outage in FOR_AN_AGENT]
NAMES = ALONE + BY_AGENT
BROKEN = [name for name in NAMES if name != Outage.name]
# Of who knows of no Redis, nothing can be cut off.
CUT_OFF = [outage.name for outage in OUTAGES if outage.cuts_off]


def both(names):
    """These outages, with workers that beat to Redis by themselves and with an agent."""
    return [name for name in NAMES if name.removesuffix(AgentGroup.suffix) in names]


HIDDEN = both([outage.name for outage in OUTAGES if outage.hides])
# For a machine that does much else.
SLACK = 0.5
# A beat that has just missed a round of the agent's waits for the next one: so an interval of the worker's and one of the
# agent's, and the time that the round itself takes.
ROUND = 0.2


@pytest.fixture
def group(groups, request):
    group = groups[request.param]
    if group.failure:
        raise group.failure
    return group


def each(names):
    return pytest.mark.parametrize("group", names, indirect=True)


@each(NAMES)
def test_the_files_beats_are_never_later_than_one_interval(group):
    for beats in group.beats.values():
        # On a busy machine the test itself may look too late for one of them.
        assert beats[-1][1] - beats[0][1] >= group.seconds * 1000
        assert len(beats) >= 0.95 * (beats[-1][0] - beats[0][0] + 1)
        assert len(beats) >= 0.95 * group.seconds / INTERVAL
    assert group.longest_gap() <= 2 * INTERVAL
    assert all(counters["file_failures"] == counters["panics"] == 0 for counters in group.counters), group.counters


@each(NAMES)
def test_liveness_passes_throughout(group):
    assert len(group.live) >= group.seconds / INTERVAL / 4
    for answer in group.live:
        assert answer.code == 0, answer
        assert answer.said["verdict"] in ("alive", "cut off"), answer


@each(CUT_OFF)
def test_readiness_says_so_once_the_promise_has_passed(group):
    early = [a for a in group.ready if a.asked >= group.begun and a.answered < group.begun + group.promise - 2 * INTERVAL]
    late = group.within(group.ready, group.promise + 2 * INTERVAL + SLACK, 0)
    assert early and late
    assert {(a.said["verdict"], a.code) for a in early} == {("alive", 0)}, "the promise has not passed yet"
    assert {(a.said["verdict"], a.code) for a in late} == {("cut off", 1)}


@each([name for name in NAMES if name not in CUT_OFF])
def test_a_worker_that_reaches_its_redis_within_its_promise_or_knows_of_none_stays_ready(group):
    assert {(answer.said["verdict"], answer.code) for answer in group.ready} == {("alive", 0)}


@each(both(["full-noeviction", "denying"]))
def test_a_cluster_that_can_be_asked_and_whose_beats_are_refused_fails_and_names_who_is_silent(group):
    late = group.within(group.cluster, group.promise + 2 * INTERVAL + SLACK, 0)
    assert late
    for answer in late:
        assert (answer.said["status"], answer.code) == ("fail", 1), answer
        assert {lost["worker"] for lost in answer.said["lost"]} == {f"w{n}" for n in range(WORKERS)}, answer


@each(HIDDEN)
def test_a_cluster_that_cannot_be_asked_is_unknown_and_no_worker_is_called_lost(group):
    asked = group.within(group.cluster, 0, 0)
    assert len(asked) >= group.seconds / 8
    for answer in asked:
        assert (answer.said["status"], answer.code) == ("unknown", 1), answer
        assert not answer.said["lost"], answer


@each(both(["slow"]))
def test_beats_that_arrive_are_counted_though_their_answers_come_too_late(group):
    late = group.within(group.cluster, group.promise + 2 * INTERVAL, 0)
    assert late
    # What was not answered in time is unknown; what was, is the truth. A checker that misses somebody asks once more, for
    # names, and for that its time does not suffice.
    assert {answer.said["status"] for answer in late} <= {"unknown", "pass"}, late
    assert sum(answer.said["status"] == "pass" for answer in late) >= 0.75 * len(late), late


@each(both(["full-volatile-lru"]))
def test_evicted_beats_are_no_longer_counted_and_nobody_is_called_lost(group):
    answers = group.within(group.cluster, SLACK, 0)
    assert answers
    for answer in answers:
        assert (answer.said["status"], answer.said["lost"]) == ("fail", []), answer


@each(["churning-volatile-lru"])
def test_where_there_is_something_else_to_evict_no_beat_is_missed(group):
    assert group.evicted > 100
    assert all(counters["redis_failures"] == 0 for counters in group.counters), group.counters


@each(BROKEN)
def test_every_worker_is_back_within_two_intervals_of_the_return(group):
    assert group.returns
    for moment in group.returns:
        assert len(moment.back) == WORKERS, f"not back: {moment}"
        assert moment.slowest() <= 2 * INTERVAL + (ROUND if group.name in BY_AGENT else 0), moment
    after = [answer for answer in group.cluster if answer.asked >= group.over]
    assert after and all(answer.said["status"] == "pass" for answer in after), after
    ready = [answer for answer in group.ready if answer.asked >= group.over]
    assert ready and all(answer.said["verdict"] == "alive" for answer in ready), ready


@each([name for name in BROKEN if name in ALONE])
def test_a_redis_that_is_away_is_tried_no_more_often_than_it_would_be_beaten_to(group):
    # And the few quick ones at each begin.
    most = 1.1 * group.seconds / INTERVAL + 6 * max(1, len(group.returns))
    assert all(counters["redis_failures"] <= most for counters in group.counters), group.counters


@each(BY_AGENT)
def test_an_agent_tells_of_each_outage_and_of_its_end_once(group):
    begins = [line for line in group.agent.lines if line.startswith("heartbeat: cannot publish to Redis: ")]
    ends = [line for line in group.agent.lines if line.endswith(" is reached again\n")]
    assert len(begins) == len(ends) <= len(group.returns), group.agent.output
    assert len(begins) + len(ends) == len(group.agent.lines), group.agent.output
    assert not group.outage.cuts_off or len(begins) == 1, group.agent.output
    assert "S3cret" not in group.agent.output
    assert all(counters["redis_failures"] == 0 for counters in group.counters), group.counters


@each(BROKEN)
def test_no_task_is_delayed(group, groups):
    calm = groups[Outage.name]
    assert group.median_of_tasks() >= 0.98 * calm.median_of_tasks()
    delays, usual = group.delays(), calm.delays()
    assert delays[len(delays) * 99 // 100] <= usual[len(usual) * 99 // 100] + 20
    # To wait for Redis once would be to wait for seconds.
    assert delays[-1] <= usual[-1] + 1_000


@each(NAMES)
def test_no_worker_waits_for_redis_at_its_end(group):
    assert all(counters["stop_ms"] <= 1_500 for counters in group.counters), group.counters
    assert group.server.ask("KEYS", "heartbeat:*") == [], "what was there is withdrawn"
