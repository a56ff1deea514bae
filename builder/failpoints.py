"""Places where a test can have the process killed, to see what is left.

Nothing happens unless ``arm`` finds the variable, with ``<name>`` or ``<name>:<count>`` (killed at the count-th time).
The names stand for every point between the accepted bytes and the settled row at which a crash could come.
"""

import os
import signal
from collections.abc import Mapping
from enum import StrEnum

VARIABLE = "KNATIVE_LAMBDA_BUILDER_FAILPOINT"


class Failpoint(StrEnum):
    """In the order in which an event passes them."""

    BODY_READ = "body_read"
    MESSAGE_DELIVERED = "message_delivered"
    SLOT_RESERVED = "slot_reserved"
    BEFORE_COMMIT = "before_commit"
    AFTER_COMMIT = "after_commit"
    ADMITTED = "admitted"
    ENQUEUED = "enqueued"
    TAKEN = "taken"
    BEFORE_CREATE = "before_create"
    AFTER_CREATE = "after_create"
    AFTER_DELETE = "after_delete"
    SET_ASIDE = "set_aside"
    BEFORE_SETTLE = "before_settle"
    SETTLED = "settled"
    BEFORE_LETTER = "before_letter"
    LETTER_CONFIRMED = "letter_confirmed"
    BEFORE_ACK = "before_ack"
    ACKED = "acked"


OF_HTTP = frozenset({Failpoint.BODY_READ, Failpoint.BEFORE_COMMIT, Failpoint.AFTER_COMMIT})
"""On the way of events that come over HTTP, and of no others."""

OF_AMQP = frozenset(
    {
        Failpoint.MESSAGE_DELIVERED,
        Failpoint.BEFORE_LETTER,
        Failpoint.LETTER_CONFIRMED,
        Failpoint.BEFORE_ACK,
        Failpoint.ACKED,
    }
)
"""On the way of events that come by AMQP, and of no others."""


_armed: dict[Failpoint, int] = {}


def arm(environ: Mapping[str, str]) -> None:
    """Take the order to die from the environment; a test's, never a user's."""
    text = environ.get(VARIABLE)
    if text is not None:
        name, _, count = text.partition(":")
        _armed[Failpoint(name)] = int(count or 1)


def reach(point: Failpoint) -> None:
    """Die here if that was ordered."""
    if _armed and point in _armed:
        _armed[point] -= 1
        if _armed[point] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
