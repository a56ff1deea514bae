"""What the use cases need of the world, and nothing more. ``builder.adapters`` has the implementations."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

from builder.models import DeadLetter, Event, Manifest, Result


class Cluster(Protocol):
    """The Jobs of one namespace.

    Every method raises the ``ClusterError`` that fits what the API server said, and none retries: retries belong to
    the worker pool.
    """

    async def create(self, job: Manifest) -> None:
        """Create the Job.

        Raises:
            AlreadyExists: something has that name; it has not been looked at.
        """

    async def get(self, name: str) -> Manifest | None:
        """The Job as it is now; None where there is none."""

    async def delete(self, name: str, uid: str, *, foreground: bool) -> None:
        """Delete the Job and its Pods; well if it is gone already.

        In the background the name is free at once and the Pods go right after it. In the foreground the Job keeps its
        name, with a ``deletionTimestamp``, until its Pods are gone.

        Raises:
            Conflict: the Job of that name is not the one with this uid.
        """

    async def probe(self) -> None:
        """Return if the API server answers us; raise the ``ClusterError`` that says why not."""


class Rights(Protocol):
    """What we may do in the cluster."""

    async def missing_permissions(self) -> Sequence[str]:
        """What we need and may not, such as ``create jobs.batch in namespace builds``.

        Raises:
            ClusterError: nobody can say.
        """


class Entry(NamedTuple):
    """An event at the door, about to be taken into custody."""

    event: Event
    accepted_at: datetime
    priority: int


class Receipt(Protocol):
    """Proof that somebody holds an accepted event until it is settled."""

    def note(self, progress: str) -> None:
        """Keep how far the event has come, in words of the worker pool's own. Soon, not at once: it may be lost."""

    async def settle(self, result: Result) -> None:
        """The event has come to its end; a failure becomes a dead letter. Called once.

        Raises:
            StorageError: that could not be kept; the event is still held.
            HandedBack: it has failed here, but is not held any more: others have it, and will end it.
        """


@dataclass(frozen=True, slots=True)
class Unfinished:
    """An accepted event that an earlier process did not finish.

    ``progress`` is the last that was noted, ``place`` its age among those of its priority.
    """

    entry: Entry
    receipt: Receipt
    progress: str | None
    place: int


class Custodian(Protocol):
    """Who can hold an event that is at the door: the journal, or whatever its transport brought along.

    Every method but ``outcome`` raises ``StorageError`` while nothing can be read or written.
    """

    async def seen(self, identity: bytes) -> bool:
        """True if an event of this identity was admitted within the time to live."""

    async def admit(self, entry: Entry) -> Receipt | None:
        """Take the event into custody; None if its identity was admitted before.

        The check and the taking are one step: of two concurrent calls with one identity, one gets the receipt.
        """

    def outcome(self, identity: bytes) -> "asyncio.Future[Result] | None":
        """The end of an event that is under way and that only its sender could send again; None of any other."""

    async def park(self, letter: DeadLetter) -> None:
        """Keep an event that was rejected at the door."""


class Holder(Protocol):
    """Who may hold an event that has not come to its end."""

    async def holds(self, identity: bytes) -> bool:
        """True if an event of this identity was admitted, by this process or an earlier one, and is not settled."""


class Journal(Custodian, Holder, Protocol):
    """Holds accepted events until they are settled, remembers what was seen, and keeps the dead letters."""

    @property
    def trouble(self) -> str | None:
        """Why nothing can be kept at the moment; None in good times."""

    @property
    def evicted(self) -> int:
        """How many dead letters made room for others or were too old. May lag behind by a second."""

    def remember(self, event: Event, result: Result) -> None:
        """An event that somebody else held has ended well: it is seen from now on. Soon, not at once."""

    def unfinished(self, after: Unfinished | None = None) -> AsyncIterator[Unfinished]:
        """What an earlier process left, by priority and age; ``after`` is the last that is known already."""

    async def results(self) -> Sequence[Result]:
        """The outcomes that can still be asked for, the oldest first."""


class MessageSource(Protocol):
    """The road from the broker, for those who look at it."""

    @property
    def trouble(self) -> str | None:
        """Why nothing comes, or why dead letters cannot be kept; None in good times."""

    @property
    def held(self) -> int:
        """Messages that we have and the broker waits to hear of."""

    @property
    def ready(self) -> int | None:
        """Messages that wait in the broker; None if nobody knows."""


@dataclass(frozen=True, slots=True)
class LetterFilter:
    """Which dead letters: None means any. Times are of the last failure; ``before`` is an id, for the next page."""

    reason: str | None = None
    type: str | None = None
    third_party_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    replayed: bool | None = None
    before: int | None = None

    def admits(self, letter: DeadLetter) -> bool:
        """True for a letter that is wanted."""
        return (
            self.reason in (None, letter.reason.value)
            and self.type in (None, letter.attributes.get("type"))
            and self.third_party_id in (None, letter.third_party_id)
            and (self.since is None or letter.last_at >= self.since)
            and (self.until is None or letter.last_at < self.until)
            and self.replayed in (None, letter.replayed_at is not None)
            and (self.before is None or (letter.id is not None and letter.id < self.before))
        )


class DeadLetterBox(Protocol):
    """The dead letters, for those who look at them and send them again."""

    async def count(self) -> int:
        """How many there are, replayed ones included."""

    async def letters(self, wanted: LetterFilter, limit: int) -> Sequence[DeadLetter]:
        """At most ``limit`` letters, the newest first."""

    async def letter(self, letter_id: int) -> DeadLetter | None:
        """One letter."""

    async def discard(self, letter_id: int) -> bool:
        """Forget a letter; False if there is none."""

    async def readmit(self, letter_id: int, entry: Entry) -> Receipt | None:
        """Take a letter's event into custody again and mark the letter as replayed, in one step.

        None if that has been done already, or the event is in custody anyway.
        """


class Trace(Protocol):
    """One item in the eyes of those who look at traces. ``traceparent`` is what its Job carries on.

    ``example_id`` is for a metric to lead to the trace by: None of one that nobody keeps.
    """

    traceparent: str
    example_id: str | None

    def working(self) -> AbstractContextManager[None]:
        """Around each time that a worker has the item: what came before was waiting."""
        ...

    def end(self, result: Result) -> None:
        """The item has come to its end."""
        ...


class Tracing(Protocol):
    """Makes traces. There is none unless somebody asks for it."""

    def begin(self, event: Event, accepted_at: datetime) -> Trace:
        """Of an accepted event; a part of the trace that its sender began, if there is one."""
        ...

    def traced(self, cluster: Cluster) -> Cluster:
        """A cluster whose calls are a part of the trace of who calls."""
        ...
