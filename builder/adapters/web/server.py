"""The HTTP server: its routes, its address, its end."""

import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from aiohttp import web

from builder.adapters.web import answers
from builder.errors import StartError
from builder.settings import Server
from builder.stats import Stats

_MAX_HEADER = 16 * 2**10
"""Bytes of one header: an attribute of 1024 characters, percent-encoded, has up to 12 KiB. aiohttp's own 8190 would
refuse it before anything of ours could name the attribute and keep the event."""


def _silent() -> logging.Logger:
    """For aiohttp's own lines: a traceback for each stranger that speaks no HTTP. Ours tell what our handlers do."""
    logger = logging.getLogger("builder.aiohttp")
    logger.setLevel(logging.CRITICAL)
    return logger


@asynccontextmanager
async def listening(
    settings: Server, routes: Iterable[web.RouteDef], stats: Stats, max_body_size: int
) -> AsyncIterator[str]:
    """Serve ``routes``; yields the URL. Requests that run at the end have a second to finish.

    Raises:
        StartError: the address cannot be had.
    """
    app = web.Application(middlewares=[answers.middleware(stats)], client_max_size=max_body_size)
    app.add_routes(routes)
    runner = web.AppRunner(
        app,
        access_log=None,
        auto_decompress=False,  # ``body`` does it: what cannot be decoded must be answered, and kept, by us
        handle_signals=False,
        logger=_silent(),
        max_field_size=_MAX_HEADER,
        shutdown_timeout=1.0,
    )
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
