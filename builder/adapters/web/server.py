"""The HTTP server: its routes, its address, its end."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from aiohttp import web

from builder.adapters.web import answers
from builder.errors import StartError
from builder.settings import Server
from builder.stats import Stats


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
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
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
