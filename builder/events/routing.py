"""From an event's type to what is done about it, and from its source to the flow it came by."""

from enum import StrEnum

from builder.errors import EventRejected, Problem
from builder.events.problems import quoted
from builder.models import Event, Flow

JOB_START = "network.notifi.lambda.job.start"
QUEUE_SOURCE = "network.notifi.kaniko-jobs"
"""The source of events that went through 004's queue, on which its Trigger filters as well."""


class UseCase(StrEnum):
    """What an event may ask for."""

    BUILD_START = "build_start"


# The one place for old spellings. Names in the past tense tell what happened and are never acted on.
_USE_CASES = {
    JOB_START: UseCase.BUILD_START,
    "io.knative.lambda.command.build.start": UseCase.BUILD_START,
    "network.notifi.lambda.build.start": UseCase.BUILD_START,
    "lambda.build.start": UseCase.BUILD_START,
}

EVENT_TYPES = tuple(_USE_CASES)
"""All types that somebody here acts on."""


def route(event: Event) -> UseCase:
    """The use case that the event's type stands for.

    Raises:
        EventRejected: nobody here acts on that type.
    """
    use_case = _USE_CASES.get(event.type)
    if use_case is None:
        known = ", ".join(_USE_CASES)
        raise EventRejected([Problem("type", f"{quoted(event.type)} is not known here; known are {known}")])
    return use_case


def flow_of(event: Event) -> Flow:
    """The flow of an event that came over HTTP; one that came by AMQP is of the queue's whatever its source."""
    return "queue" if event.source == QUEUE_SOURCE else "direct"
