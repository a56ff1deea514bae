"""The HTTP server: its address, its end, and what every request goes through."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import structlog
from aiohttp import web

from builder.adapters.web.answers import Answer, as_bytes, as_response, not_now, problem, refusal, rejected
from builder.adapters.web.connection import Connection
from builder.adapters.web.routes import Deliver, Route, Routes
from builder.errors import EventRejected, NotNow, StartError
from builder.settings import Server
from builder.stats import Stats

_MAX_HEADER = 16 * 2**10
"""Bytes of one header: an attribute of 1024 characters, percent-encoded, has up to 12 KiB. aiohttp's own 8190 would
refuse it before anything of ours could name the attribute and keep the event."""

_LAST_WORDS = 1.0
"""Seconds that requests which run at the end have to finish."""

log = structlog.get_logger(__name__)


@asynccontextmanager
async def listening(settings: Server, routes: Iterable[Route], stats: Stats, max_body_size: int) -> AsyncIterator[str]:
    """Serve ``routes``; yields the URL. Requests that run at the end have a second to finish.

    Raises:
        StartError: the address cannot be had.
    """
    http = HttpServer(tuple(routes), stats, max_body_size)
    try:
        listener = await asyncio.get_running_loop().create_server(http, settings.host, settings.port, backlog=1024)
    except OSError as exc:
        place = f"{settings.host}:{settings.port}"
        msg = f"cannot listen on {place}: {exc.strerror} (settings server.host and server.port)"
        raise StartError(msg) from exc
    try:
        host, port = listener.sockets[0].getsockname()[:2]
        yield f"http://{f'[{host}]' if ':' in host else host}:{port}"
    finally:
        listener.close()
        await http.close()


class HttpServer:
    """Makes the protocol of each new connection: ours as long as it is plain, then aiohttp's."""

    def __init__(self, routes: tuple[Route, ...], stats: Stats, max_body_size: int) -> None:
        self._stats = stats
        self._table = Routes(routes)
        self._delivers = {
            route.path.encode(): partial(self._deliver, route.deliver) for route in routes if route.deliver is not None
        }
        self._connections: set[Connection] = set()
        make = partial(_request, asyncio.get_running_loop(), max_body_size)
        self._aiohttp = web.Server(self._handle, request_factory=make)

    def __call__(self) -> Connection:
        """The protocol of one connection."""
        connection = Connection(self._delivers, _MAX_HEADER, self._successor, self._connections.discard)
        self._connections.add(connection)
        return connection

    async def close(self) -> None:
        """Hang up: at once where nothing is asked, else after the answer, at the latest in a second."""
        await asyncio.sleep(0)  # requests that are here already are taken in
        self._aiohttp.pre_shutdown()
        connections = tuple(self._connections)
        answering = [task for one in connections if (task := one.close()) is not None]
        if answering:
            await asyncio.wait(answering, timeout=_LAST_WORDS)
        for one in connections:
            one.abort()
        await self._aiohttp.shutdown(_LAST_WORDS)

    def _successor(self) -> "_RequestHandler":
        return _RequestHandler(
            self._aiohttp,
            self._stats,
            loop=asyncio.get_running_loop(),
            access_log=None,
            auto_decompress=False,  # ``body`` does it: what cannot be decoded must be answered, and kept, by us
            logger=_silent(),
            max_field_size=_MAX_HEADER,
        )

    async def _deliver(self, deliver: Deliver, headers: dict[str, str], body: bytes) -> bytes:
        return as_bytes(headers, await self._answer(deliver(headers, body)))

    async def _handle(self, request: web.BaseRequest) -> web.Response:
        return as_response(request.headers, await self._answer(self._routed(request)))

    async def _routed(self, request: web.BaseRequest) -> Answer:
        handler, places = self._table.find(request.method, request.path)
        return await handler(request, *places)

    async def _answer(self, asked: Awaitable[Answer]) -> Answer:
        """Turn what is raised into problems, and count each answer by its class."""
        try:
            answer = await asked
        except web.HTTPException as exc:
            answer = refusal(exc)
        except EventRejected as exc:
            answer = rejected(exc)
        except NotNow as exc:
            answer = not_now(exc)
        except ConnectionError:  # the sender hung up within its request: nobody reads this
            answer = problem(400, "the request ended before its body did")
        except Exception:
            log.exception("request_crashed")
            answer = problem(500, "a bug of this service; its log says more")
        self._stats.answers[_CLASSES[answer.status // 100]] += 1
        return answer


class _RequestHandler(web.RequestHandler):
    """aiohttp's protocol, which says in our way what it cannot read: that is no event yet, and nobody's dead letter."""

    __slots__ = ("_stats",)

    def __init__(self, server: web.Server, stats: Stats, **options: Any) -> None:
        super().__init__(server, **options)
        self._stats = stats

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """See ``web.RequestHandler``."""
        if exc is None or message is None or request.writer.output_size > 0:
            return super().handle_error(request, status, exc, message)
        self._stats.answers[_CLASSES[status // 100]] += 1
        words = message.strip().partition("\n")[0].rstrip(":")
        response = as_response(request.headers, problem(status, f"cannot be read as HTTP: {words}"))
        response.force_close()
        return response


_CLASSES = {status: f"{status}xx" for status in range(1, 6)}


def _request(
    loop: asyncio.AbstractEventLoop,
    max_body_size: int,
    message: Any,
    payload: Any,
    protocol: web.RequestHandler,
    writer: Any,
    task: "asyncio.Task[None]",
) -> web.BaseRequest:
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=max_body_size)


def _silent() -> logging.Logger:
    """For aiohttp's own lines: a traceback for each stranger that speaks no HTTP. Ours tell what our handlers do."""
    logger = logging.getLogger("builder.aiohttp")
    logger.setLevel(logging.CRITICAL)
    return logger
