"""The page of memory by which a process of a cluster tells the sentinel what it does."""

import os

from heartbeat.django_q.slot import Slot


def in_a_child(work):
    """Runs this in a forked child, to its end."""
    if (pid := os.fork()) == 0:
        try:
            work()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


def test_what_a_child_writes_its_parent_reads():
    slot = Slot()
    assert slot.read() is None, "nobody has written"
    in_a_child(slot.present)
    assert slot.read() == (0, 0, 0, False, 0.0, "")

    def work():
        slot.begin("shop.mail")
        slot.begin("shop.bill")
        slot.end(failed=True)
        slot.end()
        slot.begin("x" * 63 + "é")

    in_a_child(work)
    state = slot.read()
    assert state._replace(since=0.0) == (3, 1, 1, True, 0.0, "x" * 63), "the name is cut at a character"
    assert state.since > 0


def test_what_is_half_written_is_not_read():
    slot = Slot()
    slot.begin("whole")
    # As a process leaves it that is stopped in the middle.
    slot._memory[0] |= 1
    assert slot.read() is None
