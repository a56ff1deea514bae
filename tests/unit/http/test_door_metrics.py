"""What Prometheus scrapes over HTTP: 004's names, every label value from the start, and the same facts as the stats."""

from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from builder.models import FLOWS, Decision, FailureReason, Outcome, RejectReason
from builder.stats import BUCKETS, ApiAnswer, ApiCall, MessageEnd, RefusedBecause
from tests.unit.http.door import Door, batch, binary, example, numbered, structured

B = "knative_lambda_builder_"
LABELLED: dict[str, list[str]] = {
    "kaniko_job_creation_success_total": ["created", "adopted"],
    "kaniko_job_creation_failure_total": list(FailureReason),
    "kaniko_job_conflicts_total": list(Decision),
    f"{B}api_calls_total": [f"{answer},{call}" for answer in ApiAnswer for call in ApiCall],
    f"{B}events_accepted_total": list(FLOWS),
    f"{B}events_duplicate_total": list(FLOWS),
    f"{B}events_ended_total": [f"{flow},{outcome}" for flow in FLOWS for outcome in Outcome],
    f"{B}events_rejected_total": list(RejectReason),
    f"{B}events_refused_total": list(RefusedBecause),
    f"{B}dead_letters_total": ["rejected", "failed"],
    f"{B}http_responses_total": ["2xx", "4xx", "5xx"],
    f"{B}messages_total": list(MessageEnd),
    f"{B}message_dead_letters_total": [*FailureReason, *RejectReason],
    f"{B}waiting_items": ["retry", "active_build", "deletion", "capacity"],
}
SINGLE = {
    "kaniko_job_creation_retries_total": 0,
    f"{B}events_superseded_total": 0,
    "job_creation_duration_seconds_count": 0,
    "job_creation_duration_seconds_sum": 0,
    "kaniko_job_api_duration_seconds_count": 0,
    "kaniko_job_api_duration_seconds_sum": 0,
    f"{B}queue_items": 0,
    f"{B}queue_capacity": 100,
    f"{B}queue_oldest_age_seconds": 0,
    f"{B}workers": 5,
    f"{B}workers_busy": 0,
    f"{B}api_server_up": 1,
    f"{B}dead_letters_evicted_total": 0,
    f"{B}journal_writable": 1,
    f"{B}messages_redelivered_total": 0,
    f"{B}message_age_seconds_count": 0,
    f"{B}message_age_seconds_sum": 0,
    f"{B}broker_up": 1,
    f"{B}messages_held": 0,
    f"{B}messages_ready": 0,
}
BUCKETED = [
    "job_creation_duration_seconds_bucket",
    "kaniko_job_api_duration_seconds_bucket",
    f"{B}message_age_seconds_bucket",
]


async def test_first_scrape(door: Door) -> None:
    """Everything is there at 0, or ``increase()`` misses the first of each."""
    samples = await door.samples()
    assert {name: values for name, values in samples.items() if name in LABELLED} == {
        name: {str(value): 0.0 for value in values} for name, values in LABELLED.items()
    }
    assert {name: values for name, values in samples.items() if name in SINGLE} == {
        name: {"": float(value)} for name, value in SINGLE.items()
    }
    bounds = {str(bound): 0.0 for bound in BUCKETS} | {"+Inf": 0.0}
    assert {name: samples[name] for name in BUCKETED} == dict.fromkeys(BUCKETED, bounds)
    others = [name for name in samples if name not in {*LABELLED, *SINGLE, *BUCKETED}]
    assert [name for name in others if not name.startswith("process_")] == []


async def test_help_and_type_of_each(door: Door) -> None:
    """A metric that nobody explains is one that nobody uses."""
    response = await door.client.get("/metrics")
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = list(text_string_to_metric_families(response.text))
    assert len(families) > 20
    assert [family.name for family in families if not family.documentation or family.type == "unknown"] == []
    assert len({family.name for family in families}) == len(families)


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8"),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text; version=1.0.0", "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        ("application/openmetrics-text; version=nonsense", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text; version=1.x; escaping=;q=,,", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/plain; version=9.9.9.9.9.9", "text/plain"),
        ("\N{ROCKET}", "text/plain; version=0.0.4; charset=utf-8"),
    ],
)
async def test_formats(door: Door, accept: str, content_type: str) -> None:
    """Prometheus asks for OpenMetrics first; rubbish gets the old text."""
    response = await door.client.get("/metrics", headers=[(b"Accept", accept.encode())])
    assert response.status_code == 200
    assert response.headers["Content-Type"].startswith(content_type)
    assert "kaniko_job_creation_success_total" in response.text


async def some_of_everything(door: Door) -> None:
    """3 created, 1 failed, 1 duplicate, 2 + 1 rejected, 1 refused while draining."""
    for event in (numbered(0), numbered(1, {"source": "direct"}), numbered(0)):
        await door.deliver(binary(event))
    await door.deliver(batch(numbered(2, {"data.job_name": "nightly"}), {}))
    await door.work()
    await door.deliver(binary(numbered(3, {"data.job_name": "nightly", "data.third_party_id": "rival"})))
    await door.work()
    await door.deliver(structured([]))
    await door.deliver(binary(example()), headers={"Content-Type": "text/csv"})
    await door.client.get("/nowhere")
    door.parts.intake.close()
    await door.deliver(binary(numbered(4)))


async def test_the_same_facts_as_the_stats(door: Door) -> None:
    """Each fact is counted once, and both views tell it."""
    await some_of_everything(door)
    stats = await door.get("/async-jobs/stats")
    samples = await door.samples()

    def told(name: str) -> dict[str, Any]:
        return {label: int(value) for label, value in samples[name].items()}

    assert told("kaniko_job_creation_success_total") == {"created": 3, "adopted": 0}
    assert told(f"{B}events_accepted_total") == stats["accepted"] == {"queue": 3, "direct": 1}
    assert told(f"{B}events_duplicate_total") == stats["duplicates"] == {"queue": 1, "direct": 0}
    rejected = {reason.value: 0 for reason in RejectReason} | {"invalid": 2, "not_a_cloudevent": 1}
    assert told(f"{B}events_rejected_total") == stats["rejected"] == rejected
    assert (
        told(f"{B}events_refused_total")
        == stats["refused"]
        == {"queue_full": 0, "draining": 1, "http_off": 0, "journal": 0}
    )
    ended = {f"{flow},{end}": count for flow, ends in stats["ended"].items() for end, count in ends.items()}
    assert told(f"{B}events_ended_total") == ended
    failures = {label: count for label, count in told("kaniko_job_creation_failure_total").items() if count}
    assert failures == stats["failures"] == {"name_taken": 1}
    conflicts = {label: count for label, count in told("kaniko_job_conflicts_total").items() if count}
    assert conflicts == stats["conflicts"] == {"name_taken": 1}
    assert told(f"{B}dead_letters_total") == {"rejected": 3, "failed": 1}
    assert len(await door.letters()) == 4
    assert told("job_creation_duration_seconds_count") == {"": 3} == {"": stats["creation_seconds"]["count"]}
    assert told("kaniko_job_api_duration_seconds_count") == {"": stats["api_seconds"]["count"]}


async def test_what_came_in_comes_out(door: Door) -> None:
    """Accepted events are created, adopted, superseded or failed: nothing is lost between the counters."""
    await some_of_everything(door)
    samples = await door.samples()
    ends = ("kaniko_job_creation_success_total", "kaniko_job_creation_failure_total", f"{B}events_superseded_total")
    ended = sum(sum(samples[name].values()) for name in ends)
    assert sum(samples[f"{B}events_accepted_total"].values()) == ended == 4
    assert samples[f"{B}queue_items"] == {"": 0}


async def test_answers_by_class(door: Door) -> None:
    """Every answer of ours is counted, this scrape's own excepted."""
    await some_of_everything(door)
    assert (await door.samples())[f"{B}http_responses_total"] == {"2xx": 4.0, "4xx": 4.0, "5xx": 1.0}


async def test_labels_are_a_closed_set(door: Door) -> None:
    """Nothing that a sender chose becomes a series."""
    before = {name: set(values) for name, values in (await door.samples()).items()}
    for number in range(20):
        await door.deliver(binary(numbered(number, {"source": f"s{number}", "data.third_party_id": f"t{number}"})))
        await door.deliver(binary(numbered(number, {"type": f"type{number}", "id": f"x{number}"})))
        await door.client.request("GET", f"/path{number}")
    await door.work()
    assert {name: set(values) for name, values in (await door.samples()).items()} == before
