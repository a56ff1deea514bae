"""The answers of the HTTP door. None ever carries a ``ce-`` header: a Knative broker would take it for a new event."""

import json
import os
import time
from collections.abc import Iterable, Mapping
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Any, NamedTuple

from aiohttp import web

from builder.errors import EventRejected, NotNow, Problem, QueueFull

CORRELATION_HEADER = "X-Correlation-ID"
JSON = {"Content-Type": "application/json"}
_MAX_CORRELATION = 256


class Answer(NamedTuple):
    """What goes back to a sender. ``headers`` are those that matter here; the server adds the usual ones.

    ``followed_by`` is the correlation id of the event that was taken in.
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = {}
    followed_by: str | None = None


def problem(
    status: int,
    detail: str,
    *,
    problems: Iterable[Problem] = (),
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> Answer:
    """A problem document (https://www.rfc-editor.org/rfc/rfc9457), every wrong field in ``errors``."""
    document: dict[str, Any] = {"title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    if errors := errors_of(problems):
        document["errors"] = errors
    return Answer(status, json_body(document | more), {"Content-Type": "application/problem+json", **(headers or {})})


def rejected(error: EventRejected) -> Answer:
    """400, 413 or 415, with everything that is wrong."""
    return problem(error.status, str(error), problems=error.problems)


def not_now(error: NotNow) -> Answer:
    """429 while the queue is full, 503 while shutting down."""
    status = 429 if isinstance(error, QueueFull) else 503
    return problem(status, str(error), headers=retry_after(error.retry_after))


def retry_after(seconds: float) -> dict[str, str]:
    """The header, in whole seconds, at least one."""
    return {"Retry-After": str(max(1, round(seconds)))}


def json_answer(document: Any, status: int = 200) -> Answer:
    """A JSON document."""
    return Answer(status, json_body(document), JSON)


def json_body(document: Any) -> bytes:
    """JSON, and a line feed for those who read it in a terminal."""
    return json.dumps(document).encode() + b"\n"


def errors_of(problems: Iterable[Problem]) -> list[dict[str, str]]:
    """Each wrong field and what is wrong with it."""
    return [{"field": one.field, "message": one.message} for one in problems]


def refusal(exc: web.HTTPException) -> Answer:
    """404 and 405 by the table of routes; a 405 keeps its ``Allow``."""
    headers = {"Allow": exc.headers["Allow"]} if "Allow" in exc.headers else None
    return problem(exc.status, exc.reason, headers=headers)


def choose_correlation_id(headers: Mapping[str, str], answer: Answer) -> str:
    """The sender's own, else the one that its event is followed by, else a new one."""
    sent = headers.get("x-correlation-id")
    for text in (answer.followed_by,) if sent is None else (sent, answer.followed_by):
        if text and len(text) <= _MAX_CORRELATION and text.isascii() and text.isprintable():
            return text
    return os.urandom(16).hex()


def as_response(headers: Mapping[str, str], answer: Answer) -> web.Response:
    """For aiohttp to send; ``headers`` are the request's."""
    given = {**answer.headers, CORRELATION_HEADER: choose_correlation_id(headers, answer)}
    return web.Response(status=answer.status, body=answer.body, headers=given)


def as_bytes(headers: Mapping[str, str], answer: Answer) -> bytes:
    """The same, as it stands on the wire of a connection that is kept."""
    given = "".join([f"{name}: {text}\r\n" for name, text in answer.headers.items()])
    head = (
        f"{_head(answer.status, int(time.time()))}{given}"
        f"{CORRELATION_HEADER}: {choose_correlation_id(headers, answer)}\r\nContent-Length: {len(answer.body)}\r\n\r\n"
    )
    return head.encode() + answer.body


@lru_cache(maxsize=16)
def _head(status: int, seconds: int) -> str:
    """What is the same for a second."""
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nDate: {formatdate(seconds, usegmt=True)}\r\n"
