"""The HTTP server: its address, its end, and what every request goes through."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import structlog
from aiohttp import web

from builder.adapters.web.answers import (
    CORRELATION_HEADER,
    Queued,
    choose_correlation_id,
    not_now,
    problem,
    refusal,
    rejected,
)
from builder.adapters.web.routes import Route, Routes
from builder.errors import EventRejected, NotNow, StartError
from builder.settings import Server
from builder.stats import Stats

_MAX_HEADER = 16 * 2**10
"""Bytes of one header: an attribute of 1024 characters, percent-encoded, has up to 12 KiB. aiohttp's own 8190 would
refuse it before anything of ours could name the attribute and keep the event."""

log = structlog.get_logger(__name__)


@asynccontextmanager
async def listening(settings: Server, routes: Iterable[Route], stats: Stats, max_body_size: int) -> AsyncIterator[str]:
    """Serve ``routes``; yields the URL. Requests that run at the end have a second to finish.

    Raises:
        StartError: the address cannot be had.
    """
    runner = web.ServerRunner(http_server(routes, stats, max_body_size), shutdown_timeout=1.0)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, settings.host, settings.port, backlog=1024).start()
        except OSError as exc:
            place = f"{settings.host}:{settings.port}"
            msg = f"cannot listen on {place}: {exc.strerror} (settings server.host and server.port)"
            raise StartError(msg) from exc
        host, port = runner.addresses[0][:2]
        yield f"http://{f'[{host}]' if ':' in host else host}:{port}"
    finally:
        await runner.cleanup()


def http_server(routes: Iterable[Route], stats: Stats, max_body_size: int) -> web.Server:
    """Aiohttp's server without an application around it."""
    loop = asyncio.get_running_loop()

    def request(
        message: Any, payload: Any, protocol: web.RequestHandler, writer: Any, task: "asyncio.Task[None]"
    ) -> web.BaseRequest:
        return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=max_body_size)

    return web.Server(
        _answering(Routes(routes), stats),
        request_factory=request,
        access_log=None,
        auto_decompress=False,  # ``body`` does it: what cannot be decoded must be answered, and kept, by us
        logger=_silent(),
        max_field_size=_MAX_HEADER,
    )


def _answering(routes: Routes, stats: Stats) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]:
    """Count each answer by its class, give it its correlation id, and turn what was raised into problems."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response: web.StreamResponse
        try:
            handler, places = routes.find(request.method, request.path)
            response = await handler(request, *places)
        except web.HTTPException as exc:
            response = refusal(exc)
        except EventRejected as exc:
            response = rejected(exc)
        except NotNow as exc:
            response = not_now(exc)
        except ConnectionError:  # the sender hung up within its request: nobody reads this
            response = problem(400, "the request ended before its body did")
        except Exception:
            log.exception("request_crashed", method=request.method, path=request.path)
            response = problem(500, "a bug of this service; its log says more")
        if response.__class__ is Queued:
            stats.answers["2xx"] += 1
            return response
        stats.answers[f"{response.status // 100}xx"] += 1
        if CORRELATION_HEADER not in response.headers:
            response.headers[CORRELATION_HEADER] = choose_correlation_id(request)
        return response

    return answer


def _silent() -> logging.Logger:
    """For aiohttp's own lines: a traceback for each stranger that speaks no HTTP. Ours tell what our handlers do."""
    logger = logging.getLogger("builder.aiohttp")
    logger.setLevel(logging.CRITICAL)
    return logger
