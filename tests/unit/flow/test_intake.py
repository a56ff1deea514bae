"""The one door: what gets in, once, and what becomes of the rest."""

import asyncio

import pytest

from builder.adapters.memory_cluster import MemoryCluster
from builder.errors import Draining, EventRejected, Problem, QueueFull
from builder.events.parsing import Rejected
from builder.flow.items import Done
from builder.flow.ports import Entry, Receipt
from builder.models import Event, Outcome, RejectReason
from builder.settings import Memory
from builder.stats import RefusedBecause
from tests import building
from tests.flow_parts import Flow

pytestmark = pytest.mark.looptime


def flow(**settings: object) -> Flow:
    """A flow whose workers do not run: what gets in stays."""
    return Flow(MemoryCluster(Memory()), building.settings(**settings))


async def test_a_duplicate_gets_the_same_answer_and_no_second_item() -> None:
    """(source, id) is the identity, however different the rest."""
    door = flow()
    first = await door.intake.offer(building.event("e-1"))
    again = await door.intake.offer(building.event("e-1", target=("acme", "other")))
    assert [first.status, again.status] == ["queued", "duplicate"]
    assert len(door.queue) == 1
    assert door.stats.duplicates == {"queue": 1, "direct": 0}


async def test_concurrent_deliveries_make_one_item() -> None:
    """A dispatcher's time-out makes it deliver again while the first delivery still waits for a slot."""
    door = flow(asyncJobCreator={"maxQueueSize": 2})
    await door.intake.offer(building.event("before"))
    await door.intake.offer(building.event("before too"))
    deliveries = [asyncio.create_task(door.intake.offer(building.event("e-1"))) for _ in range(3)]
    await asyncio.sleep(0.1)
    for _ in range(2):
        await door.queue.take()
    tickets = await asyncio.gather(*deliveries)
    assert sorted(ticket.status for ticket in tickets) == ["duplicate", "duplicate", "queued"]
    assert [item.event.id for item in door.queue] == ["e-1"]
    await door.intake.offer(building.event("after"))  # no slot was lost on the way


async def test_an_identity_is_forgotten_after_its_time() -> None:
    """The time to live bounds what is remembered."""
    door = flow(idempotency={"ttl": "1h"})
    await door.intake.offer(building.event("e-1"))
    item = await door.queue.take()
    await item.receipt.settle(item.result(Done(Outcome.CREATED), building.NOON, "job"))
    await asyncio.sleep(3599)
    assert (await door.intake.offer(building.event("e-1"))).status == "duplicate"
    await asyncio.sleep(2)
    assert (await door.intake.offer(building.event("e-1"))).status == "queued"


async def test_a_duplicate_is_answered_even_when_the_queue_is_full() -> None:
    """It needs no slot: its event has one."""
    door = flow(asyncJobCreator={"maxQueueSize": 1})
    await door.intake.offer(building.event("e-1"))
    assert (await door.intake.offer(building.event("e-1"))).status == "duplicate"


async def test_a_refused_event_is_not_seen() -> None:
    """After a 429 the same event is welcome."""
    door = flow(asyncJobCreator={"maxQueueSize": 1})
    await door.intake.offer(building.event("e-1"))
    with pytest.raises(QueueFull):
        await door.intake.offer(building.event("e-2"))
    await door.queue.take()
    assert (await door.intake.offer(building.event("e-2"))).status == "queued"
    assert door.stats.refused[RefusedBecause.QUEUE_FULL] == 1


async def test_a_rejected_event_is_kept_and_not_seen() -> None:
    """A broker drops it after a 400, so we keep it; a corrected one with the same id gets in."""
    door = flow()
    with pytest.raises(EventRejected) as rejection:
        await door.intake.offer(building.event("e-1", target=("../etc", "p")))
    assert [problem.field for problem in rejection.value.problems] == ["data.third_party_id"]
    (letter,) = await door.letters()
    assert (letter.reason, letter.attributes["id"], letter.problems) == (
        RejectReason.INVALID,
        "e-1",
        rejection.value.problems,
    )
    assert (await door.intake.offer(building.event("e-1"))).status == "queued"


@pytest.mark.parametrize(
    ("status", "reason"),
    [(400, RejectReason.INVALID), (413, RejectReason.TOO_LARGE), (415, RejectReason.NOT_A_CLOUDEVENT)],
)
async def test_what_could_not_even_be_read_is_kept(status: int, reason: RejectReason) -> None:
    """With its bytes and whatever could be read of its attributes."""
    door = flow()
    unreadable = Rejected({"id": "e-1"}, "text/plain", b"hello", (Problem("body", "is no JSON"),), status)
    with pytest.raises(EventRejected):
        await door.intake.offer(unreadable)
    (letter,) = await door.letters()
    assert (letter.reason, letter.attributes, letter.content_type, letter.body) == (
        reason,
        {"id": "e-1"},
        "text/plain",
        b"hello",
    )


async def test_dead_letters_are_bounded() -> None:
    """The oldest make room, by number and by bytes."""
    door = flow(deadLetters={"maxCount": 3, "maxBytes": 10_000})
    for number in range(5):
        with pytest.raises(EventRejected):
            await door.intake.offer(Rejected({"id": f"e-{number}"}, "", b"", (Problem("body", "wrong"),)))
    assert [letter.attributes["id"] for letter in await door.letters()] == ["e-4", "e-3", "e-2"]
    with pytest.raises(EventRejected):
        await door.intake.offer(Rejected({"id": "big"}, "", b"x" * 9_970, (Problem("body", "wrong"),)))
    assert [letter.attributes["id"] for letter in await door.letters()] == ["big"]


async def test_a_closed_door_takes_nothing() -> None:
    """While draining, everything may come again later, the bad as well."""
    door = flow()
    door.intake.close()
    with pytest.raises(Draining):
        await door.intake.offer(building.event("e-1"))
    assert (len(door.queue), await door.letters()) == (0, [])


async def test_a_journal_that_fails_costs_no_slot() -> None:
    """What could not be taken into custody is not accepted, and its slot is free again."""
    door = flow(asyncJobCreator={"maxQueueSize": 1})

    async def broken(_entry: Entry) -> Receipt | None:
        msg = "disk full"
        raise OSError(msg)

    good = door.journal.admit
    door.journal.admit = broken  # type: ignore[method-assign,assignment] # the fault is the point
    with pytest.raises(OSError, match="disk full"):
        await door.intake.offer(building.event("e-1"))
    door.journal.admit = good  # type: ignore[method-assign]
    assert (await door.intake.offer(building.event("e-1"))).status == "queued"


async def test_the_flows_are_counted_apart() -> None:
    """004's migration watches both: the source tells the queue's events from direct ones."""
    door = flow()
    direct = building.event("e-1")
    direct = Event(direct.id, "someone/else", direct.type, None, None, {}, direct.data)
    await door.intake.offer(direct)
    await door.intake.offer(building.event("e-2"))
    assert door.stats.accepted == {"queue": 1, "direct": 1}
