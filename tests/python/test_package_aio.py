"""`heartbeat.aio`: the event loop is what pulses."""

import asyncio
import gc
import time

import pytest

from harness import record, until, verdict
from heartbeat import aio


async def settled(fact, timeout=20):
    """Waits for a fact without blocking the loop that it is about."""
    end = asyncio.get_running_loop().time() + timeout
    while not fact():
        assert asyncio.get_running_loop().time() < end, fact
        await asyncio.sleep(0.02)


def test_a_blocked_loop_is_wedged_and_lives_again(worker, beat):
    async def main():
        async with aio.pulse(worker(interval=0.05), budget=0.4):
            await settled(lambda: "loop" in record(beat))
            pulsed = record(beat)["loop"]["pulsed_mono_ms"]
            await settled(lambda: record(beat)["loop"]["pulsed_mono_ms"] > pulsed)
            time.sleep(0.9)  # noqa: ASYNC251
            blocked = record(beat)
            assert blocked["loop"]["due_mono_ms"] < blocked["at_mono_ms"]
            # Asked by another process while the loop is held by this very call.
            assert verdict(beat).name == "wedged"
            await settled(lambda: verdict(beat).name == "alive")

    asyncio.run(main())


def test_after_the_block_nothing_pulses_any_more(worker, beat):
    async def main():
        async with aio.pulse(worker(interval=0.05), budget=0.3):
            await asyncio.sleep(0.1)
        await settled(lambda: verdict(beat).name == "wedged")

    asyncio.run(main())


def test_a_cancelled_block_ends_cleanly(worker, beat, caplog):
    async def block(beating):
        async with aio.pulse(beating, budget=0.3):
            await asyncio.sleep(60)

    async def main():
        asyncio.get_running_loop().set_debug(True)
        blocked = asyncio.create_task(block(worker(interval=0.05)))
        await asyncio.sleep(0.1)
        blocked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await blocked
        assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        await settled(lambda: verdict(beat).name == "wedged")

    asyncio.run(main())
    assert not [line for line in caplog.messages if "heartbeat" in line or "Exception" in line]


def test_a_loop_that_is_closed_within_the_block_is_survived(worker, beat, recwarn):
    beating = worker(interval=0.05)
    loop = asyncio.new_event_loop()
    pulse = aio.pulse(beating, budget=0.3)
    loop.run_until_complete(pulse.__aenter__())
    loop.run_until_complete(asyncio.sleep(0.1))
    loop.close()
    del pulse, loop
    gc.collect()
    # What pulsed is gone, and the record says so.
    until(lambda: verdict(beat).name == "wedged")
    assert not [str(warning.message) for warning in recwarn]


def test_one_can_be_used_again_but_not_twice_at_once(worker):
    async def main():
        pulse = aio.pulse(worker())
        async with pulse:
            with pytest.raises(RuntimeError):
                async with pulse:
                    pass
        async with pulse:
            pass

    asyncio.run(main())


@pytest.mark.parametrize("budget", [0, -1, float("nan")])
def test_a_budget_is_more_than_nothing(worker, budget):
    with pytest.raises(ValueError, match="budget"):
        aio.pulse(worker(file=False), budget=budget)


def test_each_awaited_unit_is_a_task(worker, beat):
    async def work(result):
        await settled(lambda: record(beat)["tasks"]["running"] == 3)
        if isinstance(result, Exception):
            raise result
        return result

    async def main():
        beating = worker(interval=0.05)
        hung = asyncio.ensure_future(aio.task(beating, "hung", asyncio.sleep(60), deadline=0.2))
        results = asyncio.gather(
            aio.task(beating, "one", work(1), deadline=60), aio.task(beating, "two", work(LookupError())), return_exceptions=True
        )
        one, two = await results
        assert one == 1 and isinstance(two, LookupError)
        await settled(lambda: verdict(beat).name == "overdue")
        assert record(beat)["tasks"]["name"] == "hung"
        hung.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hung
        await settled(lambda: verdict(beat).name == "alive")
        assert (record(beat)["tasks"]["done"], record(beat)["tasks"]["failed"]) == (1, 2)

    asyncio.run(main())
