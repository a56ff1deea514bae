"""The journal in memory, for ``custody: sender``: whoever sent an event keeps it until its Job exists."""

import asyncio
import dataclasses
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence

from builder.flow.ports import Entry, LetterFilter, Receipt, Unfinished
from builder.models import DeadLetter, Event, FailureReason, Outcome, Result
from builder.settings import DeadLetters, Idempotency


class MemoryJournal:
    """What it holds is gone with the process, so nothing is promised before it is done: senders wait for ``outcome``.

    A failed event is not remembered as seen, for its sender still has it and may send it again. ``clock`` is
    monotonic.
    """

    trouble: str | None = None

    def __init__(self, idempotency: Idempotency, dead_letters: DeadLetters, clock: Callable[[], float]) -> None:
        self._idempotency = idempotency
        self._bounds = dead_letters
        self._clock = clock
        self._running: dict[bytes, asyncio.Future[Result] | None] = {}  # a future where somebody waits
        self._seen: OrderedDict[bytes, float] = OrderedDict()
        self._letters: OrderedDict[int, DeadLetter] = OrderedDict()
        self._next_letter = 1
        self._bytes = 0

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

    def remember(self, event: Event, _result: Result) -> None:
        """See ``Journal``."""
        self._remember(event.identity)

    def _remember(self, identity: bytes) -> None:
        now = self._clock()
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
        self._keep(dataclasses.replace(letter, id=self._next_letter), self._next_letter)
        self._next_letter += 1

    def _keep(self, letter: DeadLetter, letter_id: int) -> None:
        if letter_id in self._letters:
            self._bytes -= _size(self._letters[letter_id])
        self._letters[letter_id] = letter
        self._bytes += _size(letter)
        while len(self._letters) > self._bounds.max_count or self._bytes > self._bounds.max_bytes:
            _, oldest = self._letters.popitem(last=False)
            self._bytes -= _size(oldest)

    async def count(self) -> int:
        """See ``DeadLetterBox``."""
        return len(self._letters)

    async def letters(self, wanted: LetterFilter, limit: int) -> Sequence[DeadLetter]:
        """See ``DeadLetterBox``."""
        return [letter for letter in reversed(self._letters.values()) if wanted.admits(letter)][:limit]

    async def letter(self, letter_id: int) -> DeadLetter | None:
        """See ``DeadLetterBox``."""
        return self._letters.get(letter_id)

    async def discard(self, letter_id: int) -> bool:
        """See ``DeadLetterBox``."""
        letter = self._letters.pop(letter_id, None)
        if letter is not None:
            self._bytes -= _size(letter)
        return letter is not None

    async def readmit(self, letter_id: int, entry: Entry) -> Receipt | None:
        """See ``DeadLetterBox``."""
        letter = self._letters.get(letter_id)
        if letter is None or letter.replayed_at is not None:
            return None
        self._letters[letter_id] = dataclasses.replace(letter, replayed_at=entry.accepted_at)
        identity = entry.event.identity
        return None if identity in self._running else self._hold(identity, entry.event)

    async def keep_house(self) -> None:
        """Nothing needs it here: what is over makes room when something new comes."""
        await asyncio.get_running_loop().create_future()

    async def end(self, identity: bytes, event: Event, result: Result) -> None:
        """See ``Receipt.settle``."""
        if result.failure is not None:
            await self._park_failure(event, DeadLetter.of_failure(event, result, result.failure))
        if result.outcome is not Outcome.FAILED:
            self._remember(identity)
        end = self._running.pop(identity)
        if end is not None and not end.done():
            end.set_result(result)

    async def _park_failure(self, event: Event, letter: DeadLetter) -> None:
        """One event has one letter, however often its sender tries."""
        for letter_id, known in reversed(self._letters.items()):
            same = (known.attributes.get("source"), known.attributes.get("id")) == (event.source, event.id)
            if same and isinstance(known.reason, FailureReason):
                attempts = known.attempts + letter.attempts
                self._keep(
                    dataclasses.replace(letter, id=letter_id, first_at=known.first_at, attempts=attempts), letter_id
                )
                return
        await self.park(letter)

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


def _size(letter: DeadLetter) -> int:
    return (
        len(letter.body)
        + len(letter.message)
        + sum(len(name) + len(value) for name, value in letter.attributes.items())
    )
