"""Whether Kubernetes lets us do all that we need. Asked now and then, for an admin may change a Role at any time."""

import asyncio
from collections.abc import Sequence

import structlog

from builder.errors import ClusterError
from builder.flow.ports import Rights

LOOK_EVERY = 60.0
LOOK_AGAIN = 2.0
"""Seconds; the latter while something is missing."""

log = structlog.get_logger(__name__)


class Permissions:
    """Knows what is ``missing``, in words such as ``create jobs.batch in namespace builds``."""

    def __init__(self, rights: Rights | None) -> None:
        self._rights = rights
        self.missing: Sequence[str] = ()

    async def look(self) -> None:
        """Ask now. A log line when something is taken away and one when it is given back.

        An API server that does not answer says nothing about permissions: what was known stays.
        """
        if self._rights is None:
            return
        try:
            missing = await self._rights.missing_permissions()
        except ClusterError as exc:
            log.debug("permissions_unknown", error=str(exc))
            return
        if missing and missing != self.missing:
            log.error("permissions_missing", missing=missing, then="such calls fail until an admin grants them")
        elif self.missing and not missing:
            log.info("permissions_complete")
        self.missing = missing

    async def watch(self) -> None:
        """Look again and again. Runs for the life of the service."""
        while True:
            await asyncio.sleep(LOOK_AGAIN if self.missing else LOOK_EVERY)
            await self.look()
