"""Places where a test can have the process killed, to see what is left.

Nothing happens unless ``arm`` finds the variable, with ``<name>`` or ``<name>:<count>`` (killed at the count-th time).
The names stand for every point between the accepted bytes and the settled row at which a crash could come.
"""

import os
import signal
from collections.abc import Mapping
from typing import Literal, TypeAlias, get_args

VARIABLE = "KNATIVE_LAMBDA_BUILDER_FAILPOINT"


Failpoint: TypeAlias = Literal[
    "body_read",
    "message_delivered",
    "slot_reserved",
    "before_commit",
    "after_commit",
    "admitted",
    "enqueued",
    "taken",
    "before_create",
    "after_create",
    "after_delete",
    "set_aside",
    "before_settle",
    "settled",
    "before_letter",
    "letter_confirmed",
    "before_ack",
    "acked",
]
"""In the order in which an event passes them. No Enum: Python 3.11 takes longer to find its member than to go on."""

FAILPOINTS: tuple[Failpoint, ...] = get_args(Failpoint)

OF_HTTP: frozenset[Failpoint] = frozenset({"body_read", "before_commit", "after_commit"})
"""On the way of events that come over HTTP, and of no others."""

OF_AMQP: frozenset[Failpoint] = frozenset(
    {"message_delivered", "before_letter", "letter_confirmed", "before_ack", "acked"}
)
"""On the way of events that come by AMQP, and of no others."""

_armed: dict[Failpoint, int] = {}


def arm(environ: Mapping[str, str]) -> None:
    """Take the order to die from the environment; a test's, never a user's.

    Raises:
        ValueError: there is no such point.
    """
    text = environ.get(VARIABLE)
    if text is not None:
        name, _, count = text.partition(":")
        if name not in FAILPOINTS:
            msg = f"{VARIABLE}: there is no {name!r}"
            raise ValueError(msg)
        _armed[name] = int(count or 1)


def reach(point: Failpoint) -> None:
    """Die here if that was ordered."""
    if _armed and point in _armed:
        _armed[point] -= 1
        if _armed[point] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
