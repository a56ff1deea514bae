"""The failure table, row by row."""

import math

import pytest

from builder.errors import ClusterError, Denied, QuotaExceeded, Transient
from builder.flow.ensure_job import Blocked
from builder.flow.items import Again, Done, Patience, Wait
from builder.flow.verdicts import Verdicts
from builder.models import Failure, FailureReason, Outcome
from builder.settings import AsyncJobCreator

VERDICTS = Verdicts(AsyncJobCreator(), draw=lambda: 0.5)


def dead(reason: FailureReason, message: str, error: str = "") -> Done:
    """The end as a dead letter."""
    return Done(Outcome.FAILED, Failure(reason, message, error))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Denied("bad", status=400), FailureReason.INVALID_JOB),
        (Denied("who are you", status=401), FailureReason.UNAUTHORIZED),
        (Denied("you may not", status=403), FailureReason.FORBIDDEN),
        (Denied("no such namespace", status=404), FailureReason.NAMESPACE_NOT_FOUND),
        (Denied("invalid", status=422), FailureReason.INVALID_JOB),
    ],
)
def test_what_cannot_help_is_not_tried_again(error: ClusterError, reason: FailureReason) -> None:
    """A dead letter at once, with the API server's own words."""
    assert VERDICTS.after_error(error, Patience(), 0.0) == dead(reason, str(error), f"Denied {error.status}")


def test_transient_failures_are_tried_three_times_again() -> None:
    """``maxRetries`` counts them; the delays double from ``retryDelay``, jittered; the last words are kept."""
    patience = Patience()
    steps = [VERDICTS.after_error(Transient("busy", status=503), patience, 0.0) for _ in range(4)]
    assert steps == [
        Again(Wait.RETRY, 0.05, "busy"),
        Again(Wait.RETRY, 0.1, "busy"),
        Again(Wait.RETRY, 0.2, "busy"),
        dead(FailureReason.RETRIES_EXHAUSTED, "4 tries failed; the last: busy", "Transient 503"),
    ]


def test_retry_after_is_a_floor() -> None:
    """The server knows best when it is worth coming back."""
    error = Transient("slow down", status=429, retry_after=7.0)
    assert VERDICTS.after_error(error, Patience(), 0.0) == Again(Wait.RETRY, 7.05, "slow down")


def test_no_retries_at_all() -> None:
    """``maxRetries: 0`` means one try."""
    verdicts = Verdicts(AsyncJobCreator(max_retries=0), draw=lambda: 0.5)
    step = verdicts.after_error(Transient("busy", status=500), Patience(), 0.0)
    assert step == dead(FailureReason.RETRIES_EXHAUSTED, "1 tries failed; the last: busy", "Transient 500")


def test_a_full_quota_is_waited_for() -> None:
    """Capacity is no failure: no retry is counted, until ``capacityTimeout`` (an hour) has passed.

    The wait is for what is left of that; the line calls it back when there is room.
    """
    patience, full = Patience(), QuotaExceeded("exceeded quota", status=403)
    assert VERDICTS.after_error(full, patience, 100.0) == Again(Wait.CAPACITY, 3600.0, "exceeded quota")
    assert VERDICTS.after_error(full, patience, 3699.0) == Again(Wait.CAPACITY, 1.0, "exceeded quota")
    assert patience.retries == 0
    assert VERDICTS.after_error(full, patience, 3700.0) == dead(
        FailureReason.QUOTA, "exceeded quota", "QuotaExceeded 403"
    )


def test_a_running_build_is_waited_for_until_its_own_deadline() -> None:
    """Its deadline plus a minute from when we first saw it; another build under the name starts anew."""
    patience = Patience()
    first = Blocked("u-1", deleting=False, bound=60.0, message="Job x is still building")
    second = Blocked("u-2", deleting=True, bound=60.0, message="Job x is being deleted", error="AlreadyExists 409")
    assert VERDICTS.after_block(first, patience, 0.0, crowd=0) == Again(
        Wait.ACTIVE_BUILD, 0.05, "Job x is still building"
    )
    assert VERDICTS.after_block(second, patience, 59.0, crowd=0) == Again(Wait.DELETION, 0.1, "Job x is being deleted")
    assert VERDICTS.after_block(second, patience, 118.0, crowd=0) == Again(Wait.DELETION, 0.2, "Job x is being deleted")
    assert VERDICTS.after_block(second, patience, 119.0, crowd=0) == dead(
        FailureReason.ACTIVE_BUILD,
        "Job x is being deleted, longer than its own deadline allows",
        "AlreadyExists 409",
    )


def test_a_suspended_build_is_waited_for_as_long_as_its_queue_likes() -> None:
    """Patience begins when it starts, and both survive a restart."""
    patience = Patience()
    suspended = Blocked("u-1 suspended", deleting=False, bound=math.inf, message="Job x is suspended")
    building = Blocked("u-1", deleting=False, bound=60.0, message="Job x is still building")
    assert VERDICTS.after_block(suspended, patience, 0.0, crowd=0) == Again(
        Wait.ACTIVE_BUILD, 0.05, "Job x is suspended"
    )
    patience = Patience.restored(patience.saved(1e6), 5.0)
    assert VERDICTS.after_block(suspended, patience, 1e9, crowd=0) == Again(
        Wait.ACTIVE_BUILD, 0.1, "Job x is suspended"
    )
    assert VERDICTS.after_block(building, patience, 1e9, crowd=0) == Again(
        Wait.ACTIVE_BUILD, 0.2, "Job x is still building"
    )
    assert VERDICTS.after_block(building, patience, 1e9 + 60, crowd=0) == dead(
        FailureReason.ACTIVE_BUILD, "Job x is still building, longer than its own deadline allows"
    )


def test_a_crowd_looks_rarely() -> None:
    """5,000 items that wait for builds ask twenty times a second all together, not each of them by itself."""
    active = Blocked("u-1", deleting=False, bound=3600.0, message="Job x is still building")
    step = VERDICTS.after_block(active, Patience(), 0.0, crowd=5000)
    assert step == Again(Wait.ACTIVE_BUILD, 250.05, "Job x is still building")


def test_few_look_often() -> None:
    """A build that waits for another begins soon after that one's end, however long that took."""
    patience = Patience(waits=100)
    active = Blocked("u-1", deleting=False, bound=3600.0, message="Job x is still building")
    step = VERDICTS.after_block(active, patience, 0.0, crowd=1)
    assert step == Again(Wait.ACTIVE_BUILD, 2.55, "Job x is still building")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{}",
        "[1, 2, 3]",
        '["a", 1, 1, null, 0]',
        "[1, 1, 1, 5, 0]",
        "[1, 1, 1, null, NaN]",
        "[" * 9999,
    ],
)
def test_progress_that_cannot_be_read_is_none(text: str) -> None:
    """A byte that the disk changed costs a few tries more, and never the restart."""
    assert Patience.restored(text, 5.0).saved(5.0) == Patience().saved(5.0)


def test_progress_of_an_earlier_version() -> None:
    """A rolling update of our own: what the version before this one noted still counts."""
    restored = Patience.restored('[3, 1, 2, "u-1", 7.5]', 5.0)
    assert restored.saved(5.0) == Patience(3, 1, 2, "u-1", 12.5).saved(5.0)
    assert Patience.restored(Patience(note="n").saved(0.0), 0.0).note == "n"
