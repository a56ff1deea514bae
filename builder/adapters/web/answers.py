"""The answers of the HTTP door. None ever carries a ``ce-`` header: a Knative broker would take it for a new event."""

import json
import os
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from builder.errors import EventRejected, NotNow, Problem, QueueFull
from builder.stats import Stats

CORRELATION_HEADER = "X-Correlation-ID"
CORRELATION_KEY = web.RequestKey("correlation_id", str)
_MAX_CORRELATION = 256

log = structlog.get_logger(__name__)


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


def middleware(stats: Stats) -> Any:
    """Count each answer by its class, give it its correlation id, and turn what was raised into problems."""

    @web.middleware
    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            response = await handler(request)
        except web.HTTPException as exc:
            response = _refusal(exc)
        except EventRejected as exc:
            response = rejected(exc)
        except NotNow as exc:
            response = not_now(exc)
        except ConnectionError:  # the sender hung up within its request: nobody reads this
            response = problem(400, "the request ended before its body did")
        except Exception:
            log.exception("request_crashed", method=request.method, path=request.path)
            response = problem(500, "a bug of this service; its log says more")
        stats.answers[f"{response.status // 100}xx"] += 1
        response.headers[CORRELATION_HEADER] = _correlation_id(request)
        return response

    return answer


def _refusal(exc: web.HTTPException) -> web.Response:
    """404 and 405 by aiohttp's router; a 405 keeps its ``Allow``."""
    headers = {"Allow": exc.headers["Allow"]} if "Allow" in exc.headers else None
    return problem(exc.status, exc.reason, headers=headers)


def _correlation_id(request: web.Request) -> str:
    """The sender's own, else the one that its event is followed by, else a new one."""
    for text in (request.headers.get(CORRELATION_HEADER), request.get(CORRELATION_KEY)):
        if text and len(text) <= _MAX_CORRELATION and text.isascii() and text.isprintable():
            return text
    return os.urandom(16).hex()
