"""One accepted event on its way to an outcome, and the steps that it can take."""

import json
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from math import isnan

from builder.flow.ports import Receipt, Trace
from builder.models import BuildRequest, Event, Failure, Flow, Outcome, Result, Target


class Wait(StrEnum):
    """What an item that was set aside waits for. Closed: it is a metric's label."""

    RETRY = "retry"
    ACTIVE_BUILD = "active_build"
    DELETION = "deletion"
    CAPACITY = "capacity"


@dataclass(frozen=True, slots=True)
class Done:
    """The item has come to its end. ``failure`` is there if, and only if, it failed; ``image`` if there is a Job."""

    outcome: Outcome
    failure: Failure | None = None
    image: str | None = None


@dataclass(frozen=True, slots=True)
class Again:
    """The item is set aside for ``delay`` seconds and then goes to the queue again."""

    wait: Wait
    delay: float
    message: str


@dataclass(slots=True, eq=False)
class Patience:
    """How long an item has been tried and has waited, so that both end. Monotonic times, in seconds.

    ``retries`` counts the API server's transient failures, ``waits`` each time that the item was set aside. What it
    waits for (``waiting_for``: a Job's uid, or "quota") may take until ``until``.
    """

    attempts: int = 0
    retries: int = 0
    waits: int = 0
    waiting_for: str | None = None
    until: float = 0.0
    note: str = ""
    """Of the Jobs that its own Job comes after (``builder.jobs.succession``), once the last of them may be deleted."""

    def saved(self, now: float) -> str:
        """As text that outlives the process, whose clock does not: what is left of the time to wait."""
        left = max(0.0, self.until - now)
        return json.dumps([self.attempts, self.retries, self.waits, self.waiting_for, left, self.note])

    @classmethod
    def restored(cls, text: str | None, now: float) -> "Patience":
        """From ``saved``; anew from nothing, or from what is no such text (any more): it costs some tries, no event."""
        try:
            saved = None if text is None else json.loads(text)
        except (ValueError, RecursionError):
            saved = None
        match saved:
            case [int(attempts), int(retries), int(waits), str() | None as what, int() | float() as left, *rest]:
                note = rest[0] if rest and isinstance(rest[0], str) else ""  # earlier versions kept none
                return cls() if isnan(left) else cls(attempts, retries, waits, what, now + left, note)
        return cls()

    def wait_for(self, what: str, now: float, bound: float) -> bool:
        """Begin or go on waiting for ``what``, at most ``bound`` seconds from when it began. False if time is up."""
        if self.waiting_for != what:
            self.waiting_for, self.until = what, now + bound
        return now < self.until


@dataclass(slots=True, eq=False)
class Item:
    """An accepted event in the queue.

    It keeps the event's bytes, not the request made of them: 10^5 of these live in memory, and the worker reads them
    again in microseconds. ``accepted`` is monotonic, ``accepted_at`` is for people.
    """

    event: Event
    receipt: Receipt
    accepted_at: datetime
    accepted: float
    requested_at: datetime
    target: Target
    correlation_id: str
    priority: int
    flow: Flow
    state: str = "queued"
    patience: Patience = field(default_factory=Patience)
    trace: Trace | None = None
    following: "Item | None" = None
    """The link of ``builder.flow.fair_order``."""

    @property
    def party(self) -> str:
        """Whose turn it uses in the queue."""
        return self.target.third_party_id

    @classmethod
    def of(
        cls, event: Event, request: BuildRequest, receipt: Receipt, accepted_at: datetime, accepted: float, flow: Flow
    ) -> "Item":
        """The item of a checked request."""
        return cls(
            event=event,
            receipt=receipt,
            accepted_at=accepted_at,
            accepted=accepted,
            requested_at=request.requested_at,
            target=request.target,
            correlation_id=request.correlation_id,
            priority=request.priority,
            flow=flow,
        )

    def result(self, done: Done, finished_at: datetime, job_name: str | None) -> Result:
        """What is remembered of the item when it has come to its end."""
        return Result(
            event_id=self.event.id,
            event_source=self.event.source,
            correlation_id=self.correlation_id,
            target=self.target,
            outcome=done.outcome,
            accepted_at=self.accepted_at,
            finished_at=finished_at,
            attempts=self.patience.attempts,
            job_name=job_name,
            image=done.image,
            failure=done.failure,
        )
