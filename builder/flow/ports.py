"""What the use cases need of the world, and nothing more. ``builder.adapters`` has the implementations."""

from collections.abc import Sequence
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


class Entry(NamedTuple):
    """An event at the door, about to be taken into custody."""

    event: Event
    accepted_at: datetime


class Receipt(Protocol):
    """Proof that somebody holds an accepted event until it is settled."""

    async def settle(self, result: Result) -> None:
        """The event has come to its end; a failure becomes a dead letter. Called once."""


class Journal(Protocol):
    """Holds accepted events until they are settled, remembers what was seen, and keeps the dead letters."""

    async def seen(self, identity: bytes) -> bool:
        """True if an event of this identity was admitted within the time to live."""

    async def admit(self, entry: Entry) -> Receipt | None:
        """Take the event into custody; None if its identity was admitted before.

        The check and the taking are one step: of two concurrent calls with one identity, one gets the receipt.
        """

    async def park(self, letter: DeadLetter) -> None:
        """Keep an event that was rejected at the door."""

    async def dead_letters(self) -> Sequence[DeadLetter]:
        """What is kept, the newest first."""
