"""The journal in memory, for ``custody: sender``: whoever sent an event keeps it until its Job exists."""

import asyncio
import dataclasses
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from itertools import islice
from typing import NamedTuple

from builder.flow.ports import Entry, LetterFilter, Receipt, Unfinished
from builder.models import DeadLetter, Event, Outcome, Result
from builder.settings import DeadLetters, Idempotency


class MemoryJournal:
    """What it holds is gone with the process, so nothing is promised before it is done: senders wait for ``outcome``.

    A failed event is not remembered as seen, for its sender still has it and may send it again. ``clock`` is
    monotonic.
    """

    trouble: str | None = None

    def __init__(self, idempotency: Idempotency, dead_letters: DeadLetters, clock: Callable[[], float]) -> None:
        self._idempotency = idempotency
        self._max_age = dead_letters.max_age
        self._clock = clock
        self._running: dict[bytes, asyncio.Future[Result] | None] = {}  # a future where somebody waits
        self._seen: OrderedDict[bytes, float] = OrderedDict()
        self._box = _Letters(dead_letters)

    async def seen(self, identity: bytes) -> bool:
        """See ``Journal``."""
        return self._knows(identity)

    def _knows(self, identity: bytes) -> bool:
        if identity in self._running:
            return True
        until = self._seen.get(identity)
        return until is not None and until > self._clock()

    async def holds(self, identity: bytes) -> bool:
        """See ``Journal``."""
        return identity in self._running

    async def admit(self, entry: Entry) -> Receipt | None:
        """See ``Journal``."""
        identity = entry.event.identity
        return None if self._knows(identity) else self._hold(identity, entry.event)

    def outcome(self, identity: bytes) -> asyncio.Future[Result] | None:
        """See ``Journal``."""
        if identity not in self._running:
            return None
        end = self._running[identity]
        if end is None:
            end = self._running[identity] = asyncio.get_running_loop().create_future()
        return end

    def remember(self, event: Event, result: Result) -> None:
        """See ``Journal``."""
        self._remember(event.identity, result)

    def _remember(self, identity: bytes, result: Result) -> None:
        now = self._clock()
        self._box.mark_resolved(identity, result.finished_at)
        self._seen.pop(identity, None)
        self._seen[identity] = now + self._idempotency.ttl
        self._forget_old(now)

    async def unfinished(self, _after: Unfinished | None = None) -> AsyncIterator[Unfinished]:
        """See ``Journal``: nothing outlives a process here."""
        nothing: tuple[Unfinished, ...] = ()
        for one in nothing:
            yield one

    async def results(self) -> Sequence[Result]:
        """See ``Journal``."""
        return ()

    async def park(self, letter: DeadLetter) -> None:
        """See ``Journal``. The oldest letters make room."""
        self._box.keep(letter, letter.key(None), self._clock())

    @property
    def evicted(self) -> int:
        """See ``Journal``."""
        return self._box.evicted

    async def count(self) -> int:
        """See ``DeadLetterBox``."""
        return len(self._box.kept)

    async def letters(self, wanted: LetterFilter, limit: int) -> Sequence[DeadLetter]:
        """See ``DeadLetterBox``."""
        letters = (kept.letter for kept in reversed(self._box.kept.values()))
        return list(islice(filter(wanted.admits, letters), limit))

    async def letter(self, letter_id: int) -> DeadLetter | None:
        """See ``DeadLetterBox``."""
        kept = self._box.kept.get(letter_id)
        return None if kept is None else kept.letter

    async def discard(self, letter_id: int) -> bool:
        """See ``DeadLetterBox``."""
        return self._box.remove(letter_id)

    async def readmit(self, letter_id: int, entry: Entry) -> Receipt | None:
        """See ``DeadLetterBox``."""
        if not self._box.mark_replayed(letter_id, entry.accepted_at):
            return None
        identity = entry.event.identity
        return None if identity in self._running else self._hold(identity, entry.event)

    async def keep_house(self, period: float = 60.0) -> None:
        """Remove letters that are too old. The rest makes room when something new comes. Runs for life."""
        while True:
            self._box.expire(self._clock() - self._max_age)
            await asyncio.sleep(period)

    async def end(self, identity: bytes, event: Event, result: Result) -> None:
        """See ``Receipt.settle``."""
        if result.failure is not None:
            letter = DeadLetter.of_failure(event, result, result.failure)
            self._box.keep(letter, letter.key(identity), self._clock())
        if result.outcome is not Outcome.FAILED:
            self._remember(identity, result)
        end = self._running.pop(identity)
        if end is not None and not end.done():
            end.set_result(result)

    def _hold(self, identity: bytes, event: Event) -> Receipt:
        self._running[identity] = None
        return _Receipt(self, identity, event)

    def _forget_old(self, now: float) -> None:
        while len(self._seen) > self._idempotency.max_entries or next(iter(self._seen.values())) <= now:
            self._seen.popitem(last=False)


class _Receipt:
    """Keeps the event for its dead letter, should it come to that."""

    __slots__ = ("_event", "_identity", "_journal")

    def __init__(self, journal: MemoryJournal, identity: bytes, event: Event) -> None:
        self._journal = journal
        self._identity = identity
        self._event = event

    def note(self, progress: str) -> None:
        """Nothing outlives the process, so nothing is noted for later."""

    async def settle(self, result: Result) -> None:
        await self._journal.end(self._identity, self._event, result)


class _Kept(NamedTuple):
    letter: DeadLetter
    key: bytes
    last: float  # when it last failed, monotonic


class _Letters:
    """The letters by id, the oldest first, and what keeps them inside their bounds."""

    def __init__(self, bounds: DeadLetters) -> None:
        self.kept: OrderedDict[int, _Kept] = OrderedDict()
        self.evicted = 0
        self._bounds = bounds
        self._ids: dict[bytes, int] = {}
        self._last_id = 0
        self._bytes = 0

    def keep(self, letter: DeadLetter, key: bytes, now: float) -> None:
        """One event has one letter, however often its sender tries. The oldest letters make room."""
        letter_id = self._ids.get(key)
        if letter_id is None:
            self._last_id += 1
            letter_id = self._ids[key] = self._last_id
        else:
            known = self.kept[letter_id].letter
            self._bytes -= _size(known)
            letter = dataclasses.replace(letter, first_at=known.first_at, attempts=known.attempts + letter.attempts)
        self.kept[letter_id] = _Kept(dataclasses.replace(letter, id=letter_id), key, now)
        self._bytes += _size(letter)
        while len(self.kept) > 1 and (len(self.kept) > self._bounds.max_count or self._bytes > self._bounds.max_bytes):
            self._evict(next(one for one in self.kept if one != letter_id))

    def mark_replayed(self, letter_id: int, now: datetime) -> bool:
        """True if that was news."""
        kept = self.kept.get(letter_id)
        if kept is None or kept.letter.replayed_at is not None:
            return False
        self.kept[letter_id] = kept._replace(letter=dataclasses.replace(kept.letter, replayed_at=now))
        return True

    def mark_resolved(self, identity: bytes, now: datetime) -> None:
        """Its event came again, be it without a replay, and has ended well."""
        letter_id = self._ids.get(DeadLetter.key_of(identity))
        if letter_id is not None:
            self.mark_replayed(letter_id, now)

    def remove(self, letter_id: int) -> bool:
        """False if there is none."""
        kept = self.kept.pop(letter_id, None)
        if kept is None:
            return False
        del self._ids[kept.key]
        self._bytes -= _size(kept.letter)
        return True

    def expire(self, before: float) -> None:
        """Remove those that last failed before."""
        for letter_id in [one for one, kept in self.kept.items() if kept.last < before]:
            self._evict(letter_id)

    def _evict(self, letter_id: int) -> None:
        self.remove(letter_id)
        self.evicted += 1


def _size(letter: DeadLetter) -> int:
    return (
        len(letter.body)
        + len(letter.message)
        + sum(len(name) + len(value) for name, value in letter.attributes.items())
    )
