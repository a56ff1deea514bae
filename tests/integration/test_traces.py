"""Traces as a collector gets them, by OTLP from the running service, and as Prometheus leads to them by exemplars."""

import asyncio
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import prometheus
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.contract.harness import eventually
from tests.integration.messages import build_of
from tests.integration.service import Service

pytestmark = pytest.mark.integration

TRACE = "0af7651916cd43dd8448eb211c80319c"


class Collector(ThreadingHTTPServer):
    """Takes what an OpenTelemetry collector takes at port 4318."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[ExportTraceServiceRequest] = []

    def spans(self) -> dict[str, str]:
        """Trace ids by the spans' names."""
        groups = [scope for request in self.requests for one in request.resource_spans for scope in one.scope_spans]
        return {span.name: span.trace_id.hex() for group in groups for span in group.spans}

    def services(self) -> set[str]:
        """Who sent them."""
        resources = [one.resource for request in self.requests for one in request.resource_spans]
        return {a.value.string_value for one in resources for a in one.attributes if a.key == "service.name"}


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        request = ExportTraceServiceRequest()
        request.ParseFromString(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(request)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def collecting() -> Iterator[Collector]:
    with Collector() as collector, ThreadPoolExecutor(1) as thread:
        serving = thread.submit(collector.serve_forever, 0.05)
        try:
            yield collector
        finally:
            collector.shutdown()
            serving.result()


async def leads_to_the_trace(service: Service) -> None:
    """A real Prometheus finds it beside the durations; whoever asks for plain text finds no word of it."""
    assert TRACE not in (await service.http.get("/metrics")).text
    if (why := prometheus.missing()) is not None:
        (pytest.fail if "CI" in os.environ else pytest.skip)(f"needs a real Prometheus: {why}")
    targets = [{"targets": [service.url.removeprefix("http://")]}]
    scrape = {"job_name": "builder", "scrape_interval": "1s", "static_configs": targets}
    with prometheus.Prometheus({"scrape_configs": [scrape]}, {"groups": []}) as server:

        async def exemplars() -> dict[str, str]:
            query = '{__name__=~"job_creation_duration_seconds_bucket|kaniko_job_api_duration_seconds_bucket"}'
            span = {"start": "0", "end": "9999999999"}
            found = await asyncio.to_thread(lambda: server.get("query_exemplars", query=query, **span))
            return {one["seriesLabels"]["__name__"]: one["exemplars"][0]["labels"]["trace_id"] for one in found}

        names = ("job_creation_duration_seconds_bucket", "kaniko_job_api_duration_seconds_bucket")
        assert await eventually(exemplars, bool) == dict.fromkeys(names, TRACE)


async def test_a_collector_gets_the_spans_and_the_log_the_ids(tmp_path: Path) -> None:
    """Off without the variables (every other test); on with one of them, to the last span at the end."""
    with collecting() as collector:
        environ = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}",
            "BUILDER_JOURNAL__PATH": str(tmp_path / "journal"),
            "BUILDER_LOGGING__FORMAT": "json",
        }
        service = Service.spawn(tmp_path / "log", "--cluster=memory", "--port=0", environ=environ)
        try:
            await service.listening()
            traced = build_of("traced") | {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
            assert await service.statuses(traced) == [202]
            await service.ended("traced")
            await leads_to_the_trace(service)
            service.signal(signal.SIGTERM)
            assert await service.exit_code() == 0
        finally:
            await service.close()

        async def sent() -> dict[str, str]:
            return collector.spans()

        spans = await eventually(sent, lambda found: "build" in found)
        assert spans == dict.fromkeys(("build", "queue", "create job"), TRACE)
        assert collector.services() == {"knative-lambda-builder"}
    for event in ("event_accepted", "job_created"):
        assert [line["trace_id"] for line in service.logged(event)] == [TRACE]
