"""The answers of the HTTP door. None ever carries a ``ce-`` header: a Knative broker would take it for a new event."""

import json
import os
import time
from collections.abc import Iterable, Mapping
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Any

from aiohttp import HttpVersion11, web

from builder.errors import EventRejected, NotNow, Problem, QueueFull

CORRELATION_HEADER = "X-Correlation-ID"
_MAX_CORRELATION = 256


def problem(
    status: int,
    detail: str,
    *,
    problems: Iterable[Problem] = (),
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> web.Response:
    """A problem document (https://www.rfc-editor.org/rfc/rfc9457), every wrong field in ``errors``."""
    document: dict[str, Any] = {"title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    if errors := errors_of(problems):
        document["errors"] = errors
    return web.Response(
        status=status,
        body=json_body(document | more),
        content_type="application/problem+json",
        headers=headers,
    )


def rejected(error: EventRejected) -> web.Response:
    """400, 413 or 415, with everything that is wrong."""
    return problem(error.status, str(error), problems=error.problems)


def not_now(error: NotNow) -> web.Response:
    """429 while the queue is full, 503 while shutting down."""
    status = 429 if isinstance(error, QueueFull) else 503
    return problem(status, str(error), headers=retry_after(error.retry_after))


def retry_after(seconds: float) -> dict[str, str]:
    """The header, in whole seconds, at least one."""
    return {"Retry-After": str(max(1, round(seconds)))}


def json_answer(document: Any, status: int = 200) -> web.Response:
    """A JSON document."""
    return web.Response(status=status, body=json_body(document), content_type="application/json")


def json_body(document: Any) -> bytes:
    """JSON, and a line feed for those who read it in a terminal."""
    return json.dumps(document).encode() + b"\n"


def errors_of(problems: Iterable[Problem]) -> list[dict[str, str]]:
    """Each wrong field and what is wrong with it."""
    return [{"field": one.field, "message": one.message} for one in problems]


def refusal(exc: web.HTTPException) -> web.Response:
    """404 and 405 by the table of routes; a 405 keeps its ``Allow``."""
    headers = {"Allow": exc.headers["Allow"]} if "Allow" in exc.headers else None
    return problem(exc.status, exc.reason, headers=headers)


class Queued(web.StreamResponse):
    """202 as ready-made bytes: making an answer header by header takes longer than reading its event.

    aiohttp asks three things of an answer: ``prepare``, ``write_eof`` and ``keep_alive``.
    """

    def __init__(self, correlation_id: str, body: bytes) -> None:
        self._bytes = b"%sX-Correlation-ID: %s\r\nContent-Length: %d\r\n\r\n%s" % (
            _head(int(time.time())),
            correlation_id.encode(),
            len(body),
            body,
        )

    @property
    def keep_alive(self) -> bool:
        """What it is made for, see ``queued``."""
        return True

    async def prepare(self, request: web.BaseRequest) -> None:
        """Send all of it."""
        transport = request.transport
        if transport is None:
            msg = "the sender hung up"
            raise ConnectionResetError(msg)
        transport.write(self._bytes)
        if request.protocol.writing_paused:
            await request.writer.drain()

    async def write_eof(self, data: bytes = b"") -> None:
        """It is sent."""


@lru_cache(maxsize=1)
def _head(seconds: int) -> bytes:
    """The part that is the same for a second."""
    date = formatdate(seconds, usegmt=True)
    return f"HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\nDate: {date}\r\n".encode()


def queued(request: web.BaseRequest, body: bytes, followed_by: str | None) -> web.StreamResponse:
    """202 with its body."""
    correlation_id = choose_correlation_id(request, followed_by)
    if request.keep_alive and request.version == HttpVersion11:
        return Queued(correlation_id, body)
    headers = {"Content-Type": "application/json", CORRELATION_HEADER: correlation_id}
    return web.Response(status=202, body=body, headers=headers)


def queued_in_silence(request: web.BaseRequest, followed_by: str | None) -> web.Response:
    """202 without a body."""
    return web.Response(status=202, headers={CORRELATION_HEADER: choose_correlation_id(request, followed_by)})


def choose_correlation_id(request: web.BaseRequest, followed_by: str | None = None) -> str:
    """The sender's own, else the one that its event is followed by, else a new one."""
    for text in (request.headers.get(CORRELATION_HEADER), followed_by):
        if text and len(text) <= _MAX_CORRELATION and text.isascii() and text.isprintable():
            return text
    return os.urandom(16).hex()
