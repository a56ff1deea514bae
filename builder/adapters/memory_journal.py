"""The journal in memory: what it holds is gone with the process."""

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence

from builder.flow.ports import Entry, Receipt
from builder.models import DeadLetter, Event, Result
from builder.settings import DeadLetters, Idempotency


class MemoryJournal:
    """Seen identities for ``idempotency.ttl`` seconds, and dead letters, both bounded. ``clock`` is monotonic."""

    def __init__(self, idempotency: Idempotency, dead_letters: DeadLetters, clock: Callable[[], float]) -> None:
        self._idempotency = idempotency
        self._bounds = dead_letters
        self._clock = clock
        self._seen: OrderedDict[bytes, float] = OrderedDict()
        self._letters: deque[DeadLetter] = deque()
        self._bytes = 0

    async def seen(self, identity: bytes) -> bool:
        """True if admitted within the time to live."""
        until = self._seen.get(identity)
        return until is not None and until > self._clock()

    async def admit(self, entry: Entry) -> Receipt | None:
        """Remember the identity; None if it is known."""
        identity = entry.event.identity
        now = self._clock()
        until = self._seen.get(identity)
        if until is not None:
            if until > now:
                return None
            del self._seen[identity]  # its new place is at the end
        self._seen[identity] = now + self._idempotency.ttl
        self._forget_old(now)
        return _Receipt(self, entry.event)

    async def park(self, letter: DeadLetter) -> None:
        """Keep a dead letter; the oldest make room."""
        self._letters.append(letter)
        self._bytes += _size(letter)
        while len(self._letters) > self._bounds.max_count or self._bytes > self._bounds.max_bytes:
            self._bytes -= _size(self._letters.popleft())

    async def dead_letters(self) -> Sequence[DeadLetter]:
        """The newest first."""
        return list(reversed(self._letters))

    def _forget_old(self, now: float) -> None:
        while len(self._seen) > self._idempotency.max_entries or next(iter(self._seen.values())) <= now:
            self._seen.popitem(last=False)


class _Receipt:
    """Keeps the event for its dead letter, should it come to that."""

    __slots__ = ("_event", "_journal")

    def __init__(self, journal: MemoryJournal, event: Event) -> None:
        self._journal = journal
        self._event = event

    async def settle(self, result: Result) -> None:
        if result.failure is not None:
            await self._journal.park(DeadLetter.of_failure(self._event, result, result.failure))


def _size(letter: DeadLetter) -> int:
    return (
        len(letter.body)
        + len(letter.message)
        + sum(len(name) + len(value) for name, value in letter.attributes.items())
    )
