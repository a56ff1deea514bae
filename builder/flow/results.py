"""What became of each request, for those who ask by its correlation id."""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from builder.flow.items import Item
from builder.models import Result


class Results:
    """Requests in flight, and the outcomes of finished ones: at most ``max_entries``, each for ``ttl`` seconds.

    Where several requests share a correlation id, the last one answers. ``clock`` is monotonic.
    """

    def __init__(self, ttl: float, max_entries: int, clock: Callable[[], float]) -> None:
        self._ttl = ttl
        self._max_entries = max_entries
        self._clock = clock
        self._in_flight: dict[str, Item] = {}
        self._finished: OrderedDict[str, tuple[float, Result]] = OrderedDict()

    def __len__(self) -> int:
        """How many finished ones are kept."""
        self._forget_old()
        return len(self._finished)

    def begin(self, item: Item) -> None:
        """An event was accepted."""
        self._in_flight[item.correlation_id] = item

    def finish(self, item: Item, result: Result) -> None:
        """Its outcome is known."""
        self.forget(item)
        self._finished.pop(item.correlation_id, None)
        self._finished[item.correlation_id] = (self._clock() + self._ttl, result)
        self._forget_old()

    def forget(self, item: Item) -> None:
        """It has left us unfinished."""
        if self._in_flight.get(item.correlation_id) is item:
            del self._in_flight[item.correlation_id]

    def restore(self, results: Iterable[Result], now: datetime) -> None:
        """Outcomes of an earlier process, the oldest first, for what is left of their time.

        What has happened since counts more.
        """
        until = self._clock() + self._ttl
        latest = {result.correlation_id: result for result in results}
        for correlation_id, result in latest.items():
            age = max(0.0, (now - result.finished_at).total_seconds())
            self._finished.setdefault(correlation_id, (until - age, result))
        self._finished = OrderedDict(sorted(self._finished.items(), key=lambda entry: entry[1][0]))
        self._forget_old()

    def get(self, correlation_id: str) -> dict[str, Any] | None:
        """The request as people see it; None if nobody knows it (any more)."""
        item = self._in_flight.get(correlation_id)
        if item is not None:
            return _in_flight(item)
        self._forget_old()
        entry = self._finished.get(correlation_id)
        return None if entry is None else _finished(entry[1])

    def _forget_old(self) -> None:
        now = self._clock()
        while self._finished:
            until, _ = next(iter(self._finished.values()))
            if until > now and len(self._finished) <= self._max_entries:
                return
            self._finished.popitem(last=False)


def _in_flight(item: Item) -> dict[str, Any]:
    return {
        "correlation_id": item.correlation_id,
        "status": item.state.split(":", 1)[0],
        "message": item.state.partition(": ")[2] or None,
        "event": {"source": item.event.source, "id": item.event.id},
        "third_party_id": item.target.third_party_id,
        "parser_id": item.target.parser_id,
        "priority": item.priority,
        "attempts": item.patience.attempts,
        "accepted_at": item.accepted_at.isoformat(),
    }


def _finished(result: Result) -> dict[str, Any]:
    return {
        "correlation_id": result.correlation_id,
        "status": result.outcome.value,
        "reason": None if result.failure is None else result.failure.reason.value,
        "message": None if result.failure is None else result.failure.message,
        "event": {"source": result.event_source, "id": result.event_id},
        "third_party_id": result.target.third_party_id,
        "parser_id": result.target.parser_id,
        "job_name": result.job_name,
        "image": result.image,
        "attempts": result.attempts,
        "accepted_at": result.accepted_at.isoformat(),
        "finished_at": result.finished_at.isoformat(),
    }
