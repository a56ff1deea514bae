"""The bounded queue: slots are held before anything is taken in, and nobody is passed over."""

import asyncio

import pytest

from builder.errors import QueueFull
from builder.flow.build_queue import BuildQueue
from builder.flow.items import Item
from tests.flow_parts import item

pytestmark = pytest.mark.looptime


async def put(queue: BuildQueue, one: Item) -> None:
    """Reserve and put, as the intake does."""
    await queue.reserve(0)
    queue.put(one)


async def test_items_come_out_in_fair_order() -> None:
    """The queue's order is the fair one."""
    queue = BuildQueue(10)
    for one in (item("late", priority=9), item("soon", priority=1)):
        await put(queue, one)
    assert [(await queue.take()).event.id, (await queue.take()).event.id] == ["soon", "late"]


async def test_a_full_queue_refuses_after_a_bounded_wait() -> None:
    """A sender waits two seconds for a slot, not longer, and hears when to come back."""
    queue = BuildQueue(1)
    await put(queue, item("first"))
    began = asyncio.get_running_loop().time()
    with pytest.raises(QueueFull, match="the queue of 1 is full") as refusal:
        await queue.reserve(2.0)
    assert asyncio.get_running_loop().time() - began == pytest.approx(2.0)
    assert refusal.value.retry_after == 2.0


async def test_no_patience_means_at_once() -> None:
    """A batch whose first event found no slot does not wait again for each of the others."""
    queue = BuildQueue(1)
    await put(queue, item("first"))
    with pytest.raises(QueueFull):
        await queue.reserve(0)


async def test_a_slot_that_gets_free_goes_to_the_one_who_waits_longest() -> None:
    """First come, first served; a newcomer does not get in between."""
    queue = BuildQueue(1)
    await put(queue, item("first"))
    waiting = [asyncio.create_task(queue.reserve(60)) for _ in range(2)]
    await asyncio.sleep(1)
    await queue.take()
    with pytest.raises(QueueFull):
        await queue.reserve(0)  # the slot is promised
    await asyncio.sleep(0)
    assert [task.done() for task in waiting] == [True, False]
    queue.release()
    await asyncio.gather(*waiting)


async def test_a_cancelled_sender_leaves_no_slot_behind() -> None:
    """One that hangs up while it waits, or in the very moment it gets its slot, costs nothing."""
    queue = BuildQueue(1)
    await put(queue, item("first"))
    waiting = asyncio.create_task(queue.reserve(60))
    lucky = asyncio.create_task(queue.reserve(60))
    await asyncio.sleep(1)
    waiting.cancel()
    await asyncio.sleep(0)
    await queue.take()  # gives the slot to the other ...
    lucky.cancel()  # ... who hangs up before running again
    await asyncio.gather(waiting, lucky, return_exceptions=True)
    await queue.reserve(0)
    assert queue.full


async def test_time_out_and_slot_in_one_moment() -> None:
    """A slot that comes in the moment of the time-out is either used or given back."""
    queue = BuildQueue(1)
    await put(queue, item("first"))
    waiting = asyncio.create_task(queue.reserve(1.0))
    asyncio.get_running_loop().call_later(1.0, lambda: asyncio.ensure_future(queue.take()))
    await asyncio.gather(waiting, return_exceptions=True)
    await asyncio.sleep(1)
    if waiting.exception() is None:
        queue.release()
    await queue.reserve(0)


async def test_what_comes_back_needs_no_slot() -> None:
    """An item that was set aside was let in once; a full queue does not shut it out."""
    queue = BuildQueue(1)
    await put(queue, item("first"))
    queue.put_back(item("second"))
    assert len(queue) == 2
    with pytest.raises(QueueFull):
        await queue.reserve(0)
    await queue.take()
    with pytest.raises(QueueFull):
        await queue.reserve(0)  # still one in a queue of one
    await queue.take()
    await queue.reserve(0)


async def test_a_worker_waits_for_an_item() -> None:
    """An empty queue wakes one worker for each item."""
    queue = BuildQueue(10)
    workers = [asyncio.create_task(queue.take()) for _ in range(3)]
    await asyncio.sleep(1)
    await put(queue, item("a"))
    await put(queue, item("b"))
    await asyncio.sleep(1)
    assert [task.done() for task in workers] == [True, True, False]
    workers[2].cancel()


async def test_a_slot_that_passes_over_one_that_gives_up() -> None:
    """The slot goes to the next in line, and the one that gave up in that moment leaves without an error of ours."""
    queue = BuildQueue(1)
    await queue.reserve(None)
    late, next_in_line = asyncio.create_task(queue.reserve(60)), asyncio.create_task(queue.reserve(60))
    await asyncio.sleep(0)
    late.cancel()
    queue.release()
    with pytest.raises(asyncio.CancelledError):
        await late
    await next_in_line
    assert queue.full


async def test_a_cancelled_worker_wakes_the_next() -> None:
    """A wake-up is never lost with the worker that got it."""
    queue = BuildQueue(10)
    first, second = asyncio.create_task(queue.take()), asyncio.create_task(queue.take())
    await asyncio.sleep(1)
    await put(queue, item("a"))  # wakes the first ...
    first.cancel()  # ... which is cancelled before it runs
    assert (await second).event.id == "a"


async def test_the_oldest() -> None:
    """Who was accepted first is known, whatever the order in which they are taken."""
    queue = BuildQueue(10)
    assert queue.oldest() is None
    first, second, third = item("first", priority=9), item("second", priority=1), item("third", priority=1)
    for seconds, one in enumerate((first, second, third)):
        one.accepted = float(seconds)
        await put(queue, one)
    assert queue.oldest() is first
    assert await queue.take() is second
    assert list(queue) == [third, first]
