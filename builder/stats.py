"""The facts that the service counts about itself. Each is counted once, here; JSON and Prometheus both read it."""

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import product
from typing import NamedTuple, TypeVar

from builder.models import FLOWS, Decision, FailureReason, Flow, Outcome, RejectReason

K = TypeVar("K", bound=str)

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0)
"""Upper bounds in seconds: from one quick call to a build that waited for another."""


class RefusedBecause(StrEnum):
    """Why a sender was told to come back later."""

    QUEUE_FULL = "queue_full"
    DRAINING = "draining"
    HTTP_OFF = "http_off"
    JOURNAL = "journal"


class MessageEnd(StrEnum):
    """What the broker heard of a message that it gave us."""

    ACKED = "acked"
    REQUEUED = "requeued"


class ApiCall(StrEnum):
    """What is asked of the API server. Closed: it is a metric's label."""

    CREATE = "create"
    GET = "get"
    DELETE = "delete"
    PROBE = "probe"


class ApiAnswer(StrEnum):
    """How it answers: the error tree in a word. Closed: it is a metric's label."""

    OK = "ok"
    ALREADY_EXISTS = "already_exists"
    CONFLICT = "conflict"
    TRANSIENT = "transient"
    QUOTA = "quota"
    DENIED = "denied"
    UNREACHABLE = "unreachable"


class Example(NamedTuple):
    """One duration in seconds, and the trace that shows where it went. ``at`` is the time of day, in seconds."""

    trace_id: str
    seconds: float
    at: float


class Histogram:
    """Durations in seconds: Prometheus' buckets, the last thousand for percentiles, a late example of each bucket."""

    def __init__(self, buckets: Iterable[float] = BUCKETS) -> None:
        self.bounds = tuple(buckets)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0
        self.examples: dict[int, Example] = {}
        self._recent: deque[float] = deque(maxlen=1000)

    @property
    def count(self) -> int:
        """How many durations were observed."""
        return sum(self.counts)

    def observe(self, seconds: float, example: Example | None = None) -> None:
        """Count one duration."""
        bucket = bisect_left(self.bounds, seconds)
        self.counts[bucket] += 1
        if example is not None:
            self.examples[bucket] = example
        self.sum += seconds
        self._recent.append(seconds)

    def percentiles(self, *wanted: int) -> dict[str, float | None]:
        """``{"p50": seconds, …}`` of the last thousand (nearest rank), None while there is nothing."""
        ordered = sorted(self._recent)
        last = len(ordered) - 1
        return {f"p{rank}": round(ordered[round(last * rank / 100)], 6) if ordered else None for rank in wanted}


def _all_zero(kinds: Iterable[K]) -> Counter[K]:
    """Every value at 0 from the start: Prometheus' ``increase()`` misses the first of a series that appears at 1."""
    return Counter(dict.fromkeys(kinds, 0))


class Stats:
    """Counters of one running service."""

    def __init__(self) -> None:
        self.accepted: Counter[Flow] = _all_zero(FLOWS)
        self.duplicates: Counter[Flow] = _all_zero(FLOWS)
        self.rejected: Counter[RejectReason] = _all_zero(RejectReason)
        self.refused: Counter[RefusedBecause] = _all_zero(RefusedBecause)
        self.outcomes: Counter[Outcome] = _all_zero(Outcome)
        self.ended: Counter[tuple[Flow, Outcome]] = Counter(dict.fromkeys(product(FLOWS, Outcome), 0))
        self.failures: Counter[FailureReason] = _all_zero(FailureReason)
        self.conflicts: Counter[Decision] = _all_zero(Decision)
        self.answers: Counter[str] = Counter(dict.fromkeys(("2xx", "4xx", "5xx"), 0))
        self.messages: Counter[MessageEnd] = _all_zero(MessageEnd)
        self.lettered: Counter[FailureReason | RejectReason] = Counter(
            dict.fromkeys([*FailureReason, *RejectReason], 0)
        )
        self.redelivered = 0
        self.message_age = Histogram()
        self.calls: Counter[tuple[ApiCall, ApiAnswer]] = Counter(dict.fromkeys(product(ApiCall, ApiAnswer), 0))
        self.retries = 0
        self.creation = Histogram()
        self.api_calls = Histogram()


@dataclass(frozen=True, slots=True)
class BrokerGauges:
    """The road from the broker, at rest where none is configured.

    ``ready`` counts the messages that wait there; None if nobody knows.
    """

    up: bool = True
    held: int = 0
    ready: int | None = 0


@dataclass(frozen=True, slots=True)
class Gauges:
    """What is so at this moment. Ages in seconds; ``waiting`` counts the items that were set aside, by what for."""

    queue_size: int
    queue_capacity: int
    oldest_age: float
    workers: int
    workers_busy: int
    waiting: Mapping[str, int]
    results: int
    api_server_up: bool
    letters_evicted: int
    journal_writable: bool
    draining: bool
    broker: BrokerGauges
