"""The facts of ``stats`` in Prometheus' words. Nothing is counted here, and nothing is registered globally."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

from builder.models import Outcome
from builder.stats import Gauges, Histogram, Stats

PREFIX = "knative_lambda_builder_"


class Metrics:
    """Renders one service's metrics. ``gauges`` is asked at each scrape."""

    def __init__(self, stats: Stats, gauges: Callable[[], Gauges]) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_StatsCollector(stats, gauges))
        ProcessCollector(registry=self._registry)

    def render(self, accept: str) -> tuple[bytes, str]:
        """The exposition and its content type, in the format that the ``Accept`` header asks for."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type


class _StatsCollector(Collector):
    def __init__(self, stats: Stats, gauges: Callable[[], Gauges]) -> None:
        self._stats = stats
        self._gauges = gauges

    def collect(self) -> Iterable[Metric]:
        yield from _job_metrics(self._stats)
        yield from _event_metrics(self._stats)
        yield from _message_metrics(self._stats)
        yield from _gauge_metrics(self._gauges())


def _job_metrics(stats: Stats) -> Iterable[Metric]:
    """004's names, and what belongs to them."""
    succeeded = {outcome: stats.outcomes[outcome] for outcome in (Outcome.CREATED, Outcome.ADOPTED)}
    yield _counter("kaniko_job_creation_success", "Requests whose Job exists.", "outcome", succeeded)
    yield _counter(
        "kaniko_job_creation_failure", "Accepted requests that became dead letters.", "reason", stats.failures
    )
    yield _histogram("job_creation_duration_seconds", "From acceptance to the Job's existence.", stats.creation)
    yield _histogram(
        "kaniko_job_api_duration_seconds", "One try at the Kubernetes API: create, and compare.", stats.api_calls
    )
    calls = CounterMetricFamily(PREFIX + "api_calls", "Calls to the Kubernetes API.", labels=["call", "answer"])
    for labels, count in stats.calls.items():
        calls.add_metric([*labels], count)
    yield calls
    yield _counter("kaniko_job_creation_retries", "Tries repeated after a transient failure.", None, stats.retries)
    yield _counter("kaniko_job_conflicts", "Names that were taken, by what was done.", "decision", stats.conflicts)


def _event_metrics(stats: Stats) -> Iterable[Metric]:
    yield _counter(PREFIX + "events_accepted", "Events taken in.", "flow", stats.accepted)
    yield _counter(PREFIX + "events_duplicate", "Events that were here before.", "flow", stats.duplicates)
    yield _counter(PREFIX + "events_rejected", "Events that can never be built.", "reason", stats.rejected)
    yield _counter(PREFIX + "events_refused", "Events that may come again later.", "reason", stats.refused)
    ended = CounterMetricFamily(PREFIX + "events_ended", "Accepted events that have ended.", labels=["flow", "outcome"])
    for labels, count in stats.ended.items():
        ended.add_metric([*labels], count)
    yield ended
    superseded = stats.outcomes[Outcome.SUPERSEDED]
    yield _counter(PREFIX + "events_superseded", "Events that gave way to a later one.", None, superseded)
    letters = {"rejected": stats.rejected.total(), "failed": stats.failures.total()}
    yield _counter(PREFIX + "dead_letters", "Dead letters kept, whatever became of them.", "kind", letters)
    yield _counter(PREFIX + "http_responses", "Answers, by class of status.", "class", stats.answers)


def _message_metrics(stats: Stats) -> Iterable[Metric]:
    """The road from RabbitMQ."""
    yield _counter(PREFIX + "messages", "Messages, by what the broker heard of them.", "answer", stats.messages)
    redelivered = stats.redelivered
    yield _counter(PREFIX + "messages_redelivered", "Messages that had been with somebody.", None, redelivered)
    yield _counter(PREFIX + "message_dead_letters", "Dead letters that the broker confirmed.", "reason", stats.lettered)
    age = "From a message's timestamp, or its arrival, to its ack."
    yield _histogram(PREFIX + "message_age_seconds", age, stats.message_age)


def _gauge_metrics(gauges: Gauges) -> Iterable[Metric]:
    yield _gauge("queue_items", "Items waiting for a worker.", gauges.queue_size)
    yield _gauge("queue_capacity", "Items that the queue lets in.", gauges.queue_capacity)
    yield _gauge(
        "queue_oldest_age_seconds", "Age of the one accepted first of those whose turn is next.", gauges.oldest_age
    )
    yield _gauge("workers", "Workers there are.", gauges.workers)
    yield _gauge("workers_busy", "Workers at an item.", gauges.workers_busy)
    yield _gauge("api_server_up", "1 if the Kubernetes API server answers.", gauges.api_server_up)
    yield _gauge("journal_writable", "1 if what is accepted can be kept.", gauges.journal_writable)
    evicted = "Dead letters that made room for others, or were too old."
    yield _counter(PREFIX + "dead_letters_evicted", evicted, None, gauges.letters_evicted)
    waiting = GaugeMetricFamily(PREFIX + "waiting_items", "Items set aside, by what for.", labels=["wait"])
    for wait, count in gauges.waiting.items():
        waiting.add_metric([wait], count)
    yield waiting
    broker = gauges.broker
    yield _gauge("broker_up", "1 if messages are consumed and dead letters kept.", broker.up)
    yield _gauge("messages_held", "Messages that the broker waits to hear of.", broker.held)
    yield _gauge(
        "messages_ready", "Messages that wait in the broker.", math.nan if broker.ready is None else broker.ready
    )


def _counter(name: str, help_text: str, label: str | None, values: Mapping[Any, int] | int) -> Metric:
    if isinstance(values, int):
        return CounterMetricFamily(name, help_text, value=values)
    family = CounterMetricFamily(name, help_text, labels=[label or ""])
    for key, value in values.items():
        family.add_metric([str(key)], value)
    return family


def _gauge(name: str, help_text: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, help_text, value=value)


def _histogram(name: str, help_text: str, histogram: Histogram) -> Metric:
    """Its examples become exemplars, beside the values: OpenMetrics has a place for them, the plain text has none."""
    buckets: list[tuple[str, float] | tuple[str, float, Exemplar]] = []
    below = 0
    for number, (bound, count) in enumerate(zip((*histogram.bounds, "+Inf"), histogram.counts, strict=True)):
        below += count
        example = histogram.examples.get(number)
        if example is None:
            buckets.append((str(bound), below))
        else:
            exemplar = Exemplar({"trace_id": example.trace_id}, example.seconds, example.at)
            buckets.append((str(bound), below, exemplar))
    return HistogramMetricFamily(name, help_text, buckets=buckets, sum_value=histogram.sum)
