"""Parts of the flow as tests put them together: the real ones, on the embedded cluster or a scripted one."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from builder.adapters.memory_journal import MemoryJournal
from builder.errors import ClusterError
from builder.events.request import build_request
from builder.events.routing import flow_of
from builder.flow.build_queue import BuildQueue
from builder.flow.intake import Intake
from builder.flow.items import Item
from builder.flow.outage import Outage
from builder.flow.ports import Cluster, LetterFilter, Tracing
from builder.flow.results import Results
from builder.flow.worker_pool import WorkerPool
from builder.models import DeadLetter, Event, Manifest, Result
from builder.settings import Settings
from builder.stats import Stats
from tests import building


class Settled:
    """A receipt that keeps the result; it may fail first, ``failures`` times."""

    def __init__(self, failures: int = 0) -> None:
        self.result: Result | None = None
        self.progress: str | None = None
        self._failures = failures

    def note(self, progress: str) -> None:
        self.progress = progress

    async def settle(self, result: Result) -> None:
        if self._failures:
            self._failures -= 1
            msg = "disk full"
            raise OSError(msg)
        assert self.result is None, "settled twice"
        self.result = result


def item(event_id: str = "e-1", receipt: Settled | None = None, event: Event | None = None, **data: Any) -> Item:
    """A queued item. ``data`` are members of the event's data, such as ``priority``."""
    one = building.event(event_id, data=data) if event is None else event
    settings = building.settings()
    request = build_request(one, building.NOON, settings.build, settings.intake)
    taken = Settled() if receipt is None else receipt
    return Item.of(one, request, taken, building.NOON, accepted=0.0, flow=flow_of(one))


class ScriptedCluster:
    """Answers each call with the next of its script: an error is raised, anything else is returned."""

    def __init__(self, *script: ClusterError | Manifest | BaseException | None) -> None:
        self.script = list(script)
        self.calls: list[tuple[Any, ...]] = []
        self.probe_error: ClusterError | None = None

    async def create(self, job: Manifest) -> None:
        self._next("create", job["metadata"]["name"])

    async def get(self, name: str) -> Manifest | None:
        return self._next("get", name)

    async def delete(self, name: str, uid: str, *, foreground: bool) -> None:
        self._next("delete", name, uid, "foreground" if foreground else "background")

    async def probe(self) -> None:
        self.calls.append(("probe",))
        if self.probe_error is not None:
            raise self.probe_error

    def _next(self, *call: Any) -> Manifest | None:
        self.calls.append(call)
        answer = self.script.pop(0) if self.script else None
        if isinstance(answer, BaseException):
            raise answer
        return answer


class Flow:
    """Intake, queue and workers over one cluster, on the virtual time of the test's loop."""

    def __init__(
        self,
        cluster: Cluster,
        settings: Settings,
        tracing: Tracing | None = None,
        draw: Callable[[], float] = lambda: 0.5,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.settings = settings
        self.stats = Stats()
        self.journal = MemoryJournal(settings.idempotency, settings.dead_letters, loop.time)
        self.queue = BuildQueue(settings.async_job_creator.max_queue_size)
        self.results = Results(settings.results.ttl, settings.results.max_entries, loop.time)
        self.outage = Outage(cluster, draw=draw)
        self.pool = WorkerPool(
            settings,
            cluster,
            self.journal,
            self.queue,
            self.outage,
            self.results,
            self.stats,
            loop.time,
            _clock(),
            draw=draw,
            tracing=tracing,
        )
        self.intake = Intake(
            settings,
            self.journal,
            self.queue,
            self.results,
            self.stats,
            loop.time,
            _clock(),
            crowded=lambda: len(self.pool.room) >= settings.async_job_creator.max_waiting,
        )
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        """Start the workers."""
        self._tasks = [asyncio.create_task(self.pool.work(number)) for number in self.pool.busy]
        self._tasks.append(asyncio.create_task(self.outage.watch()))
        return self

    async def __aexit__(self, *_: object) -> None:
        """End them."""
        self.pool.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def letters(self) -> Sequence[DeadLetter]:
        """The dead letters, the newest first."""
        return await self.journal.letters(LetterFilter(), 1000)

    def status(self, correlation_id: str) -> str:
        """What people are told about a request."""
        document = self.results.get(correlation_id)
        return "unknown" if document is None else str(document["status"])


def _clock() -> Callable[[], datetime]:
    """The time of day, in step with the loop's virtual time."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    return lambda: datetime(2024, 1, 1, 12, tzinfo=UTC) + timedelta(seconds=loop.time() - began)
