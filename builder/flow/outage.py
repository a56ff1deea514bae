"""When the API server does not answer, or is not ready: one probe for all, and everybody else waits."""

import asyncio
import random
from collections.abc import Callable
from http import HTTPStatus

import structlog

from builder.errors import ClusterError, Unreachable
from builder.flow.ports import Cluster
from builder.retry import Backoff

PROBING = Backoff(base=0.2, cap=0.5)
"""Probes are never further apart than this and their floor, so work goes on within 0.6 s of the server's return."""

log = structlog.get_logger(__name__)


class Outage:
    """Open as long as the API server answers. A log line when it goes and one when it is back, whatever the load."""

    def __init__(self, cluster: Cluster, draw: Callable[[], float] = random.random) -> None:
        self._cluster = cluster
        self._draw = draw
        self._open = asyncio.Event()
        self._open.set()
        self._closed = asyncio.Event()
        self.reason: str | None = None
        self.count = 0

    async def over(self) -> None:
        """Return at once in good times, else when the API server answers again."""
        await self._open.wait()

    async def suspect(self, error: ClusterError, outages: int) -> bool:
        """True if ``error`` is part of an outage; then everybody waits.

        A connection that broke, or a 5xx, is its request's own bad luck only if the server says that it is ready.
        ``outages`` is what ``count`` was when the call began: one that an outage came over is part of it, though it may
        fail, of its time-out, when that is over already.
        """
        no_fault_of_its_own = error.status is None or error.status >= HTTPStatus.INTERNAL_SERVER_ERROR
        if no_fault_of_its_own and self.count > outages:
            return True
        if isinstance(error, Unreachable) or (no_fault_of_its_own and not await self._answers()):
            self._begin(error)
        return not self._open.is_set()

    async def check(self) -> None:
        """Ask the API server now; an outage begins if it does not answer.

        Raises:
            ClusterError: it answers, and will not have us.
        """
        try:
            await self._cluster.probe()
        except ClusterError as exc:
            if _is_an_answer(exc):
                raise
            self._begin(exc)

    async def watch(self) -> None:
        """Probe while there is an outage. Runs for the life of the service."""
        while True:
            await self._closed.wait()
            probes = 0
            while not await self._answers():
                await asyncio.sleep(PROBING.delay(min(probes, 8), self._draw, floor=0.1))
                probes += 1
            self._end()

    async def _answers(self) -> bool:
        try:
            await self._cluster.probe()
        except ClusterError as exc:
            return _is_an_answer(exc)
        return True

    def _begin(self, error: ClusterError) -> None:
        if self._open.is_set():
            self._open.clear()
            self._closed.set()
            self.reason = str(error)
            self.count += 1
            log.error("api_server_unreachable", error=str(error), then="workers wait and probe; nothing is lost")

    def _end(self) -> None:
        self.reason = None
        self._closed.clear()
        self._open.set()
        log.info("api_server_back")


def _is_an_answer(error: ClusterError) -> bool:
    """Any answer shows that a server is there, but a 5xx: a load balancer's for a dead one, or a starting one's own."""
    return error.status is not None and error.status < HTTPStatus.INTERNAL_SERVER_ERROR
