"""Items that are set aside come back in time, and only one waits for each build."""

import asyncio
from datetime import timedelta

import pytest
import uvloop

from builder.flow.items import Again, Item, Wait
from builder.flow.waiting_room import WaitingRoom
from tests import building
from tests.flow_parts import item

pytestmark = pytest.mark.looptime


def again(delay: float, wait: Wait = Wait.RETRY) -> Again:
    """Set aside for ``delay`` seconds."""
    return Again(wait, delay, "because")


def requested(event_id: str, seconds: float) -> Item:
    """An item whose event was requested ``seconds`` before noon."""
    return item(event_id, event=building.event(event_id, time=building.NOON - timedelta(seconds=seconds)))


async def test_items_come_back_in_the_order_of_their_time() -> None:
    """One timer serves all, whatever the order in which they came."""
    back: list[tuple[float, str]] = []
    loop = asyncio.get_running_loop()
    began = loop.time()
    room = WaitingRoom(lambda one: back.append((round(loop.time() - began, 3), one.event.id)))
    for name, delay in (("late", 30.0), ("soon", 1.0), ("between", 2.5)):
        room.enter(item(name), again(delay), None)
    assert (len(room), room.waiting[Wait.RETRY]) == (3, 3)
    await asyncio.sleep(60)
    assert back == [(1.0, "soon"), (2.5, "between"), (30.0, "late")]
    assert (len(room), room.waiting[Wait.RETRY]) == (0, 0)


async def test_the_newer_of_two_that_wait_for_one_build_stays() -> None:
    """At most one runs and one waits: the request before the newest gives way, in whichever order they came."""
    room = WaitingRoom(lambda _: None)
    old, new, oldest = requested("old", 20), requested("new", 10), requested("oldest", 30)
    assert room.enter(old, again(5, Wait.ACTIVE_BUILD), "job") is None
    assert room.enter(new, again(5, Wait.ACTIVE_BUILD), "job") is old
    assert room.enter(oldest, again(5, Wait.ACTIVE_BUILD), "job") is oldest
    assert list(room) == [new]
    room.close()


async def test_other_builds_and_other_waits_do_not_compete() -> None:
    """Only waiting for the same Job's build makes rivals."""
    room = WaitingRoom(lambda _: None)
    assert room.enter(requested("a", 3), again(5, Wait.ACTIVE_BUILD), "job") is None
    assert room.enter(requested("b", 2), again(5, Wait.ACTIVE_BUILD), "other") is None
    assert room.enter(requested("c", 1), again(5, Wait.CAPACITY), "job") is None
    assert len(room) == 3
    room.close()


async def test_one_who_gave_way_does_not_come_back() -> None:
    """A superseded item is settled once; its time in the room means nothing any more."""
    back: list[Item] = []
    room = WaitingRoom(back.append)
    old, new = requested("old", 20), requested("new", 10)
    room.enter(old, again(1, Wait.ACTIVE_BUILD), "job")
    room.enter(new, again(9, Wait.ACTIVE_BUILD), "job")
    await asyncio.sleep(60)
    assert back == [new]
    assert room.enter(new, again(1, Wait.ACTIVE_BUILD), "job") is None


async def test_people_see_what_an_item_waits_for() -> None:
    """The state tells it."""
    room = WaitingRoom(lambda _: None)
    one = item()
    room.enter(one, again(1), None)
    assert one.state == "waiting: because"
    room.close()


def test_on_the_loop_of_the_service() -> None:
    """The service runs on uvloop, whose handles are not asyncio's: an item that is due at once comes back too."""

    async def main() -> list[Item]:
        back: asyncio.Queue[Item] = asyncio.Queue()
        room = WaitingRoom(back.put_nowait)
        for name, delay in (("late", 0.2), ("now", 0.0), ("soon", 0.05)):
            room.enter(item(name), again(delay), None)
        async with asyncio.timeout(5):
            return [await back.get() for _ in range(3)]

    assert [one.event.id for one in uvloop.run(main())] == ["now", "soon", "late"]


async def test_who_was_called_and_comes_again_waits_anew() -> None:
    """What is left of the first wait does not end the second."""
    back: list[str] = []
    room = WaitingRoom(lambda one: back.append(one.event.id))
    one = item("one")
    room.enter(one, again(5, Wait.CAPACITY), None)
    room.release(one)
    room.enter(one, again(60, Wait.CAPACITY), None)
    await asyncio.sleep(30)
    assert (back, list(room), room.waiting[Wait.CAPACITY]) == (["one"], [one], 1)
    await asyncio.sleep(60)
    room.release(one)  # its time was over before it was called
    assert (back, list(room), room.waiting[Wait.CAPACITY]) == (["one", "one"], [], 0)
    room.close()
