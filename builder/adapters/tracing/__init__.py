"""OpenTelemetry, where its own variables ask for it. Without them nothing of it is imported."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.util import find_spec

from builder.errors import StartError
from builder.flow.ports import Tracing

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_EXPORTER = "OTEL_TRACES_EXPORTER"
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"


def asked_for(environ: Mapping[str, str]) -> str | None:
    """The variable that asks for traces; None if none does.

    Raises:
        StartError: they are to be sent in a way that we have not.
    """
    exporter = environ.get(_EXPORTER, "")
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or exporter == "none":
        return None
    if exporter not in ("", "otlp"):
        msg = f"{_EXPORTER} is {exporter!r}: only otlp and none are known"
        raise StartError(msg)
    asking = next((name for name in (*_ENDPOINTS, _EXPORTER) if environ.get(name)), None)
    if asking is None:
        return None
    for name in _PROTOCOLS:
        if environ.get(name, _PROTOCOL) not in ("", _PROTOCOL):
            msg = f"{name} is {environ[name]!r}: traces are sent by {_PROTOCOL} only (mostly port 4318)"
            raise StartError(msg)
    return asking


@asynccontextmanager
async def open_tracing(environ: Mapping[str, str]) -> AsyncIterator[Tracing | None]:
    """Tracing for the life of the service, or None. OpenTelemetry reads the process's environment itself."""
    asking = asked_for(environ)
    if asking is None:
        yield None
        return
    if find_spec("opentelemetry") is None or find_spec("opentelemetry.exporter") is None:
        msg = f"{asking} is set, and OpenTelemetry is not installed: pip install 'knative-lambda-builder[otel]'"
        raise StartError(msg)
    from builder.adapters.tracing.spans import Spans  # noqa: PLC0415 -- nobody else pays for it

    async with Spans.open() as spans:
        yield spans
