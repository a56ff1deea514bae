"""One try at the cluster: what is called, in which order, and what comes of it."""

import math
from datetime import timedelta
from typing import Any, Literal

import pytest

from builder.errors import AlreadyExists, ClusterError, Conflict, QuotaExceeded, Transient
from builder.flow.ensure_job import Blocked, ensure_job
from builder.flow.items import Done
from builder.jobs.conflict import Wanted
from builder.jobs.manifest import build_job
from builder.jobs.succession import came_after, with_note
from builder.models import Decision, Failure, FailureReason, Manifest, Outcome
from tests import building
from tests.flow_parts import ScriptedCluster

NAME = "kaniko-job-acme-parser1"
IMAGE = build_job(building.request(event_id="e-2"), building.settings())["metadata"]["annotations"][
    "build.notifi.network/image"
]
TAKEN = AlreadyExists("exists", status=409)
BY_NAME = "AlreadyExists 409"
FULL = QuotaExceeded("exceeded quota", status=403)
CREATE, GET = ("create", NAME), ("get", NAME)


def existing(event_id: str = "e-1", *, complete: bool = False, **metadata: Any) -> Manifest:
    """A Job of ours under the name."""
    earlier = building.request(event_id=event_id, requested_at=building.NOON - timedelta(seconds=1))
    job = build_job(earlier, building.settings())
    conditions = [{"type": "Complete", "status": "True"}] if complete else []
    return job | {"metadata": job["metadata"] | {"uid": "u-1"} | metadata, "status": {"conditions": conditions}}


OLD_IMAGE = existing()["metadata"]["annotations"]["build.notifi.network/image"]
ADOPTED = Done(Outcome.ADOPTED, image=IMAGE)
CREATED = Done(Outcome.CREATED, image=IMAGE)
FOREIGN = existing(labels={})
SUSPENDED = existing() | {"spec": existing()["spec"] | {"suspend": True}}
DELETING = existing(deletionTimestamp="2024-01-01T12:00:00Z")
STEPS: list[tuple[str, list[Any], Literal["wait", "replace"], Done | Blocked, list[tuple[Any, ...]]]] = [
    ("a free name", [None], "wait", CREATED, [CREATE]),
    ("the same event's", [TAKEN, existing("e-2")], "wait", ADOPTED, [CREATE, GET]),
    ("it vanished meanwhile", [TAKEN, None, None], "wait", CREATED, [CREATE, GET, CREATE]),
    ("a full quota, and our Job is there: adopted", [FULL, existing("e-2")], "wait", ADOPTED, [CREATE, GET]),
    (
        "a full quota, and the finished Job is what fills it: replaced",
        [FULL, existing(complete=True), None, None],
        "wait",
        CREATED,
        [CREATE, GET, ("delete", NAME, "u-1", "background"), CREATE],
    ),
    (
        "a finished one is replaced",
        [TAKEN, existing(complete=True), None, None],
        "wait",
        CREATED,
        [CREATE, GET, ("delete", NAME, "u-1", "background"), CREATE],
    ),
    (
        "replaced by somebody else in between: read and decide again",
        [TAKEN, existing(complete=True), Conflict("uid", status=409), TAKEN, existing("e-2")],
        "wait",
        ADOPTED,
        [CREATE, GET, ("delete", NAME, "u-1", "background"), CREATE, GET],
    ),
    (
        "an active one is waited for",
        [TAKEN, existing()],
        "wait",
        Blocked("u-1", deleting=False, bound=1860.0, message=f"Job {NAME} is still building", error=BY_NAME),
        [CREATE, GET],
    ),
    (
        "one that its queue has not let start is waited for without end: its deadline has not begun",
        [TAKEN, SUSPENDED],
        "wait",
        Blocked("u-1 suspended", deleting=False, bound=math.inf, message=f"Job {NAME} is suspended", error=BY_NAME),
        [CREATE, GET],
    ),
    (
        "one that its queue has not let start gives way like any other",
        [TAKEN, SUSPENDED, None],
        "replace",
        Blocked("u-1", deleting=True, bound=1860.0, message=f"Job {NAME} is being deleted", error=BY_NAME),
        [CREATE, GET, ("delete", NAME, "u-1", "foreground")],
    ),
    (
        "an active one gives way: its name stays taken until its Pod is gone",
        [TAKEN, existing(), None],
        "replace",
        Blocked("u-1", deleting=True, bound=1860.0, message=f"Job {NAME} is being deleted", error=BY_NAME),
        [CREATE, GET, ("delete", NAME, "u-1", "foreground")],
    ),
    (
        "one that is being deleted is waited for",
        [TAKEN, DELETING],
        "replace",
        Blocked("u-1", deleting=True, bound=1860.0, message=f"Job {NAME} is being deleted", error=BY_NAME),
        [CREATE, GET],
    ),
    (
        "not ours: never touched",
        [TAKEN, FOREIGN],
        "replace",
        Done(
            Outcome.FAILED,
            Failure(
                FailureReason.NAME_TAKEN,
                f"Job {NAME} exists and is not this third party's build; it was not touched: {TAKEN}",
                BY_NAME,
            ),
        ),
        [CREATE, GET],
    ),
    (
        "a name that comes and goes for ever holds no worker for ever",
        [TAKEN, None] * 4,
        "wait",
        Blocked("", deleting=True, bound=60.0, message=f"Job {NAME} comes and goes", error=BY_NAME),
        [CREATE, GET] * 4,
    ),
]


def ignored(_note: str) -> None:
    """Who keeps no notes."""


async def settled(_: Manifest) -> bool:
    """Nobody holds the event of any Job."""
    return False


@pytest.mark.parametrize(
    ("script", "mode", "expected", "calls"), [step[1:] for step in STEPS], ids=[step[0] for step in STEPS]
)
async def test_steps(
    script: list[ClusterError | Manifest | None],
    mode: Literal["wait", "replace"],
    expected: Done | Blocked,
    calls: list[tuple[Any, ...]],
) -> None:
    """Create first; only a taken name costs a second call."""
    cluster = ScriptedCluster(*script)
    request = building.request(event_id="e-2")
    wanted = Wanted(build_job(request, building.settings()), request.source)
    assert await ensure_job(cluster, wanted, mode, lambda _: None, settled, ignored) == expected
    assert (cluster.calls, cluster.script) == (calls, [])


async def test_a_full_quota_without_a_job_of_the_name() -> None:
    """Then it is capacity, which the worker pool waits for."""
    request = building.request(event_id="e-2")
    wanted = Wanted(build_job(request, building.settings()), request.source)
    with pytest.raises(QuotaExceeded):
        await ensure_job(ScriptedCluster(FULL, None), wanted, "wait", lambda _: None, settled, ignored)


async def test_every_decision_is_told() -> None:
    """Conflicts are counted by what was decided."""
    told: list[Decision] = []
    cluster = ScriptedCluster(TAKEN, existing(complete=True), None, None)
    request = building.request(event_id="e-2")
    wanted = Wanted(build_job(request, building.settings()), request.source)
    await ensure_job(cluster, wanted, "wait", told.append, settled, ignored)
    assert told == [Decision.REPLACE_FINISHED]


@pytest.mark.parametrize("calls_before", [0, 1, 2])
async def test_errors_are_not_swallowed(calls_before: int) -> None:
    """Whatever call fails, the worker pool hears of it: retries are its business alone."""
    script: list[Any] = [TAKEN, existing(complete=True)][:calls_before]
    request = building.request(event_id="e-2")
    wanted = Wanted(build_job(request, building.settings()), request.source)
    with pytest.raises(Transient):
        await ensure_job(ScriptedCluster(*script, Transient("reset")), wanted, "wait", lambda _: None, settled, ignored)


async def test_a_job_whose_event_is_still_held_is_not_replaced() -> None:
    """A crash came between the two: that event must find its Job, or it would be built again."""

    async def held(_: Manifest) -> bool:
        return True

    cluster = ScriptedCluster(TAKEN, existing(complete=True))
    request = building.request(event_id="e-2")
    wanted = Wanted(build_job(request, building.settings()), request.source)
    step = await ensure_job(cluster, wanted, "wait", lambda _: None, held, ignored)
    assert step == Blocked(
        "u-1", deleting=False, bound=1860.0, message=f"Job {NAME} waits for its own event to find it", error=BY_NAME
    )
    assert cluster.calls == [CREATE, GET]


async def test_the_note_outlives_a_create_that_fails() -> None:
    """It is told before the delete, and the next try, which finds the name free, carries it."""
    told: list[str] = []
    tie = build_job(building.request(), building.settings()) | {"status": existing(complete=True)["status"]}
    tie["metadata"]["uid"] = "u-1"
    request = building.request(event_id="e-2")
    wanted = Wanted(build_job(request, building.settings()), request.source)
    cluster = ScriptedCluster(TAKEN, tie, None, Transient("reset"))
    with pytest.raises(Transient):
        await ensure_job(cluster, wanted, "wait", lambda _: None, settled, told.append)
    assert came_after(with_note(wanted.job, told[0]), tie)
    assert len(told) == 1
