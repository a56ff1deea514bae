"""Make sure that the one right Job exists: create, and where the name is taken, read, decide and act."""

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Literal, assert_never

from builder.errors import AlreadyExists, ClusterError, Conflict, QuotaExceeded, named
from builder.failpoints import reach
from builder.flow.items import Done
from builder.flow.ports import Cluster
from builder.jobs import labels
from builder.jobs.conflict import Wanted, decide
from builder.jobs.status import is_suspended
from builder.jobs.succession import note_of, successor
from builder.models import Decision, Failure, FailureReason, Manifest, Outcome

ROUNDS = 4
"""How often the world may change under our eyes in one go before the item steps aside."""

_REPLACING = {Decision.REPLACE_FINISHED, Decision.REPLACE_ACTIVE}


@dataclass(frozen=True, slots=True)
class Blocked:
    """Another Job holds the name for now: a build that runs, or one that is being deleted.

    ``bound`` is in seconds: how long that can last at the most, by the Job's own deadline. ``uid`` is of what is waited
    for: another one begins another time. ``error`` is the kind of refusal that told us.
    """

    uid: str
    deleting: bool
    bound: float
    message: str
    error: str = ""


async def ensure_job(
    cluster: Cluster,
    wanted: Wanted,
    on_active_build: Literal["wait", "replace"],
    on_decision: Callable[[Decision], None],
    is_unsettled: Callable[[Manifest], Awaitable[bool]],
    on_replace: Callable[[str], None],
    no_room: str | None = None,
) -> Done | Blocked:
    """One try. Raises the ``ClusterError`` of whatever Kubernetes refused.

    ``is_unsettled`` says of a Job whether we still hold its event: after a crash that event must find its Job there,
    or it would be built once more. Until then nobody replaces it. It may raise ``StorageError``.

    ``on_replace`` is told, before another Job is deleted, the note that ours must carry (``builder.jobs.succession``):
    the next try would not find out any more.

    ``no_room`` is what Kubernetes would say to a create, as far as we know: then only the name is looked at.
    """
    job = wanted.job
    name: str = job["metadata"]["name"]
    for _ in range(ROUNDS):
        refusal, existing = await _create_or_look(cluster, job, no_room)
        if refusal is None:
            return Done(Outcome.CREATED, image=job["metadata"]["annotations"][labels.IMAGE])
        no_room = None
        decision = decide(existing, wanted, on_active_build)
        on_decision(decision)
        if existing is None:
            continue
        if decision in _REPLACING and await is_unsettled(existing):
            return _blocked(name, existing, refusal, deleting=False, verb="waits for its own event to find it")
        if decision in _REPLACING:
            job = successor(job, existing)
            on_replace(note_of(job))
        step = await _act(cluster, name, existing, decision, refusal)
        if step is not None:
            return step
    return Blocked("", deleting=True, bound=60.0, message=f"Job {name} comes and goes", error=named(refusal))


async def _create_or_look(
    cluster: Cluster, job: Manifest, no_room: str | None
) -> tuple[ClusterError | None, Manifest | None]:
    """Nothing if the Job was created; else why not, and what has its name, or None if that is gone by now."""
    name = job["metadata"]["name"]
    try:
        await _create(cluster, job, no_room)
    except AlreadyExists as exc:
        return exc, await cluster.get(name)
    except QuotaExceeded as exc:
        # Kubernetes looks at the quota before the name: our Job may be there, or a finished one that makes room.
        existing = await cluster.get(name)
        if existing is None:
            raise
        return exc, existing
    return None, None


async def _create(cluster: Cluster, job: Manifest, no_room: str | None) -> None:
    reach("before_create")
    if no_room is not None:
        raise QuotaExceeded(no_room, status=HTTPStatus.FORBIDDEN)
    await cluster.create(job)
    reach("after_create")


async def _act(
    cluster: Cluster, name: str, existing: Manifest, decision: Decision, refusal: ClusterError
) -> Done | Blocked | None:
    """Carry a decision out; None means: try to create again."""
    match decision:
        case Decision.CREATE:
            return None
        case Decision.ADOPT:
            return Done(Outcome.ADOPTED, image=existing["metadata"]["annotations"].get(labels.IMAGE))
        case Decision.SUPERSEDED:
            return Done(Outcome.SUPERSEDED)
        case Decision.NAME_TAKEN:
            message = f"Job {name} exists and is not this third party's build; it was not touched: {refusal}"
            return Done(Outcome.FAILED, Failure(FailureReason.NAME_TAKEN, message, named(refusal)))
        case Decision.WAIT_FOR_BUILD:
            return _blocked(name, existing, refusal, deleting=False)
        case Decision.WAIT_FOR_DELETION:
            return _blocked(name, existing, refusal, deleting=True)
        case Decision.REPLACE_FINISHED:
            await _delete(cluster, name, existing, foreground=False)
            return None
        case Decision.REPLACE_ACTIVE:
            # In the foreground the old Job keeps its name until its Pod is gone: two builders of one target can never
            # run at the same moment, and the old one cannot push over the new image.
            await _delete(cluster, name, existing, foreground=True)
            return _blocked(name, existing, refusal, deleting=True)
    assert_never(decision)


async def _delete(cluster: Cluster, name: str, existing: Manifest, *, foreground: bool) -> None:
    try:
        await cluster.delete(name, existing["metadata"]["uid"], foreground=foreground)
        reach("after_delete")
    except Conflict:
        return  # somebody was faster: the next round reads what is there now


def _blocked(
    name: str, existing: Manifest, refusal: ClusterError, *, deleting: bool, verb: str | None = None
) -> Blocked:
    uid: str = existing["metadata"]["uid"]
    bound = existing["spec"].get("activeDeadlineSeconds", 3600) + 60.0
    doing = "is being deleted" if deleting else "is still building"
    if is_suspended(existing) and not deleting:
        # As long as its queue likes: its deadline begins when it starts, and so does our patience.
        uid, bound, doing = f"{uid} suspended", math.inf, "is suspended"
    return Blocked(uid, deleting, bound, f"Job {name} {doing if verb is None else verb}", named(refusal))
