"""What came of it: the table, and the figures of a failure detector.

The figures are those of Chen, Toueg and Aguilera, "On the Quality of Service of Failure Detectors", IEEE Transactions on
Computers 51(5), 2002. Detection time: from the moment at which a worker must no longer count as live until it does so for
good. Mistake rate, mistake duration and query accuracy: how often, for how long and at which share of all looks a worker that
lives does not count as live. Not judged is the time in which a rule allows either.
"""

from dataclasses import dataclass, field

import matrix
from rules import BUDGET, DEADLINE, GRACE, INTERVAL, LOOK, PROMISE, ROUND, VIEWS
from harness import REPOSITORY
from stage import LIVE

FILE = REPOSITORY / "tests" / "faults" / "README.md"


@dataclass
class Figures:
    looks: int = 0
    live_looks: int = 0
    live_seconds: float = 0.0
    mistaken_looks: int = 0
    mistakes: list = field(default_factory=list)
    detections: list = field(default_factory=list)
    missed: int = 0
    unanswered: int = 0

    @property
    def accuracy(self):
        return 1 - self.mistaken_looks / self.live_looks if self.live_looks else 0.0


def figures(scenes):
    sums = Figures()
    for scene in scenes:
        for view in scene.views():
            add(sums, scene, view)
    return sums


def add(sums, scene, view):
    lives = phases(scene, view)
    for run in scene.told[view]:
        if run.last_asked < scene.begun:
            continue
        if scene.is_none(run):
            sums.unanswered += 1
            continue
        sums.looks += run.looks
        # Looks are as far from each other as the judge's period, and evenly.
        length = max(run.last_answered - run.asked, LOOK)
        for live, since, until in lives:
            shared = min(run.last_answered, until) - max(run.asked, since)
            if shared < 0:
                continue
            looks = max(1, round(run.looks * min(1.0, shared / length))) if run.looks else 0
            if live:
                sums.live_looks += looks
                sums.live_seconds += shared
                if run.verdict not in LIVE:
                    sums.mistaken_looks += looks
                    sums.mistakes.append(shared)
            elif run.verdict in LIVE:
                sums.missed += looks
    for verdict, after, _ in scene.told_after(view):
        if verdict not in LIVE:
            sums.detections.append((verdict, after))


def phases(scene, view):
    """When the right answer was that the worker is live, and when that it is not; nothing where a rule allows both."""
    since, verdict = scene.begun, scene.first
    for step, (at, passing_since) in zip(scene.steps, scene.marks):
        if view not in step.verdicts:
            continue
        rule = step.rule(view)
        begins = passing_since if step.passing else at
        yield verdict in LIVE, since, begins
        since, verdict = at + rule.within(view), step.verdicts[view]
    yield verdict in LIVE, since, scene.over


def shown(sums, took):
    """The figures in words."""
    by_verdict = {}
    for verdict, after in sums.detections:
        by_verdict.setdefault(verdict, []).append(after)
    lines = [
        f"{sums.looks} judgements, {sums.live_looks} of them of workers that live, in {took:.0f} s",
        f"{sums.unanswered} more had no answer from Redis in time, because the machine was busy, and said so (`unknown`)",
        f"query accuracy probability: {sums.accuracy:.6f}",
        f"mistakes: {len(sums.mistakes)} in {sums.live_seconds / 3600:.2f} h of living workers"
        + (f", {max(sums.mistakes):.2f} s at most" if sums.mistakes else ""),
    ]
    if not sums.mistakes and sums.live_looks:
        lines.append(f"with 95 % confidence (rule of three) less than one mistaken judgement in {sums.live_looks // 3}")
    for verdict, times in sorted(by_verdict.items()):
        times.sort()
        lines.append(f"detection time, {verdict}: {len(times)} times, median {times[len(times) // 2]:.2f} s, at most {times[-1]:.2f} s")
    return "\n".join(lines) + "\n"


# --- the table --------------------------------------------------------------------------------------------------------


def table():
    """What is asserted of each cell, as a page shows it: made of the faults and the rules alone."""
    lines = ["| fault | drivers | file | key | both: its file | agent |", "|---|---|---|---|---|---|"]
    for fault in matrix.FAULTS:
        for drivers, sinks, steps in variants(fault):
            cells = [cell(fault, sinks, steps, view) for view in ("file", "key", "both: file", "agent")]
            lines.append("| " + " | ".join([fault.words, ", ".join(map(word, drivers)), *cells]) + " |")
    return "\n".join(lines) + "\n"


def word(driver):
    return {"run": "`heartbeat run`", "celery": "Celery", "django-q": "Django-Q2"}.get(driver, driver)


def variants(fault):
    """Its drivers with the sinks and the steps that they share."""
    shared = {}
    for driver in fault.drivers:
        own = driver if driver in fault.by else None
        shared.setdefault((own, fault.sinks_of(driver)), []).append(driver)
    for (own, sinks), drivers in shared.items():
        yield drivers, sinks, fault.by[own] if own else fault.steps


def not_played():
    """What is not asserted, and why."""
    lines = ["| fault | not in | because |", "|---|---|---|"]
    for fault in matrix.FAULTS:
        reasons = {}
        for driver in matrix.EVERY:
            if driver not in fault.drivers:
                reasons.setdefault(fault.not_in[driver], []).append(word(driver))
        lines += [f"| {fault.words} | {', '.join(drivers)} | {reason} |" for reason, drivers in reasons.items()]
    return "\n".join(lines) + "\n"


def cell(fault, sinks, steps, view):
    sink = view.partition(":")[0]
    if sink not in sinks:
        return "–"
    said = [f"{step.verdicts[view]} ({step.rule(view).within(view):.1f} s)" for step in steps if view in step.verdicts]
    return ", ".join(said) or fault.first


def settings():
    return (
        f"interval {INTERVAL} s, promise {PROMISE} s, loop budget {BUDGET} s, deadlines {DEADLINE} s, an agent's interval {ROUND} s, "
        f"a look each {LOOK} s, and {GRACE} s of grace for a machine that is busy with other work"
    )


WHO = ("FOJ's heartbeat", "`inspect ping`", "FOJ's check on our file", "Django-Q2's stat")


def beside(scenes):
    """What the others said of workers of theirs, as it was seen: of each step, with all sinks."""
    said = {}
    for scene in scenes:
        for step, answers in scene.others:
            right = "alive" if live_after(scene, step) else "dead"
            for who, what in answers.items():
                said.setdefault((scene.fault.key, scene.driver, step, right), {}).setdefault(who, set()).add(what)
    lines = ["| fault | driver | right | " + " | ".join(WHO) + " |", "|---|---|---|" + "---|" * len(WHO)]
    for fault in matrix.FAULTS:
        for driver in fault.drivers:
            steps = sorted((key for key in said if key[:2] == (fault.key, driver)), key=lambda key: key[2])
            if steps:
                # What is the same as before, all across, is told once.
                rows = [(key[3], *(merged(said[key].get(who)) for who in WHO)) for key in steps]
                rows = [row for before, row in zip([None, *rows], rows) if row != before]
                right, *cells = (cell[0] if set(cell) == {"–"} else ", then ".join(cell) for cell in zip(*rows))
                lines.append("| " + " | ".join([fault.words, word(driver), right, *cells]) + " |")
    return "\n".join(lines) + "\n"


def live_after(scene, steps):
    """Whether the worker's own record says that it is live once so many steps are true: a key that cannot be asked tells nothing."""
    view = scene.views()[0]
    verdict = scene.first
    for step in scene.steps[:steps]:
        verdict = step.verdicts.get(view, verdict)
    return verdict in LIVE


def merged(said):
    if not said:
        return "–"
    return said.copy().pop() if len(said) == 1 else "as chance has it"


def page(stage):
    """The whole page, with what was measured."""
    scenes = list(stage.scenes.values())
    measured = "".join(f"- {line}\n" for line in shown(figures(scenes), stage.took).splitlines())
    return PAGE.format(settings=settings(), table=table(), not_played=not_played(), measured=measured, beside=beside(scenes))


PAGE = """\
# Faults, and what is told of them

Real workers, each broken in one way, and judged twenty times a second by the library itself, as `checker worker` and
`checker cluster` judge; once each verdict stands, these two are asked as well, for live and for ready. `tests/run faults` plays a part of it, and
`tests/faults/run` all of it. Each look at each worker is asserted: the verdict that is due, not too early, by its moment at the latest,
and no other one.

When a verdict is due follows from what the worker was told, never from what was seen: {settings}.
A worker's last beat is up to an interval old when it breaks. What its process, its file or its own account show, is told at once; what
its silence shows, when its promise ends; and whoever is asked by way of an agent is told one of its intervals later.

In each cell is the verdict, and in how many seconds at most it is told; after a comma, what is told once the fault is over. A cell with `alive` alone says
that nothing may be told of it at any moment. `both` is a worker that beats to its file and to its key, which says the same as it does without a
file. Which verdicts pass for live and for ready stands in the [first page](../../README.md#what-each-verdict-means).

{table}
Where a driver is judged at fewer places than others, what is left out goes the same way whoever beats: an agent carries the file as it is. What is not
played, and why:

{not_played}
The last run of all of it, on a virtual machine with two cores:

{measured}
The figures are those of Chen, Toueg and Aguilera (*On the Quality of Service of Failure Detectors*, IEEE Transactions on Computers 51(5), 2002): a
mistake is to tell of a living worker that it is not live. The time in which a rule allows the verdict before and the one after is no part of them.

## What others say of the same workers

Asked once each step stands and its promise is over besides: FOJ (django-health-check-full-of-juice 0.2.0) by its own bootstep's file in the same Celery
worker, and by its check on our file, with our promise as its limit; Celery's `inspect ping`, of this worker alone; whether Django-Q2's own stat is there. Celery's
workers are of the prefork pool. As it was seen in that run:

{beside}
What is simulated, and how far:

- The processor and the memory are taken by control groups (version 1). Where they cannot be made, those faults are shown as skipped, with the reason.
- A suspend is all processes stopped for two promises, while the clock goes on: what a paused virtual machine does. A real suspend, in which
  the monotonic clock stands still, is less than that.
- A reboot is a record of another boot. A time namespace with a clock of its own is misjudged from outside, as the first page says.
- A clock is moved under the worker and its agent by libfaketime, an hour to each side.
- The two sides of a network are namespaces, the cut is nftables'. Redis is frozen by SIGSTOP, slow by a proxy. What is cut off or broken is the Redis of the
  beats; the broker of Celery and Django-Q2 is another one, and stays: what comes of a broken broker is told by `tests/python`.
- A file system hangs by `strace`, which holds each rename.
"""
