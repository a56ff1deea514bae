"""Prometheus sees each fact once, under 004's names, from the first scrape on."""

import math

from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from builder.metrics import Metrics
from builder.models import FLOWS, Decision, FailureReason, Outcome, RejectReason
from builder.stats import BrokerGauges, Example, Gauges, Stats

BROKER = BrokerGauges(up=False, held=4, ready=None)
GAUGES = Gauges(3, 100, 1.5, 5, 2, {"retry": 1}, 0, True, 7, False, False, BROKER)  # noqa: FBT003 -- a row of facts
PLAIN = "text/plain; version=0.0.4; charset=utf-8"
OPEN = "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores"


def scrape(stats: Stats) -> dict[str, dict[str, float]]:
    """Name → labels → value of one scrape."""
    text, content_type = Metrics(stats, lambda: GAUGES).render("")
    assert content_type == PLAIN
    samples: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(text.decode()):
        assert family.documentation, family.name
        for sample in family.samples:
            samples.setdefault(sample.name, {})[",".join(sample.labels.values())] = sample.value
    return samples


def test_every_label_value_is_there_from_the_start() -> None:
    """``increase()`` misses the first failure of a series that appears with it."""
    samples = scrape(Stats())
    assert samples["kaniko_job_creation_success_total"] == {"created": 0, "adopted": 0}
    assert samples["kaniko_job_creation_failure_total"] == {reason.value: 0 for reason in FailureReason}
    assert samples["kaniko_job_conflicts_total"] == {decision.value: 0 for decision in Decision}
    assert samples["knative_lambda_builder_events_accepted_total"] == dict.fromkeys(FLOWS, 0)
    assert samples["knative_lambda_builder_events_rejected_total"] == {reason.value: 0 for reason in RejectReason}
    assert samples["knative_lambda_builder_http_responses_total"] == {"2xx": 0, "4xx": 0, "5xx": 0}
    assert samples["job_creation_duration_seconds_count"] == {"": 0}


def test_facts_and_gauges() -> None:
    """What was counted and what is so now."""
    stats = Stats()
    stats.outcomes.update([Outcome.CREATED, Outcome.CREATED, Outcome.ADOPTED, Outcome.SUPERSEDED, Outcome.FAILED])
    stats.failures[FailureReason.FORBIDDEN] += 1
    stats.rejected[RejectReason.INVALID] += 2
    for seconds in (0.005, 0.2, 7000.0):
        stats.creation.observe(seconds)
    samples = scrape(stats)
    assert samples["kaniko_job_creation_success_total"] == {"created": 2, "adopted": 1}
    assert samples["kaniko_job_creation_failure_total"]["forbidden"] == 1
    assert samples["knative_lambda_builder_dead_letters_total"] == {"rejected": 2, "failed": 1}
    assert samples["knative_lambda_builder_events_superseded_total"] == {"": 1}
    buckets = samples["job_creation_duration_seconds_bucket"]
    assert (buckets["0.005"], buckets["0.1"], buckets["0.25"], buckets["3600.0"], buckets["+Inf"]) == (1, 1, 2, 2, 3)
    assert samples["job_creation_duration_seconds_sum"] == {"": 7000.205}
    assert samples["knative_lambda_builder_queue_items"] == {"": 3}
    assert samples["knative_lambda_builder_api_server_up"] == {"": 1}
    assert samples["knative_lambda_builder_journal_writable"] == {"": 0}
    assert samples["knative_lambda_builder_waiting_items"] == {"retry": 1}
    assert samples["knative_lambda_builder_broker_up"] == {"": 0}
    assert samples["knative_lambda_builder_messages_held"] == {"": 4}
    assert math.isnan(samples["knative_lambda_builder_messages_ready"][""])


def test_percentiles() -> None:
    """Nearest rank over the last thousand; none while there is nothing."""
    stats = Stats()
    assert stats.creation.percentiles(50, 99) == {"p50": None, "p99": None}
    for hundredth in range(2000):
        stats.creation.observe(hundredth / 100)
    assert stats.creation.percentiles(0, 50, 99, 100) == {"p0": 10.0, "p50": 15.0, "p99": 19.89, "p100": 19.99}


def test_examples_lead_to_traces_in_openmetrics_alone() -> None:
    """Beside a bucket's value stands the last duration in it whose trace is known; the plain text has no place for it."""
    stats = Stats()
    metrics = Metrics(stats, lambda: GAUGES)
    plain = metrics.render("")
    for trace, seconds in (("aa", 0.2), ("bb", 0.21), (None, 0.22), ("cc", 7000.0)):
        stats.creation.observe(seconds, None if trace is None else Example(trace, seconds, 1700000000.5))

    text, content_type = metrics.render("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5")

    assert content_type == OPEN
    parsed = openmetrics.text_string_to_metric_families(text.decode())  # type: ignore[no-untyped-call]
    families = {family.name: family for family in parsed}
    assert all(family.documentation for family in families.values())
    found = {
        sample.labels["le"]: (sample.value, *sample.exemplar[:2], float(sample.exemplar.timestamp or 0))
        for sample in families["job_creation_duration_seconds"].samples
        if sample.exemplar is not None
    }
    assert found == {
        "0.25": (3, {"trace_id": "bb"}, 0.21, 1700000000.5),
        "+Inf": (4, {"trace_id": "cc"}, 7000.0, 1700000000.5),
    }
    assert not any(sample.exemplar for sample in families["kaniko_job_api_duration_seconds"].samples)
    text, content_type = metrics.render("text/plain")
    assert content_type == PLAIN == plain[1]
    assert b"trace_id" not in text
