"""Which types are acted on, and which flow an event came by."""

import pytest

from builder.errors import EventRejected, Problem
from builder.events.routing import UseCase, flow_of, route
from builder.models import Event, Flow

EVENT = Event("1", "/s", "t", None, None, {}, b"")


@pytest.mark.parametrize(
    "event_type",
    [
        "network.notifi.lambda.job.start",
        "io.knative.lambda.command.build.start",
        "network.notifi.lambda.build.start",
        "lambda.build.start",
    ],
)
def test_four_spellings_start_a_build(event_type: str) -> None:
    """E17: 004's name, 001's name and the two from before."""
    assert route(EVENT._replace(type=event_type)) is UseCase.BUILD_START


@pytest.mark.parametrize(
    "event_type",
    ["io.knative.lambda.lifecycle.build.started", "lambda.build.started", "Lambda.Build.Start", "lambda.build.start "],
)
def test_no_other_type_is_acted_on(event_type: str) -> None:
    """E18: what tells of the past is never a command, and a type is compared exactly."""
    with pytest.raises(EventRejected) as caught:
        route(EVENT._replace(type=event_type))
    known = (
        "network.notifi.lambda.job.start, io.knative.lambda.command.build.start, "
        "network.notifi.lambda.build.start, lambda.build.start"
    )
    assert caught.value.problems == (Problem("type", f'"{event_type}" is not known here; known are {known}'),)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("source", "flow"),
    [
        ("network.notifi.kaniko-jobs", "queue"),
        ("network.notifi.kaniko-jobs/", "direct"),
        ("/curl", "direct"),
    ],
)
def test_the_source_tells_the_flow(source: str, flow: Flow) -> None:
    """E10: over HTTP, 004's queue source is the queue's flow and everything else is direct."""
    assert flow_of(EVENT._replace(source=source)) is flow
