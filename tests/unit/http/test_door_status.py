"""What people, probes and scripts read."""

import asyncio
import logging
from datetime import datetime
from typing import Any

import pytest

from builder.adapters.memory_cluster import MemoryCluster
from builder.errors import Unreachable
from builder.models import Manifest, Outcome, RejectReason
from tests import building
from tests.unit.http.door import (
    LEFT_OUT,
    PROBLEM,
    QUEUED,
    Document,
    Door,
    binary,
    example,
    numbered,
    problem_of,
    serving,
    structured,
    until,
)

LEGACY = {"worker_count": int, "queue_size": int, "max_queue_size": int, "results_count": int, "is_shutdown": bool}
"""The names and types that existing callers read."""


class AwayCluster(MemoryCluster):
    """An API server whose address nobody answers at, as long as ``away``."""

    away = True

    async def create(self, job: Manifest) -> None:
        """Create, if somebody is there."""
        await self.probe()
        await super().create(job)

    async def probe(self) -> None:
        """Answer, if somebody is there."""
        if self.away:
            msg = "connection refused"
            raise Unreachable(msg)
        await super().probe()


class SlowCluster(MemoryCluster):
    """An API server that takes its time: ``answer`` ends a call."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.answer = asyncio.Event()

    async def create(self, job: Manifest) -> None:
        """Create when told to."""
        await self.answer.wait()
        await super().create(job)


# --- /async-jobs/stats ------------------------------------------------------------------------------------------------

NOT_REJECTED: dict[str, int] = {reason.value: 0 for reason in RejectReason}
"""Every reason is there from the start."""


async def test_stats_of_a_new_service(door: Door) -> None:
    """The whole document; the five names of old come first."""
    stats = await door.get("/async-jobs/stats")
    assert {name: type(stats[name]) for name in list(stats)[:5]} == LEGACY
    nothing = {"count": 0, "p50": None, "p95": None, "p99": None}
    assert stats == {
        "worker_count": 5,
        "queue_size": 0,
        "max_queue_size": 100,
        "results_count": 0,
        "is_shutdown": False,
        "active_workers": 0,
        "workers": [{"worker": number, "correlation_id": None, "age_seconds": None} for number in range(5)],
        "waiting": {"retry": 0, "active_build": 0, "deletion": 0, "capacity": 0},
        "quota": None,
        "oldest_age_seconds": 0.0,
        "accepted": {"queue": 0, "direct": 0},
        "duplicates": {"queue": 0, "direct": 0},
        "rejected": NOT_REJECTED,
        "refused": {"queue_full": 0, "draining": 0, "http_off": 0, "journal": 0},
        "outcomes": {"created": 0, "adopted": 0, "superseded": 0, "failed": 0},
        "ended": {flow: {"created": 0, "adopted": 0, "superseded": 0, "failed": 0} for flow in ("queue", "direct")},
        "failures": {},
        "retries": 0,
        "conflicts": {},
        "brought_back": 0,
        "dead_letters": {"evicted": 0},
        "journal": {"writable": True, "trouble": None},
        "creation_seconds": nothing,
        "api_seconds": nothing,
        "api_calls": {"create": {}, "get": {}, "delete": {}, "probe": {}},
        "api_server": {"up": True, "reason": None, "outages": 0},
        "broker": None,
        "missing_permissions": [],
    }


async def test_stats_count_each_fact_once(door: Door) -> None:
    """Every event that came is in exactly one place, and all places together are all events."""
    for number in range(3):
        await door.deliver(binary(numbered(number)))
    await door.deliver(binary(numbered(3, {"source": "some.other.source"})))
    await door.deliver(binary(numbered(0)))
    await door.deliver(structured({}))
    await door.deliver(binary(example()), headers={"Content-Type": "text/plain"})
    before = await door.get("/async-jobs/stats")
    assert (before["queue_size"], before["oldest_age_seconds"] > 0) == (4, True)
    assert before["accepted"] == {"queue": 3, "direct": 1}
    assert before["duplicates"] == {"queue": 1, "direct": 0}
    assert before["rejected"] == {**NOT_REJECTED, "invalid": 1, "not_a_cloudevent": 1}
    await door.work()
    after = await door.get("/async-jobs/stats")
    assert after["outcomes"] == {"created": 4, "adopted": 0, "superseded": 0, "failed": 0}
    assert {flow: ended["created"] for flow, ended in after["ended"].items()} == {"queue": 3, "direct": 1}
    assert (after["queue_size"], after["results_count"], after["oldest_age_seconds"]) == (0, 4, 0.0)
    assert (after["creation_seconds"]["count"], after["api_seconds"]["count"]) == (4, 4)
    assert {name: after[name] for name in ("accepted", "duplicates", "rejected", "refused")} == {
        name: before[name] for name in ("accepted", "duplicates", "rejected", "refused")
    }


async def test_stats_show_who_works_on_what() -> None:
    """A worker that hangs is seen with the item that it hangs at."""
    async with serving(SlowCluster, asyncJobCreator={"workerCount": 2}) as door, door.working():
        assert isinstance(door.cluster, SlowCluster)
        await door.deliver(binary(numbered(7)))
        await until(lambda: any(door.parts.pool.busy.values()))
        stats = await door.get("/async-jobs/stats")
        assert (stats["active_workers"], stats["queue_size"]) == (1, 0)
        busy, idle = sorted(stats["workers"], key=lambda worker: worker["correlation_id"] is None)
        assert (busy["correlation_id"], busy["age_seconds"] >= 0, idle["correlation_id"]) == ("c-7", True, None)
        assert (await door.get("/async-jobs/c-7"))["status"] == "working"
        door.cluster.answer.set()
        await until(lambda: not door.queued())


# --- /async-jobs/{correlation_id} -------------------------------------------------------------------------------------


def times_taken(document: Document, *names: str) -> list[datetime]:
    """Take time-stamps out of a document: aware, and in the order in which they are named."""
    times = [datetime.fromisoformat(document.pop(name)) for name in names]
    assert all(time.tzinfo is not None for time in times)
    assert times == sorted(times)
    return times


async def test_result_from_queued_to_created(door: Door) -> None:
    """The two documents that one request goes through, whole."""
    correlation_id = (await door.deliver(binary(example()))).headers["X-Correlation-ID"]
    common = {
        "correlation_id": "c-1",
        "message": None,
        "event": {"source": "network.notifi.kaniko-jobs", "id": "e-1"},
        "third_party_id": building.THIRD_PARTY,
        "parser_id": building.PARSER,
    }
    queued = await door.get(f"/async-jobs/{correlation_id}")
    times_taken(queued, "accepted_at")
    assert queued == {**common, "status": "queued", "priority": 1, "attempts": 0}
    await door.work()
    created = await door.get(f"/async-jobs/{correlation_id}")
    times_taken(created, "accepted_at", "finished_at")
    (job,) = door.cluster.jobs()
    assert created == {
        **common,
        "status": "created",
        "reason": None,
        "job_name": job["metadata"]["name"],
        "image": job["metadata"]["annotations"]["build.notifi.network/image"],
        "attempts": 1,
    }


async def test_result_of_a_failure(door: Door) -> None:
    """A name that another third party holds is nobody's to take: the reason is in the result and in the dead letter."""
    shared = {"data.job_name": "nightly"}
    await door.deliver(binary(numbered(1, {**shared, "data.third_party_id": "acme"})))
    await door.work()
    await door.deliver(binary(numbered(2, {**shared, "data.third_party_id": "rival"})))
    await door.work()
    result = await door.get("/async-jobs/c-2")
    (letter,) = await door.letters()
    assert (result["status"], result["reason"], letter["reason"]) == ("failed", "name_taken", "name_taken")
    assert (result["message"], result["attempts"]) == (letter["message"], letter["attempts"])
    assert (letter["event"]["id"], letter["errors"]) == ("e-2", [])
    assert [job["metadata"]["name"] for job in door.cluster.jobs()] == ["nightly"]


@pytest.mark.parametrize(
    "path", ["/async-jobs/nobody", "/async-jobs/a/b/c", "/async-jobs/%ff", "/async-jobs/..%2fstats"]
)
async def test_unknown_result(door: Door, path: str) -> None:
    """404 as a problem."""
    response = await door.client.get(path)
    assert response.status_code == 404
    assert problem_of(response)["title"] == "Not Found"


async def test_unknown_result_is_said_in_words(door: Door) -> None:
    """Forgotten and never known look the same from here."""
    document = problem_of(await door.client.get("/async-jobs/nobody"))
    detail = "no request of correlation id 'nobody' is known here (any more)"
    assert document == {"title": "Not Found", "status": 404, "detail": detail}


@pytest.mark.parametrize("correlation_id", ["a.b_c-1", "A", "0" * 100])
async def test_legal_correlation_ids_can_be_asked_for(door: Door, correlation_id: str) -> None:
    """Whatever the door lets in."""
    await door.deliver(structured(example({"data.correlation_id": correlation_id})))
    assert (await door.get(f"/async-jobs/{correlation_id}"))["correlation_id"] == correlation_id


@pytest.mark.parametrize("event_id", ["a/b", "a b", "a?b#c", "100%", "%2F", "é", "{x}", "A|B;C"])
async def test_event_ids_can_be_asked_for(door: Door, event_id: str) -> None:
    """Without a correlation id the event's own stands in, which may be any text."""
    event = example({"id": event_id, "data.correlation_id": LEFT_OUT})
    assert (await door.deliver(structured(event))).status_code == 202
    escaped = "".join(f"%{byte:02X}" for byte in event_id.encode())
    assert (await door.get(f"/async-jobs/{escaped}"))["correlation_id"] == event_id


async def test_results_are_bounded() -> None:
    """The oldest outcomes go first; what is in flight stays."""
    async with serving(results={"maxEntries": 2}) as door:
        for number in range(3):
            await door.deliver(binary(numbered(number)))
            await door.work()
        await door.deliver(binary(numbered(3)))
        statuses = [(await door.client.get(f"/async-jobs/c-{number}")).status_code for number in range(4)]
        assert statuses == [404, 200, 200, 200]
        assert (await door.get("/async-jobs/stats"))["results_count"] == 2


# --- /async-jobs/dead-letters -----------------------------------------------------------------------------------------


async def test_no_dead_letters(door: Door) -> None:
    """A list that is empty is a list."""
    assert await door.get("/async-jobs/dead-letters") == {"count": 0, "items": [], "next_before": None}


async def test_newest_hundred(door: Door) -> None:
    """All are counted, the newest hundred shown."""
    for number in range(101):
        await door.deliver(binary(numbered(number, {"data.priority": 0})))
    document = await door.get("/async-jobs/dead-letters")
    assert (document["count"], len(document["items"])) == (101, 100)
    assert [document["items"][at]["event"]["id"] for at in (0, 99)] == ["e-100", "e-1"]


# --- health -----------------------------------------------------------------------------------------------------------


async def test_healthy(door: Door) -> None:
    """In good times."""
    assert await door.get("/health/live") == {"status": "ok"}
    assert await door.get("/health/ready") == {"status": "ready"}


async def test_draining(door: Door) -> None:
    """No traffic here any more, and no reason to kill it."""
    door.parts.intake.close()
    ready = await door.client.get("/health/ready")
    assert ready.status_code == 503
    assert problem_of(ready) == {"title": "Service Unavailable", "status": 503, "detail": "shutting down"}
    assert await door.get("/health/live") == {"status": "ok"}
    assert (await door.get("/async-jobs/stats"))["is_shutdown"] is True


async def test_outage() -> None:
    """While the API server is away: not ready, the queue keeps what it has and is full in the end; all goes on by itself."""
    async with serving(AwayCluster, asyncJobCreator={"maxQueueSize": 2}, intake={"slotWait": "1ms"}) as door:
        assert isinstance(door.cluster, AwayCluster)
        await door.parts.outage.check()
        ready = await door.client.get("/health/ready")
        assert ready.status_code == 503
        assert problem_of(ready)["detail"] == "Kubernetes API server: connection refused"
        assert await door.get("/health/live") == {"status": "ok"}
        stats = await door.get("/async-jobs/stats")
        assert stats["api_server"] == {"up": False, "reason": "connection refused", "outages": 1}
        statuses = [(await door.deliver(binary(numbered(number)))).status_code for number in range(3)]
        assert statuses == [202, 202, 429]
        assert (await door.samples())["knative_lambda_builder_api_server_up"] == {"": 0}
        door.cluster.away = False
        await door.work()
        assert await door.get("/health/ready") == {"status": "ready"}
        assert (await door.get("/async-jobs/stats"))["outcomes"]["created"] == 2
        assert (await door.deliver(binary(numbered(2)))).content == QUEUED


async def test_outage_that_a_worker_meets() -> None:
    """It is no failure of the item: no retry is counted, and the Job is created once somebody answers again."""
    async with serving(AwayCluster, asyncJobCreator={"maxRetries": 0}) as door, door.working():
        assert isinstance(door.cluster, AwayCluster)
        await door.deliver(binary(example()))
        await until(lambda: door.parts.outage.reason)
        assert (await door.client.get("/health/ready")).status_code == 503
        door.cluster.away = False
        await until(lambda: not door.queued())
        result, stats = await door.get("/async-jobs/c-1"), await door.get("/async-jobs/stats")
        assert (result["status"], stats["retries"], stats["api_server"]["outages"]) == (Outcome.CREATED, 0, 1)


# --- the others -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/async-jobs/stats", "/async-jobs/dead-letters", "/health/live", "/health/ready", "/metrics"]
)
async def test_head(door: Door, path: str) -> None:
    """HEAD is GET without the body."""
    head, get = await door.client.head(path), await door.client.get(path)
    assert (head.status_code, head.content, head.headers["Content-Type"]) == (200, b"", get.headers["Content-Type"])


@pytest.mark.parametrize("path", ["/async-jobs/stats", "/metrics", "/health/live"])
async def test_reading_changes_nothing(door: Door, path: str) -> None:
    """A query and a body on a GET are nobody's business."""
    response = await door.client.request("GET", path, params={"x": "%00\r\n"}, content=b"{}")
    assert response.status_code == 200
    assert door.queued() == []


async def test_bug_in_a_route(door: Door, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A bug is a 500 that says nothing of our insides, is counted, and leaves the service alive."""
    monkeypatch.setattr(door.parts.overview, "_pool", None)
    response = await door.client.get("/async-jobs/stats")
    assert (response.status_code, response.headers["Content-Type"]) == (500, PROBLEM)
    assert "Traceback" not in response.text
    assert "NoneType" not in response.text
    assert await door.get("/health/live") == {"status": "ok"}
    assert door.parts.stats.answers["5xx"] == 1
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
