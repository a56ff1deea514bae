"""Counts what is asked of the API server, and how it answers."""

from collections.abc import Iterator
from contextlib import contextmanager

from builder.errors import AlreadyExists, ClusterError, Conflict, Denied, QuotaExceeded, Transient, Unreachable
from builder.flow.ports import Cluster
from builder.models import Manifest
from builder.stats import ApiAnswer, ApiCall, Stats

_ANSWERS: dict[type[ClusterError], ApiAnswer] = {
    AlreadyExists: ApiAnswer.ALREADY_EXISTS,
    Conflict: ApiAnswer.CONFLICT,
    Transient: ApiAnswer.TRANSIENT,
    QuotaExceeded: ApiAnswer.QUOTA,
    Denied: ApiAnswer.DENIED,
    Unreachable: ApiAnswer.UNREACHABLE,
}


class CountedCluster:
    """A cluster, with a count of each call by its answer."""

    def __init__(self, cluster: Cluster, stats: Stats) -> None:
        self._cluster = cluster
        self._stats = stats

    async def create(self, job: Manifest) -> None:
        """See ``Cluster``."""
        with self._counted(ApiCall.CREATE):
            await self._cluster.create(job)

    async def get(self, name: str) -> Manifest | None:
        """See ``Cluster``."""
        with self._counted(ApiCall.GET):
            return await self._cluster.get(name)

    async def delete(self, name: str, uid: str, *, foreground: bool) -> None:
        """See ``Cluster``."""
        with self._counted(ApiCall.DELETE):
            await self._cluster.delete(name, uid, foreground=foreground)

    async def probe(self) -> None:
        """See ``Cluster``."""
        with self._counted(ApiCall.PROBE):
            await self._cluster.probe()

    @contextmanager
    def _counted(self, call: ApiCall) -> Iterator[None]:
        try:
            yield
        except ClusterError as exc:
            self._stats.calls[call, _ANSWERS[type(exc)]] += 1
            raise
        self._stats.calls[call, ApiAnswer.OK] += 1
