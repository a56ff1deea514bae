"""The calls of the port, the play of the builds, and who sees it."""

import asyncio
import time
import uuid
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Self

import orjson

from builder.adapters.memory_cluster.job import MemoryJob, State
from builder.adapters.memory_cluster.rules import check_job
from builder.errors import AlreadyExists, Conflict
from builder.models import Manifest
from builder.settings import Memory


class MemoryCluster:
    """The Jobs of ``namespace``, on the clock of the running event loop.

    A build is pending, runs and completes by itself, after the times in ``settings``; it fails if its
    ``activeDeadlineSeconds`` come first. ``on_change`` gets the Job after each change; one that is going away has a
    ``deletionTimestamp``.
    """

    def __init__(
        self, settings: Memory, namespace: str = "default", on_change: Callable[[Manifest], None] | None = None
    ) -> None:
        """Call it where an event loop runs, and ``close`` it in the end."""
        self.namespace = namespace
        self._settings = settings
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        self._epoch = time.time() - self._loop.time()
        self._version = 0
        self._jobs: dict[str, MemoryJob] = {}
        self._leaving: dict[str, MemoryJob] = {}
        """By uid: Jobs that were deleted in the background, whose Pods are not gone yet."""

    async def __aenter__(self) -> Self:
        """For ``async with``, which closes it."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """End the play: what is pending or running stays so."""
        for job in (*self._jobs.values(), *self._leaving.values()):
            job.cancel_timer()

    async def create(self, job: Manifest) -> None:
        """See ``Cluster``."""
        await _round_trip()
        check_job(job, self.namespace)
        name: str = job["metadata"]["name"]
        there = self._jobs.get(name)
        if there is not None:
            state = "" if there.deleted_at is None else "object is being deleted: "
            message = f'{state}jobs.batch "{name}" already exists'
            raise AlreadyExists(message, status=HTTPStatus.CONFLICT)
        spec = job["spec"]
        # Kept as text: the caller's dict stays the caller's, and 100,000 Jobs are no work for the garbage collector.
        made = MemoryJob(
            name=name,
            namespace=self.namespace,
            uid=str(uuid.uuid4()),
            text=orjson.dumps(job),
            created_at=self._now(),
            deadline=spec.get("activeDeadlineSeconds"),
            time_to_live=spec.get("ttlSecondsAfterFinished"),
        )
        self._jobs[name] = made
        self._changed(made)
        self._play(made, self._settings.pending_time, self._run)

    async def get(self, name: str) -> Manifest | None:
        """See ``Cluster``. The manifest is the caller's own."""
        await _round_trip()
        job = self._jobs.get(name)
        return None if job is None else job.manifest()

    async def delete(self, name: str, uid: str, *, foreground: bool) -> None:
        """See ``Cluster``."""
        await _round_trip()
        job = self._jobs.get(name)
        if job is None:
            return
        if job.uid != uid:
            message = (
                f'Operation cannot be fulfilled on Job.batch "{name}": the UID in the precondition ({uid}) does not '
                f"match the UID in record ({job.uid}). The object might have been deleted and then recreated"
            )
            raise Conflict(message, status=HTTPStatus.CONFLICT)
        if foreground:
            self._delete_in_foreground(job)
        else:
            self._delete_in_background(job)

    async def probe(self) -> None:
        """See ``Cluster``: it always answers."""
        await _round_trip()

    async def missing_permissions(self) -> list[str]:
        """See ``Rights``: nobody is asked in here."""
        return []

    def jobs(self) -> Iterator[Manifest]:
        """All Jobs as they are now, the oldest first."""
        return (job.manifest() for job in tuple(self._jobs.values()))

    def pods(self) -> dict[str, str]:
        """The Pods that exist: their names and the uid of the Job that each belongs to."""
        owners = (*self._leaving.values(), *self._jobs.values())
        return {job.pod: job.uid for job in owners if job.has_pod}

    def finish(self, name: str, *, succeeded: bool) -> None:
        """End the build now, as the kubelet does when the container exits; a failure is that of the last retry.

        Without effect on a build that has ended or is being stopped. Raises KeyError where there is no such Job.
        """
        job = self._jobs[name]
        if job.state in (State.PENDING, State.RUNNING) and job.deleted_at is None:
            self._end(job, State.COMPLETE if succeeded else State.BACKOFF_LIMIT_EXCEEDED)

    def _run(self, job: MemoryJob) -> None:
        job.state = State.RUNNING
        self._changed(job)
        self._play(job, self._settings.build_time, self._complete)

    def _complete(self, job: MemoryJob) -> None:
        self._end(job, State.COMPLETE)

    def _exceed_deadline(self, job: MemoryJob) -> None:
        """Stop the Pod first: a Job is Failed only when nothing of it runs any more."""
        job.state, job.stopped_at = State.STOPPING, self._now()
        self._changed(job)
        self._after(job, self._settings.deletion_time, self._fail)

    def _fail(self, job: MemoryJob) -> None:
        job.has_pod = False
        self._end(job, State.DEADLINE_EXCEEDED)

    def _end(self, job: MemoryJob, state: State) -> None:
        job.state, job.ended_at = state, self._now()
        job.cancel_timer()
        self._changed(job)
        if job.time_to_live is not None:
            self._after(job, job.time_to_live, self._delete_in_foreground)

    def _delete_in_foreground(self, job: MemoryJob) -> None:
        if job.deleted_at is None:
            job.deleted_at = self._now()
            self._changed(job)
            self._after(job, self._settings.deletion_time, self._gone)

    def _delete_in_background(self, job: MemoryJob) -> None:
        """The name is free at once; the Pod takes its time."""
        del self._jobs[job.name]
        self._leaving[job.uid] = job
        if job.deleted_at is None:
            job.deleted_at = self._now()
            self._after(job, self._settings.deletion_time, self._gone)
        self._changed(job)

    def _gone(self, job: MemoryJob) -> None:
        if self._leaving.pop(job.uid, None) is None:
            del self._jobs[job.name]

    def _play(self, job: MemoryJob, delay: float, step: Callable[[MemoryJob], None]) -> None:
        """Take the next step after ``delay`` seconds, or exceed the deadline if that comes first."""
        left = float("inf") if job.deadline is None else job.created_at + job.deadline - self._now()
        if left < delay:
            self._after(job, left, self._exceed_deadline)
        else:
            self._after(job, delay, step)

    def _after(self, job: MemoryJob, delay: float, step: Callable[[MemoryJob], None]) -> None:
        job.cancel_timer()
        job.timer = self._loop.call_later(delay, step, job)

    def _changed(self, job: MemoryJob) -> None:
        self._version += 1
        job.version = self._version
        if self._on_change is not None:
            self._on_change(job.manifest())

    def _now(self) -> float:
        """Seconds since 1970, by the loop's clock, so that time-stamps and timers never disagree."""
        return self._epoch + self._loop.time()


async def _round_trip() -> None:
    """Give way as a call over the network would: a caller in a loop must not keep the others from their turn."""
    await asyncio.sleep(0)
