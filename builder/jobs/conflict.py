"""Something already has the Job's name. What now? One pure function, one table (ARCHITECTURE.md shows it)."""

from dataclasses import dataclass
from typing import Literal, assert_never

from builder.jobs import labels
from builder.jobs.status import JobState, job_state
from builder.jobs.succession import came_after, requested_at
from builder.models import Decision, Manifest, Source


@dataclass(frozen=True, slots=True)
class Wanted:
    """The Job that we would create, and what the decision needs to know beside it."""

    job: Manifest
    source: Source


def decide(existing: Manifest | None, wanted: Wanted, on_active_build: Literal["wait", "replace"]) -> Decision:
    """Compare what exists under the name with what is wanted."""
    if existing is None:
        return Decision.CREATE
    if not _ours(existing, wanted.job):
        return Decision.NAME_TAKEN
    if _same(existing, wanted.job, labels.EVENT_SOURCE, labels.EVENT_ID):
        # Even one that is being deleted: the event had its Job, and building again would double it.
        return Decision.ADOPT
    same_target = _same(existing, wanted.job, labels.PARSER_ID)
    theirs, ours = requested_at(existing), requested_at(wanted.job)
    if came_after(existing, wanted.job) or (same_target and theirs > ours):
        return Decision.SUPERSEDED
    state = job_state(existing)
    if state is JobState.DELETING:
        return Decision.WAIT_FOR_DELETION
    if wanted.source.immutable and state is not JobState.FAILED and _same(existing, wanted.job, labels.FINGERPRINT):
        return Decision.ADOPT
    match state:
        case JobState.COMPLETE | JobState.FAILED:
            return Decision.REPLACE_FINISHED
        case JobState.ACTIVE:
            # Of two requests of one moment neither is the newer: no build is stopped for the other's sake.
            newest_wins = on_active_build == "replace" and same_target and theirs < ours
            return Decision.REPLACE_ACTIVE if newest_wins else Decision.WAIT_FOR_BUILD
    assert_never(state)


def _ours(existing: Manifest, wanted: Manifest) -> bool:
    """Made by us, for the same third party. The label may be a cut form, so the full id decides."""
    existing_labels = existing["metadata"].get("labels") or {}
    return existing_labels.get(labels.MANAGED_BY) == labels.OURSELVES and _same(existing, wanted, labels.THIRD_PARTY_ID)


def _same(existing: Manifest, wanted: Manifest, *keys: str) -> bool:
    there, here = labels.annotations(existing), labels.annotations(wanted)
    return all(there.get(key) == here[key] for key in keys)
