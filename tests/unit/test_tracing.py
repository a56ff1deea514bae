"""Traces: from the sender's own, through the waits and each call, to the Job; and nothing of it where nobody asks."""

import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from builder.adapters.memory_cluster import MemoryCluster
from builder.adapters.tracing import asked_for
from builder.adapters.tracing.spans import Spans
from builder.errors import Denied, StartError, Transient
from builder.models import Event, Manifest
from builder.settings import Memory
from tests import building
from tests.contract.harness import eventually
from tests.flow_parts import Flow

TRACE, SENDER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{SENDER}-01"


class Moody(MemoryCluster):
    """Has troubles before it creates."""

    def __init__(self, *troubles: Exception) -> None:
        super().__init__(Memory())
        self.troubles = list(troubles)
        self.created: list[Manifest] = []

    async def create(self, job: Manifest) -> None:
        if self.troubles:
            raise self.troubles.pop(0)
        self.created.append(job)
        await super().create(job)


async def spans_of(event: Event, cluster: Moody) -> Sequence[ReadableSpan]:
    """All spans of one event, once it has ended."""
    exporter = InMemorySpanExporter()
    spans = Spans(SimpleSpanProcessor(exporter))
    known = building.settings(asyncJobCreator={"retryDelay": "1ms"})
    async with cluster, Flow(spans.traced(cluster), known, spans) as flow:
        await flow.intake.offer(event)

        async def finished() -> Sequence[ReadableSpan]:
            return exporter.get_finished_spans()

        return await eventually(finished, lambda found: any(span.name == "build" for span in found))


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


async def test_from_the_sender_to_the_job() -> None:
    """One trace: the sender's span, ours for the event, in it the waits and each call; the Job carries it on."""
    cluster = Moody(Transient("busy", retry_after=0.001))
    event = building.event()._replace(extensions={"traceparent": TRACEPARENT})
    spans = await spans_of(event, cluster)
    (build,) = [span for span in spans if span.name == "build"]
    assert build.context is not None
    assert build.parent is not None
    assert (f"{build.context.trace_id:032x}", f"{build.parent.span_id:016x}") == (TRACE, SENDER)
    assert attributes(build).items() >= {"outcome": "created", "attempts": 2, "cloudevents.event_id": event.id}.items()
    inside = [span for span in spans if span is not build]
    assert [span.name for span in inside] == ["queue", "create job", "set aside", "create job"]
    assert {span.parent.span_id for span in inside if span.parent is not None} == {build.context.span_id}
    assert [attributes(span).get("error.type") for span in inside] == [None, "Transient", None, None]
    (job,) = cluster.created
    annotation = job["metadata"]["annotations"]["build.notifi.network/traceparent"]
    assert annotation == f"00-{TRACE}-{build.context.span_id:016x}-01"


@pytest.mark.parametrize(("traceparent", "expected"), [(TRACEPARENT, TRACE), (f"00-{TRACE}-{SENDER}-00", None)])
async def test_metrics_name_a_trace_that_somebody_keeps(traceparent: str, expected: str | None) -> None:
    """An example of a sender's trace that is not sampled would lead nowhere."""
    spans = Spans(SimpleSpanProcessor(InMemorySpanExporter()))
    async with MemoryCluster(Memory()) as cluster, Flow(spans.traced(cluster), building.settings(), spans) as flow:
        await flow.intake.offer(building.event()._replace(extensions={"traceparent": traceparent}))

        async def ended() -> int:
            return flow.stats.creation.count

        await eventually(ended, lambda count: count == 1)
        for histogram in (flow.stats.creation, flow.stats.api_calls):
            assert [example.trace_id for example in histogram.examples.values()] == ([expected] if expected else [])


async def test_a_trace_of_its_own_and_a_failure() -> None:
    """An event without a trace begins one; a dead letter is an error."""
    (*_, build) = await spans_of(building.event(), Moody(Denied("no such thing", status=422)))
    assert build.parent is None
    assert (build.status.status_code.name, attributes(build)["error.type"]) == ("ERROR", "invalid_job")


@pytest.mark.parametrize(
    ("environ", "asking"),
    [
        ({}, None),
        ({"OTEL_SERVICE_NAME": "x"}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c"}, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, "OTEL_TRACES_EXPORTER"),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c"}, None),
        ({"OTEL_SDK_DISABLED": "TRUE", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c"}, None),
    ],
)
def test_the_standard_variables_ask_for_it(environ: dict[str, str], asking: str | None) -> None:
    assert asked_for(environ) == asking


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER is 'zipkin'"),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "OTEL_EXPORTER_OTLP_PROTOCOL is 'grpc'",
        ),
    ],
)
def test_what_we_cannot_do_is_said_at_the_start(environ: dict[str, str], says: str) -> None:
    with pytest.raises(StartError, match=says):
        asked_for(environ)


def test_nobody_pays_who_did_not_ask() -> None:
    """The service comes up without a module of OpenTelemetry's SDK."""
    code = "import sys, builder.app; sys.exit(any(name.startswith('opentelemetry.sdk') for name in sys.modules))"
    subprocess.run([sys.executable, "-c", code], check=True)
