"""``serve``: the service itself."""

import argparse
import asyncio
import os
import signal

import structlog
import uvloop

from builder import log
from builder.cli.options import Parsers, add_settings, new_parser, settings_of
from builder.settings import Settings

_log = structlog.get_logger(__name__)


def add_parser(commands: Parsers) -> None:
    """Add the command."""
    parser = new_parser(
        commands,
        "serve",
        "Receive events and build, until SIGTERM.",
        "knative-lambda-builder serve --cluster memory --port 8080",
    )
    add_settings(parser)
    parser.add_argument("--host", help="the address to listen on (server.host)")
    parser.add_argument("--port", type=int, help="the port to listen on, 0 for a free one (server.port, PORT)")
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """0 after a clean stop, 1 if a part of the service died."""
    settings = settings_of(parsed, {"server.host": parsed.host, "server.port": parsed.port})
    log.configure(settings.logging)
    try:
        uvloop.run(_serve(settings))
    except ExceptionGroup:  # a root task died: a bug, shown whole
        _log.exception("died")
        return 1
    return 0


async def _serve(settings: Settings) -> None:
    from builder import app  # noqa: PLC0415 -- the other commands must not pay for a server

    stop = asyncio.Event()

    def on_signal(number: int) -> None:
        if stop.is_set():
            _log.error("stopped_at_once", why="second signal")
            os._exit(128 + number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal, number)
    await app.serve(settings, os.environ, stop)
