"""What every journal promises, on disk or in memory."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import pytest_asyncio

from builder.adapters.memory_journal import MemoryJournal
from builder.app import Custody
from builder.flow.ports import LetterFilter
from builder.models import DeadLetter, FailureReason, Outcome, RejectReason
from tests import building
from tests.journal_parts import Clock, entry, identity, letter, opened, result, taken

GOOD_ENDS = [outcome for outcome in Outcome if outcome is not Outcome.FAILED]
SETTINGS: dict[str, Any] = {
    "idempotency": {"ttl": "1h"},
    "deadLetters": {"maxCount": 5, "maxBytes": 4096, "maxAge": "1h"},
}


def moment(seconds: float) -> datetime:
    """A time of day from seconds since 1970."""
    return datetime.fromtimestamp(seconds, UTC)


class Under(NamedTuple):
    """A journal and the time that it reads."""

    journal: Custody
    clock: Clock
    kind: str


@pytest_asyncio.fixture(params=["sqlite", "memory"])
async def under(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Under]:
    """One implementation, empty."""
    clock = Clock()
    if request.param == "memory":
        settings = building.settings(**SETTINGS)
        yield Under(MemoryJournal(settings.idempotency, settings.dead_letters, clock), clock, "memory")
        return
    async with opened(tmp_path / "journal.sqlite3", clock, **SETTINGS) as journal:
        yield Under(journal, clock, "sqlite")


async def fail(journal: Custody, event_id: str, **data: Any) -> DeadLetter:
    """Admit an event and let it fail; its letter."""
    one = entry(event_id, **data)
    await taken(await journal.admit(one)).settle(result(one.event, Outcome.FAILED))
    return (await journal.letters(LetterFilter(), 1))[0]


async def ids(journal: Custody, limit: int = 100, **wanted: Any) -> list[str]:
    """The letters that a filter finds, by the ids of their events."""
    return [one.attributes["id"] for one in await journal.letters(LetterFilter(**wanted), limit)]


# --- custody ----------------------------------------------------------------------------------------------------------


async def test_an_admitted_event_is_seen_and_admitted_once(under: Under) -> None:
    """The same identity again gets no second receipt, whatever its data."""
    assert not await under.journal.seen(identity("e-1"))
    assert await under.journal.admit(entry("e-1")) is not None
    assert await under.journal.seen(identity("e-1"))
    assert await under.journal.admit(entry("e-1", note="other data")) is None
    assert await under.journal.admit(entry("e-2")) is not None


async def test_an_event_is_held_from_its_admission_to_its_end(under: Under) -> None:
    """Known it stays for longer."""
    assert not await under.journal.holds(identity("e-1"))
    one = entry("e-1")
    receipt = taken(await under.journal.admit(one))
    assert await under.journal.holds(identity("e-1"))
    await receipt.settle(result(one.event))
    assert not await under.journal.holds(identity("e-1"))


async def test_of_fifty_concurrent_duplicates_one_gets_the_receipt(under: Under) -> None:
    """The check and the taking are one step."""
    receipts = await asyncio.gather(*(under.journal.admit(entry("e-1")) for _ in range(50)))
    assert len([receipt for receipt in receipts if receipt is not None]) == 1


@pytest.mark.parametrize("outcome", GOOD_ENDS)
async def test_what_ended_well_is_seen_for_its_time_and_then_new(under: Under, outcome: Outcome) -> None:
    """A redelivery within ``idempotency.ttl`` is known; after it, it is an event like any other."""
    one = entry("e-1")
    await taken(await under.journal.admit(one)).settle(result(one.event, outcome))
    under.clock.time += 3599
    assert await under.journal.seen(identity("e-1"))
    assert await under.journal.admit(one) is None
    under.clock.time += 2
    assert not await under.journal.seen(identity("e-1"))
    assert await under.journal.admit(one) is not None
    assert await under.journal.count() == 0


async def test_an_unfinished_event_is_seen_for_ever(under: Under) -> None:
    """Its time begins when it is settled."""
    await under.journal.admit(entry("e-1"))
    under.clock.time += 10 * 86400
    assert await under.journal.admit(entry("e-1")) is None


async def test_a_failed_event_is_a_dead_letter_with_all_that_came(under: Under) -> None:
    """Reason, words, class of the error, attempts and the event's own bytes."""
    one = entry("e-1")
    await taken(await under.journal.admit(one)).settle(result(one.event, Outcome.FAILED))
    (kept,) = await under.journal.letters(LetterFilter(), 10)
    assert kept == DeadLetter(
        reason=FailureReason.FORBIDDEN,
        message="the API server says no",
        attributes=one.event.attributes(),
        content_type="application/json",
        body=one.event.data,
        first_at=building.NOON,
        last_at=building.NOON,
        attempts=3,
        error="Denied 403",
        third_party_id="acme",
        id=kept.id,
    )
    assert await under.journal.letter(kept.id or 0) == kept


async def test_a_failed_event_may_be_sent_again_only_where_its_sender_still_has_it(under: Under) -> None:
    """On disk it is ours and ``replay`` alone sends it again; in memory its sender keeps it, and must."""
    await fail(under.journal, "e-1")
    assert await under.journal.seen(identity("e-1")) == (under.kind == "sqlite")


async def test_a_rejected_event_is_not_seen(under: Under) -> None:
    """A corrected event with the same id is welcome."""
    await under.journal.park(letter(attributes=building.event("e-1").attributes()))
    assert not await under.journal.seen(identity("e-1"))
    assert await under.journal.admit(entry("e-1")) is not None


# --- dead letters -----------------------------------------------------------------------------------------------------


async def test_letters_come_newest_first_and_in_pages(under: Under) -> None:
    """``before`` is the last id of the page before."""
    for number in range(1, 6):
        await under.journal.park(letter(number))
    first = await under.journal.letters(LetterFilter(), 2)
    second = await under.journal.letters(LetterFilter(before=first[-1].id), 2)
    third = await under.journal.letters(LetterFilter(before=second[-1].id), 2)
    assert [one.attributes["id"] for one in [*first, *second, *third]] == ["r-5", "r-4", "r-3", "r-2", "r-1"]
    assert len(third) == 1


async def test_filters(under: Under) -> None:
    """Each narrows by its own, and all together by all; a time's end is not part of it."""
    later = building.NOON + timedelta(minutes=1)
    await under.journal.park(letter(1, third_party_id=None))
    await under.journal.park(letter(2, reason=RejectReason.TOO_LARGE))
    await under.journal.park(letter(3, attributes={"id": "r-3", "type": "other"}))
    await under.journal.park(letter(4, last_at=later))
    assert await ids(under.journal, reason="too_large") == ["r-2"]
    assert await ids(under.journal, type="other") == ["r-3"]
    assert await ids(under.journal, third_party_id="acme") == ["r-4", "r-3", "r-2"]
    assert await ids(under.journal, since=later) == ["r-4"]
    assert await ids(under.journal, until=later) == ["r-3", "r-2", "r-1"]
    assert await ids(under.journal, reason="invalid", third_party_id="acme", until=later) == ["r-3"]
    assert await ids(under.journal, reason="quota") == []


async def test_discard_forgets_a_letter_once(under: Under) -> None:
    """The second time there is none."""
    kept = await fail(under.journal, "e-1")
    assert await under.journal.discard(kept.id or 0)
    assert not await under.journal.discard(kept.id or 0)
    assert await under.journal.letter(kept.id or 0) is None
    assert await under.journal.count() == 0


async def test_a_letter_is_readmitted_once_under_its_identity(under: Under) -> None:
    """It stays, marked, for those who look back; its event is in custody again."""
    kept = await fail(under.journal, "e-1")
    receipt = taken(await under.journal.readmit(kept.id or 0, entry("e-1")))
    assert await under.journal.readmit(kept.id or 0, entry("e-1")) is None
    assert await under.journal.admit(entry("e-1")) is None
    assert await ids(under.journal, replayed=True) == ["e-1"]
    assert await ids(under.journal, replayed=False) == []
    await receipt.settle(result(entry("e-1").event))
    assert await under.journal.seen(identity("e-1"))
    assert await under.journal.readmit(kept.id or 0, entry("e-1")) is None


async def test_a_replay_that_fails_again_can_be_replayed_again(under: Under) -> None:
    """Whatever became of it, there is a letter that says so and is not marked."""
    kept = await fail(under.journal, "e-1")
    receipt = taken(await under.journal.readmit(kept.id or 0, entry("e-1")))
    await receipt.settle(result(entry("e-1").event, Outcome.FAILED))
    (again,) = await under.journal.letters(LetterFilter(replayed=False), 10)
    assert await under.journal.readmit(again.id or 0, entry("e-1")) is not None


@pytest.mark.parametrize("by", ["its sender", "another road"])
async def test_a_letter_whose_event_came_again_and_ended_well_is_marked(under: Under, by: str) -> None:
    """Who looks for what is still to be done must not find it; and if it fails once more, must."""
    await fail(under.journal, "e-1")
    await fail(under.journal, "e-2")
    under.clock.time += 3601
    one = entry("e-1")
    if by == "its sender":
        await taken(await under.journal.admit(one)).settle(result(one.event))
    else:
        under.journal.remember(one.event, result(one.event))
    assert await ids(under.journal, replayed=True) == ["e-1"]
    assert await ids(under.journal, replayed=False) == ["e-2"]
    under.clock.time += 3601
    await fail(under.journal, "e-1")
    assert await ids(under.journal, replayed=False) == ["e-2", "e-1"]


async def test_a_letter_of_a_new_event_under_an_old_identity_has_the_new_bytes(under: Under) -> None:
    """Who replays it gets what failed last."""
    await fail(under.journal, "e-1", version="old")
    under.clock.time += 3601
    kept = await fail(under.journal, "e-1", version="new")
    assert kept.body == entry("e-1", version="new").event.data


async def test_there_is_nothing_to_readmit_of_an_unknown_letter(under: Under) -> None:
    """And its event is not taken into custody by the attempt."""
    assert await under.journal.readmit(99, entry("e-1")) is None
    assert not await under.journal.seen(identity("e-1"))


async def test_the_oldest_letters_make_room_by_number(under: Under) -> None:
    """``deadLetters.maxCount``."""
    for number in range(1, 9):
        await under.journal.park(letter(number))
    assert await ids(under.journal) == ["r-8", "r-7", "r-6", "r-5", "r-4"]
    assert await under.journal.count() == 5


async def test_the_oldest_letters_make_room_by_bytes(under: Under) -> None:
    """``deadLetters.maxBytes``."""
    for number in range(1, 5):
        await under.journal.park(letter(number, size=1800))
    assert await ids(under.journal) == ["r-4", "r-3"]
    await under.journal.discard((await under.journal.letters(LetterFilter(), 1))[0].id or 0)
    await under.journal.park(letter(5, size=1800))
    assert await ids(under.journal) == ["r-5", "r-3"]


async def test_a_letter_that_grows_does_not_make_room_for_itself(under: Under) -> None:
    """The oldest of all may have failed again just now, and its event must not end in silence."""
    old = await fail(under.journal, "e-1")
    await under.journal.park(letter(2, size=1800))
    again = entry("e-1", note="x" * 2000)
    receipt = taken(await under.journal.readmit(old.id or 0, again))
    await receipt.settle(result(again.event, Outcome.FAILED))
    assert await ids(under.journal) == ["e-1"]
    assert (await under.journal.letters(LetterFilter(), 1))[0].body == again.event.data


async def test_letters_that_are_too_old_go_and_whoever_went_is_counted(under: Under) -> None:
    """``deadLetters.maxAge`` counts from the last failure; the counter tells of both kinds of going."""
    for number in range(1, 7):  # the first makes room
        await under.journal.park(letter(number))
        under.clock.time += 1
    under.clock.time += 3590
    again = letter(3, last_at=moment(under.clock.time))
    await under.journal.park(again)
    under.clock.time += 10
    keeper = asyncio.create_task(under.journal.keep_house())
    while await under.journal.count() > 1 or under.journal.evicted < 5:  # noqa: ASYNC110 -- no event tells of it
        await asyncio.sleep(0.01)
    keeper.cancel()
    assert await ids(under.journal) == ["r-3"]
    assert under.journal.evicted == 5


async def test_what_is_rejected_again_has_one_letter(under: Under) -> None:
    """A sender that tries for ever must not push out all others."""
    await under.journal.park(letter(1))
    await under.journal.park(letter(2))
    await under.journal.park(letter(1, last_at=moment(under.clock.time + 60)))
    assert await ids(under.journal) == ["r-2", "r-1"]
    again = await under.journal.letter(1)
    assert again is not None
    assert (again.first_at, again.last_at) == (building.NOON, building.NOON + timedelta(minutes=1))


async def test_a_letter_comes_back_as_it_was_kept(under: Under) -> None:
    """Every field, and every byte."""
    strange = letter(body=bytes(range(256)), attributes={"id": "é\0\n\"'", "type": "t"}, message="“so”\0", attempts=7)
    await under.journal.park(strange)
    (kept,) = await under.journal.letters(LetterFilter(), 10)
    assert kept == dataclasses.replace(strange, id=kept.id)


async def test_a_new_journal_has_nothing(under: Under) -> None:
    """No trouble, no results, no work."""
    assert under.journal.trouble is None
    assert list(await under.journal.results()) == []
    assert [one async for one in under.journal.unfinished()] == []
    assert await under.journal.count() == 0
