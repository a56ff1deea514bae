"""Traces by OpenTelemetry: a span for each accepted event, in it its waits and each API call, sent by OTLP over HTTP.

Its own variables configure it: https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from builder import __version__
from builder.errors import ClusterError
from builder.flow.ports import Cluster
from builder.models import Event, Manifest, Result

_NAME = "knative-lambda-builder"
_PROPAGATOR = TraceContextTextMapPropagator()
_CARRIED = ("traceparent", "tracestate")


class Spans:
    """See ``builder.flow.ports.Tracing``."""

    def __init__(self, processor: SpanProcessor) -> None:
        names = Resource({SERVICE_NAME: _NAME, SERVICE_VERSION: __version__})
        self._provider = TracerProvider(resource=names.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer(_NAME, __version__)

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncIterator["Spans"]:
        """Send spans from a thread of its own, and the last of them at the end."""
        spans = cls(BatchSpanProcessor(OTLPSpanExporter()))
        try:
            yield spans
        finally:
            await asyncio.to_thread(spans.close)

    def close(self) -> None:
        """Send what is left; blocks."""
        self._provider.shutdown()

    def begin(self, event: Event, accepted_at: datetime) -> "_Trace":
        """See the port."""
        return _Trace(self._tracer, event, int(accepted_at.timestamp() * 1e9))

    def traced(self, cluster: Cluster) -> Cluster:
        """See the port."""
        return _TracedCluster(cluster, self._tracer)


class _Trace:
    """One accepted event's span, from its acceptance to its end."""

    def __init__(self, tracer: Tracer, event: Event, accepted: int) -> None:
        carried = {name: event.extensions[name] for name in _CARRIED if name in event.extensions}
        names = {"cloudevents.event_id": event.id, "cloudevents.event_source": event.source}
        names["cloudevents.event_type"] = event.type
        self._tracer = tracer
        self._span: Span = tracer.start_span(
            "build", _PROPAGATOR.extract(carried), SpanKind.CONSUMER, names, start_time=accepted
        )
        self._inside = trace.set_span_in_context(self._span)
        self._waits, self._since = "queue", accepted
        onward: dict[str, str] = {}
        _PROPAGATOR.inject(onward, self._inside)
        self.traceparent = onward["traceparent"]
        context = self._span.get_span_context()
        self.example_id = trace.format_trace_id(context.trace_id) if context.trace_flags.sampled else None

    @contextmanager
    def working(self) -> Iterator[None]:
        """See the port."""
        self._tracer.start_span(self._waits, self._inside, start_time=self._since).end()
        try:
            with trace.use_span(self._span):
                yield
        finally:
            self._waits, self._since = "set aside", time.time_ns()

    def end(self, result: Result) -> None:
        """See the port."""
        self._span.set_attribute("outcome", result.outcome.value)
        self._span.set_attribute("attempts", result.attempts)
        if result.job_name is not None:
            self._span.set_attribute("k8s.job.name", result.job_name)
        if result.failure is not None:
            self._span.set_attribute("error.type", result.failure.reason.value)
            self._span.set_status(Status(StatusCode.ERROR, result.failure.message))
        self._span.end()


class _TracedCluster:
    """A cluster, with a span around each call for a Job."""

    def __init__(self, cluster: Cluster, tracer: Tracer) -> None:
        self._cluster = cluster
        self._tracer = tracer

    async def create(self, job: Manifest) -> None:
        """See ``Cluster``."""
        with self._call("create job", job["metadata"]["name"]):
            await self._cluster.create(job)

    async def get(self, name: str) -> Manifest | None:
        """See ``Cluster``."""
        with self._call("get job", name):
            return await self._cluster.get(name)

    async def delete(self, name: str, uid: str, *, foreground: bool) -> None:
        """See ``Cluster``."""
        with self._call("delete job", name):
            await self._cluster.delete(name, uid, foreground=foreground)

    async def probe(self) -> None:
        """See ``Cluster``. It belongs to no event."""
        await self._cluster.probe()

    @contextmanager
    def _call(self, name: str, job: str) -> Iterator[None]:
        attributes = {"k8s.job.name": job}
        with self._tracer.start_as_current_span(
            name, kind=SpanKind.CLIENT, attributes=attributes, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield
            except ClusterError as exc:
                span.set_attribute("error.type", type(exc).__name__)
                span.set_status(Status(StatusCode.ERROR, str(exc)))
                raise
