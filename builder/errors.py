"""Every error that this program raises on purpose.

::

    BuilderError
    ├── SettingsError          a setting is wrong or missing: names the key and what is allowed
    ├── StartError             the surroundings do not allow a start: names the setting and the fix
    ├── EventRejected          the event is at fault; the sender must change it (400, 413, 415)
    ├── NotNow                 the event is fine, the moment is not; carries ``retry_after``
    │   ├── QueueFull          (429)
    │   ├── Draining           (503)
    │   ├── HttpOff            events come from RabbitMQ only (503)
    │   ├── StorageError       the journal cannot be written now (503)
    │   └── NotSettled         its sender keeps the event, for it has not ended well yet (503)
    ├── HandedBack             the event is not held here any more, so it is not ours to end
    ├── ClusterError           what the Kubernetes API said, in its own words
    │   ├── AlreadyExists      409 on create
    │   ├── Conflict           409 on delete: the object is not the one that we read
    │   ├── Transient          429, 5xx, time-out, connection lost: try again
    │   ├── QuotaExceeded      403 "exceeded quota": try again, later
    │   ├── Denied             400, 401, 403, 404, 422: trying again cannot help
    │   └── Unreachable        nobody answers, or is not ready: an outage, not this request's fault
    └── BrokerError            what RabbitMQ said, or that it said nothing
        ├── BrokerAway         nobody answers, or the connection was lost: try again
        ├── BrokerDenied       account, vhost or certificate: names the setting; trying again alone cannot help
        ├── BrokerFull         a queue that refuses what is over its bound: send it again later
        └── NotRouted          no queue wants the message: names the binding that is missing
"""

from collections.abc import Sequence
from dataclasses import dataclass


class BuilderError(Exception):
    """The root of the tree."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, and where: ``field`` is a path such as ``data.parameters.priority``."""

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


class SettingsError(BuilderError):
    """One or more settings are wrong. All of them are named at once."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


class StartError(BuilderError):
    """The service cannot start here. The message names the setting and the way out."""


class EventRejected(BuilderError):
    """An event that can never become a Job as it is.

    ``status`` is the HTTP status that says so: 400 (wrong fields), 403 (not by this road), 413 (too large) or 415 (no
    CloudEvent).
    """

    def __init__(self, problems: Sequence[Problem], status: int = 400) -> None:
        super().__init__("; ".join(str(problem) for problem in problems))
        self.problems = tuple(problems)
        self.status = status


class NotNow(BuilderError):
    """The event may be sent again after ``retry_after`` seconds."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class QueueFull(NotNow):
    """No slot became free in the time that a sender may wait."""


class Draining(NotNow):
    """The service is shutting down and takes nothing more."""


class HttpOff(NotNow):
    """Events come by another road here."""


class StorageError(NotNow):
    """The disk, or the file on it, would not: what cannot be kept is not accepted."""

    def __init__(self, message: str, retry_after: float = 5.0) -> None:
        super().__init__(message, retry_after)


class NotSettled(NotNow):
    """An event that its sender holds until it has ended well has not, or not in time."""


class HandedBack(BuilderError):
    """Whoever held an event for us has it back, and gives it to others or to us again."""


class ClusterError(BuilderError):
    """Kubernetes did not do what we asked.

    ``status`` is the HTTP status, or None when no answer came. ``retry_after`` is in seconds, or None.
    The message is the API server's own, cut to a length that fits a log line.
    """

    def __init__(self, message: str, *, status: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


class AlreadyExists(ClusterError):
    """Something of that name is there: read it and compare before calling it success."""


class Conflict(ClusterError):
    """The object changed between our reading and our deleting."""


class Transient(ClusterError):
    """May work on the next try."""


class QuotaExceeded(ClusterError):
    """The namespace has no room at the moment."""


class Denied(ClusterError):
    """Will be answered the same however often it is asked."""


class Unreachable(ClusterError):
    """No API server answers at the address, or it says that it is not ready."""


class BrokerError(BuilderError):
    """RabbitMQ did not do what we asked. No message of the tree has a password in it."""


class BrokerAway(BrokerError):
    """No broker answers at the address, or not any more."""


class BrokerDenied(BrokerError):
    """The broker, or our own check of its certificate, will not have us. The message names the setting."""


class BrokerFull(BrokerError):
    """A queue has reached its bound and refused the message, or could not write it down."""


class NotRouted(BrokerError):
    """The broker took the message and found no queue for it, so nobody has it."""


def named(error: Exception | None) -> str:
    """The class of an error, and its status where an answer gave it one: ``Denied 403``. Nothing of no error."""
    if error is None:
        return ""
    status = getattr(error, "status", None)
    return type(error).__name__ if status is None else f"{type(error).__name__} {status}"
