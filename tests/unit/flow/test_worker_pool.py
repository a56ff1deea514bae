"""The workers: every item comes to one end, whatever happens on its way, and the pool stays whole."""

import asyncio
from datetime import timedelta

import pytest

from builder.adapters.memory_cluster import MemoryCluster
from builder.errors import ClusterError, Denied, QueueFull, Transient, Unreachable
from builder.models import FailureReason, Outcome
from builder.settings import Memory
from tests import building
from tests.flow_parts import Flow, ScriptedCluster, Settled, item

pytestmark = pytest.mark.looptime

ONE_WORKER = {"workerCount": 1, "maxQueueSize": 10}


async def test_an_event_becomes_a_job() -> None:
    """The whole way inside: offered, queued, taken, created, settled, counted, and known by its correlation id."""
    cluster = MemoryCluster(Memory())
    async with Flow(cluster, building.settings()) as flow:
        ticket = await flow.intake.offer(building.event("e-1"))
        await asyncio.sleep(1)
        assert ticket.status == "queued"
        assert [job["metadata"]["name"] for job in cluster.jobs()] == ["kaniko-job-acme-parser1"]
        assert flow.status("e-1") == "created"
        assert flow.stats.outcomes[Outcome.CREATED] == 1
        assert flow.stats.creation.count == 1
    cluster.close()


async def test_a_later_event_waits_for_the_running_build_and_then_replaces_it() -> None:
    """One build of a target at a time; waiting holds no worker."""
    cluster = MemoryCluster(Memory())
    async with Flow(cluster, building.settings(asyncJobCreator=ONE_WORKER)) as flow:
        await flow.intake.offer(building.event("first"))
        await asyncio.sleep(0.5)
        await flow.intake.offer(building.event("second", time=building.NOON + timedelta(seconds=0.1)))
        await asyncio.sleep(0.1)
        assert flow.status("second") == "waiting"
        assert flow.pool.busy == {0: None}
        await flow.intake.offer(building.event("other", target=("acme", "other")))
        await asyncio.sleep(0.1)
        assert flow.status("other") == "created"
        await asyncio.sleep(60)
        assert flow.status("second") == "created"
    cluster.close()


async def test_a_newer_event_supersedes_the_one_that_waits() -> None:
    """At most one running and one waiting: three requests in a row make two builds."""
    cluster = MemoryCluster(Memory())
    async with Flow(cluster, building.settings()) as flow:
        for number, name in enumerate(("first", "second", "third")):
            await flow.intake.offer(building.event(name, time=building.NOON - timedelta(seconds=10 - number)))
            await asyncio.sleep(0.5)
        await asyncio.sleep(60)
        assert [flow.status(name) for name in ("first", "second", "third")] == ["created", "superseded", "created"]
    cluster.close()


async def test_an_earlier_event_that_comes_late_is_superseded() -> None:
    """Order is by request, not by arrival."""
    cluster = MemoryCluster(Memory())
    async with Flow(cluster, building.settings()) as flow:
        await flow.intake.offer(building.event("new", time=building.NOON))
        await asyncio.sleep(10)
        await flow.intake.offer(building.event("old", time=building.NOON - timedelta(hours=1)))
        await asyncio.sleep(10)
        assert [flow.status("new"), flow.status("old")] == ["created", "superseded"]
    cluster.close()


async def test_the_room_of_those_who_wait_is_bounded() -> None:
    """Events for targets that are being built must not fill the memory: past ``maxWaiting`` the door refuses."""
    cluster = ScriptedCluster(*[Transient("busy", status=503, retry_after=60.0)] * 2)
    async with Flow(cluster, building.settings(asyncJobCreator={"maxWaiting": 2})) as flow:
        for number in range(2):
            await flow.intake.offer(building.event(f"e-{number}", target=("acme", f"p{number}")))
        await asyncio.sleep(1)
        with pytest.raises(QueueFull, match=r"asyncJobCreator\.maxWaiting"):
            await flow.intake.offer(building.event("e-2", target=("acme", "p2")))
        await asyncio.sleep(100)
        await flow.intake.offer(building.event("e-2", target=("acme", "p2")))


async def test_transient_failures_are_retried_and_hold_no_worker() -> None:
    """Between two tries the only worker serves others."""
    cluster = ScriptedCluster(Transient("busy", status=503, retry_after=30.0))
    async with Flow(cluster, building.settings(asyncJobCreator=ONE_WORKER)) as flow:
        await flow.intake.offer(building.event("unlucky"))
        await flow.intake.offer(building.event("lucky", target=("acme", "other")))
        await asyncio.sleep(1)
        assert [flow.status("unlucky"), flow.status("lucky")] == ["waiting", "created"]
        await asyncio.sleep(60)
        assert flow.status("unlucky") == "created"
        assert flow.stats.retries == 1


async def test_a_failure_becomes_a_dead_letter_with_the_servers_words() -> None:
    """Nothing ends in silence."""
    cluster = ScriptedCluster(Denied('jobs.batch is forbidden: User "x" cannot create', status=403))
    async with Flow(cluster, building.settings()) as flow:
        await flow.intake.offer(building.event("e-1"))
        await asyncio.sleep(1)
        (letter,) = await flow.letters()
        assert (letter.reason, letter.message, letter.attempts, letter.attributes["id"]) == (
            FailureReason.FORBIDDEN,
            'jobs.batch is forbidden: User "x" cannot create',
            1,
            "e-1",
        )
        assert letter.body == building.event("e-1").data
        assert flow.stats.failures[FailureReason.FORBIDDEN] == 1
        assert flow.results.get("e-1") == {
            "correlation_id": "e-1",
            "status": "failed",
            "reason": "forbidden",
            "message": 'jobs.batch is forbidden: User "x" cannot create',
            "event": {"source": "network.notifi.kaniko-jobs", "id": "e-1"},
            "third_party_id": "acme",
            "parser_id": "parser1",
            "job_name": "kaniko-job-acme-parser1",
            "image": None,
            "attempts": 1,
            "accepted_at": "2024-01-01T12:00:00+00:00",
            "finished_at": "2024-01-01T12:00:00+00:00",
        }


@pytest.mark.parametrize("bug", [KeyError("x"), ZeroDivisionError(), RecursionError(), AssertionError()])
async def test_a_bug_in_one_item_costs_only_that_item(bug: Exception) -> None:
    """Any exception ends as that item's dead letter; the only worker goes on."""
    cluster = ScriptedCluster(bug)
    async with Flow(cluster, building.settings(asyncJobCreator=ONE_WORKER)) as flow:
        await flow.intake.offer(building.event("cursed"))
        await flow.intake.offer(building.event("healthy", target=("acme", "other")))
        await asyncio.sleep(1)
        assert [flow.status("cursed"), flow.status("healthy")] == ["failed", "created"]
        assert flow.stats.failures[FailureReason.INTERNAL_ERROR] == 1


async def test_an_event_that_new_settings_refuse() -> None:
    """What was valid at the door and is not any more becomes a dead letter, not a crash."""
    async with Flow(ScriptedCluster(), building.settings(build={"runtimes": {}})) as flow:
        taken = Settled()
        flow.queue.put_back(item("old", taken, building.event("old", build_type="container", runtime="nodejs18")))
        await asyncio.sleep(1)
        assert taken.result is not None
        assert taken.result.failure is not None
        assert taken.result.failure.reason is FailureReason.INVALID_REQUEST


async def test_an_outage_counts_against_nobody() -> None:
    """While nobody answers, items keep their retries and workers wait behind one probe; then all goes on."""
    gone = Unreachable("connection refused")
    cluster = ScriptedCluster(*[gone] * 5)
    cluster.probe_error = gone
    async with Flow(cluster, building.settings()) as flow:
        for number in range(20):
            await flow.intake.offer(building.event(f"e-{number}", target=("acme", f"p{number}")))
        await asyncio.sleep(3600)
        assert flow.outage.reason == "connection refused"
        creates = sum(call[0] == "create" for call in cluster.calls)
        assert creates <= 5, "each worker meets the outage at most once"
        cluster.probe_error = None
        cluster.script.clear()
        await asyncio.sleep(2)
        assert flow.stats.outcomes[Outcome.CREATED] == 20
        assert (flow.stats.retries, flow.outage.count) == (0, 1)


@pytest.mark.parametrize(
    ("probe_error", "retries"),
    [(None, 1), (Unreachable("refused"), 0), (Transient("bad gateway", status=502), 0)],
    ids=["the server answers: the item's own bad luck", "nobody answers", "a load balancer answers for a dead server"],
)
async def test_a_broken_connection_is_counted_only_if_the_server_answers(
    probe_error: ClusterError | None, retries: int
) -> None:
    """A reset in mid-call may be the first sign of an outage: one probe tells."""
    cluster = ScriptedCluster(Transient("connection reset"))
    cluster.probe_error = probe_error
    async with Flow(cluster, building.settings()) as flow:
        await flow.intake.offer(building.event("e-1"))
        await asyncio.sleep(10)
        cluster.probe_error = None
        await asyncio.sleep(10)
        assert flow.status("e-1") == "created"
        assert flow.stats.retries == retries


async def test_an_outcome_that_cannot_be_kept_is_tried_again() -> None:
    """A full disk at the last step loses nothing: the item stays in custody and finds its own Job."""
    cluster = MemoryCluster(building.settings(memory={"buildTime": "1h"}).memory)
    async with Flow(cluster, building.settings()) as flow:
        taken = Settled(failures=1)
        flow.queue.put_back(item("e-1", taken))
        await asyncio.sleep(60)
        assert taken.result is not None
        assert taken.result.outcome is Outcome.ADOPTED
    cluster.close()


async def test_draining_works_everything_off() -> None:
    """All that was accepted is done; nothing is left."""
    cluster = MemoryCluster(Memory())
    async with Flow(cluster, building.settings(asyncJobCreator=ONE_WORKER)) as flow:
        for number in range(10):
            await flow.intake.offer(building.event(f"e-{number}", target=("acme", f"p{number}")))
        assert await flow.pool.drain(25.0) == []
        assert flow.stats.outcomes[Outcome.CREATED] == 10
    cluster.close()


async def test_draining_ends_in_time_and_names_what_is_left() -> None:
    """An item that waits for a long build does not hold the shutdown for longer than the grace period."""
    cluster = MemoryCluster(building.settings(memory={"buildTime": "10m"}).memory)
    async with Flow(cluster, building.settings()) as flow:
        await flow.intake.offer(building.event("first"))
        await asyncio.sleep(1)
        await flow.intake.offer(building.event("second"))
        began = asyncio.get_running_loop().time()
        left = await flow.pool.drain(25.0)
        assert asyncio.get_running_loop().time() - began == pytest.approx(25.0)
        assert [one.event.id for one in left] == ["second"]
    cluster.close()
