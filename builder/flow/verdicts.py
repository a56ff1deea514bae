"""What a failed or blocked try means for its item: pure decisions from the failure table (ARCHITECTURE.md shows it)."""

from collections.abc import Callable
from dataclasses import dataclass

from builder.errors import ClusterError, Denied, EventRejected, QuotaExceeded, named
from builder.flow.ensure_job import Blocked
from builder.flow.items import Again, Done, Patience, Wait
from builder.models import Failure, FailureReason, Outcome
from builder.retry import Backoff
from builder.settings import AsyncJobCreator

LOOKS_PER_SECOND = 20.0
"""How often, on average, all waiting items together look whether the builds that they wait for have ended."""

LONGEST_PAUSE = 5.0
"""Seconds between two looks of one item, while few wait."""

_DENIED = {
    401: FailureReason.UNAUTHORIZED,
    403: FailureReason.FORBIDDEN,
    404: FailureReason.NAMESPACE_NOT_FOUND,
}


@dataclass(frozen=True, slots=True)
class Verdicts:
    """The one owner of retries. ``draw`` gives the jitter, a number in [0, 1)."""

    policy: AsyncJobCreator
    draw: Callable[[], float]

    def after_error(self, error: ClusterError, patience: Patience, now: float) -> Done | Again:
        """What follows on the API server's refusal. Not for ``Unreachable``: an outage is nobody's retry."""
        if isinstance(error, QuotaExceeded):
            return self._wait_for_room(error, patience, now)
        if isinstance(error, Denied):
            return failed(_DENIED.get(error.status or 0, FailureReason.INVALID_JOB), str(error), error)
        if patience.retries >= self.policy.max_retries:
            tries = patience.retries + 1
            return failed(FailureReason.RETRIES_EXHAUSTED, f"{tries} tries failed; the last: {error}", error)
        delay = self._backoff.delay(patience.retries, self.draw, error.retry_after)
        patience.retries += 1
        return Again(Wait.RETRY, delay, str(error))

    def after_block(self, blocked: Blocked, patience: Patience, now: float, crowd: int) -> Done | Again:
        """Another Job holds the name: look again later, until the bound of that Job has passed.

        ``crowd`` is how many items wait: the more there are, the more rarely each of them looks. The looks are
        spread, for all may have come in one moment.
        """
        if not patience.wait_for(blocked.uid, now, blocked.bound):
            message = f"{blocked.message}, longer than its own deadline allows"
            return Done(Outcome.FAILED, Failure(FailureReason.ACTIVE_BUILD, message, blocked.error))
        wait = Wait.DELETION if blocked.deleting else Wait.ACTIVE_BUILD
        looking = Backoff(self.policy.retry_delay, min(self.policy.max_retry_delay, LONGEST_PAUSE))
        floor = crowd / LOOKS_PER_SECOND * (0.5 + self.draw())
        delay = looking.delay(patience.waits, self.draw, floor)
        patience.waits += 1
        return Again(wait, delay, blocked.message)

    def _wait_for_room(self, error: QuotaExceeded, patience: Patience, now: float) -> Done | Again:
        if not patience.wait_for("quota", now, self.policy.capacity_timeout):
            return failed(FailureReason.QUOTA, str(error), error)
        # At the most: it is called back when there is room.
        return Again(Wait.CAPACITY, patience.until - now, str(error))

    @property
    def _backoff(self) -> Backoff:
        return Backoff(self.policy.retry_delay, self.policy.max_retry_delay)


def failed(reason: FailureReason, message: str, error: Exception | None = None) -> Done:
    """The end as a dead letter. ``error`` is what it ended of, where that was one."""
    return Done(Outcome.FAILED, Failure(reason, message, named(error)))


def no_longer_valid(error: EventRejected) -> Done:
    """An event that was fine at the door and is not any more: the settings changed in between."""
    return failed(FailureReason.INVALID_REQUEST, str(error), error)
