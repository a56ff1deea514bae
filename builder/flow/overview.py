"""The service at a glance: the gauges for Prometheus and the document behind ``/async-jobs/stats``."""

from collections.abc import Callable
from typing import Any

from builder.flow.build_queue import BuildQueue
from builder.flow.intake import Intake
from builder.flow.outage import Outage
from builder.flow.permissions import Permissions
from builder.flow.ports import Journal, MessageSource
from builder.flow.recovery import Recovery
from builder.flow.results import Results
from builder.flow.worker_pool import WorkerPool
from builder.models import FLOWS, FailureReason, Outcome
from builder.stats import ApiAnswer, ApiCall, BrokerGauges, Gauges, Histogram, Stats


class Overview:
    """Reads what others keep; keeps nothing. ``clock`` is monotonic."""

    def __init__(
        self,
        stats: Stats,
        queue: BuildQueue,
        pool: WorkerPool,
        outage: Outage,
        permissions: Permissions,
        results: Results,
        intake: Intake,
        journal: Journal,
        recovery: Recovery,
        clock: Callable[[], float],
        source: MessageSource | None = None,
    ) -> None:
        self._stats = stats
        self._queue = queue
        self._pool = pool
        self._outage = outage
        self._permissions = permissions
        self._results = results
        self._intake = intake
        self._journal = journal
        self._recovery = recovery
        self._clock = clock
        self._source = source

    def gauges(self) -> Gauges:
        """What is so now."""
        oldest = self._queue.oldest()
        return Gauges(
            queue_size=len(self._queue),
            queue_capacity=self._queue.capacity,
            oldest_age=0.0 if oldest is None else self._clock() - oldest.accepted,
            workers=len(self._pool.busy),
            workers_busy=sum(item is not None for item in self._pool.busy.values()),
            waiting={wait.value: count for wait, count in self._pool.room.waiting.items()},
            results=len(self._results),
            api_server_up=self._outage.reason is None,
            letters_evicted=self._journal.evicted,
            journal_writable=self._journal.trouble is None,
            draining=self._intake.closed,
            broker=self._broker_gauges(),
        )

    def not_ready(self) -> str | None:
        """Why the service should get no traffic now; None if it should."""
        if self._intake.closed:
            return "shutting down"
        if self._journal.trouble is not None:
            return f"journal: {self._journal.trouble}"
        if self._recovery.under_way:
            return "bringing back unfinished work"
        if self._outage.reason is not None:
            return f"Kubernetes API server: {self._outage.reason}"
        if self._permissions.missing:
            return f"Kubernetes permissions: missing: {', '.join(self._permissions.missing)}"
        if self._source is not None and self._source.trouble is not None:
            return f"RabbitMQ: {self._source.trouble}"
        return None

    def result(self, correlation_id: str) -> dict[str, Any] | None:
        """What became of a request; None if nobody knows."""
        return self._results.get(correlation_id)

    def stats(self) -> dict[str, Any]:
        """The five names that existing callers read come first."""
        gauges, stats = self.gauges(), self._stats
        return {
            "worker_count": gauges.workers,
            "queue_size": gauges.queue_size,
            "max_queue_size": gauges.queue_capacity,
            "results_count": gauges.results,
            "is_shutdown": gauges.draining,
            "active_workers": gauges.workers_busy,
            "workers": self._workers(),
            "waiting": dict(gauges.waiting),
            "quota": self._pool.line.refusal,
            "oldest_age_seconds": round(gauges.oldest_age, 3),
            "accepted": dict(stats.accepted),
            "duplicates": dict(stats.duplicates),
            "rejected": dict(stats.rejected),
            "refused": dict(stats.refused),
            "outcomes": {outcome.value: stats.outcomes[outcome] for outcome in Outcome},
            "ended": {flow: {end.value: stats.ended[flow, end] for end in Outcome} for flow in FLOWS},
            "failures": {reason.value: stats.failures[reason] for reason in FailureReason if stats.failures[reason]},
            "retries": stats.retries,
            "conflicts": {decision.value: count for decision, count in stats.conflicts.items() if count},
            "brought_back": self._recovery.count,
            "dead_letters": {"evicted": gauges.letters_evicted},
            "journal": {"writable": self._journal.trouble is None, "trouble": self._journal.trouble},
            "creation_seconds": _summary(stats.creation),
            "api_seconds": _summary(stats.api_calls),
            "api_calls": _calls(stats),
            "api_server": {"up": gauges.api_server_up, "reason": self._outage.reason, "outages": self._outage.count},
            "missing_permissions": list(self._permissions.missing),
            "broker": self._broker(),
        }

    def _broker_gauges(self) -> BrokerGauges:
        source = self._source
        return BrokerGauges() if source is None else BrokerGauges(source.trouble is None, source.held, source.ready)

    def _broker(self) -> dict[str, Any] | None:
        """None where none is configured."""
        source, stats = self._source, self._stats
        if source is None:
            return None
        return {
            "up": source.trouble is None,
            "reason": source.trouble,
            "ready": source.ready,
            "held": source.held,
            "messages": dict(stats.messages),
            "redelivered": stats.redelivered,
            "dead_letters": {reason.value: count for reason, count in stats.lettered.items() if count},
            "age_at_ack_seconds": _summary(stats.message_age),
        }

    def _workers(self) -> list[dict[str, Any]]:
        now = self._clock()
        return [
            {
                "worker": number,
                "correlation_id": None if item is None else item.correlation_id,
                "age_seconds": None if item is None else round(now - item.accepted, 3),
            }
            for number, item in self._pool.busy.items()
        ]


def _calls(stats: Stats) -> dict[str, dict[str, int]]:
    """``{"create": {"ok": 5, "quota": 1}, …}``; answers that never came are left out."""
    return {
        call.value: {answer.value: stats.calls[call, answer] for answer in ApiAnswer if stats.calls[call, answer]}
        for call in ApiCall
    }


def _summary(histogram: Histogram) -> dict[str, float | int | None]:
    return {"count": histogram.count, **histogram.percentiles(50, 95, 99)}
