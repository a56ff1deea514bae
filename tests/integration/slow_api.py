"""A way to the API server on which answers can be held up: what a network does, and an overloaded server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Self
from urllib.parse import urlsplit

_CHUNK = 2**16


class SlowApi:
    """A TCP door in front of ``server``. Requests pass at once; answers wait ``delay`` seconds, and while ``held``."""

    def __init__(self, server: str) -> None:
        self._server = urlsplit(server)
        self._open = asyncio.Event()
        self._open.set()
        self._connections: set[asyncio.Task[None]] = set()
        self.delay = 0.0
        self.url = ""

    @classmethod
    @asynccontextmanager
    async def open(cls, server: str) -> AsyncIterator[Self]:
        """The door, on a port of its own."""
        door = cls(server)
        listener = await asyncio.start_server(door._connect, "127.0.0.1", 0)
        door.url = f"https://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        try:
            yield door
        finally:
            listener.close()
            for connection in door._connections:
                connection.cancel()
            await asyncio.gather(*door._connections, return_exceptions=True)

    def hold(self) -> None:
        """From now on no answer passes."""
        self._open.clear()

    def release(self) -> None:
        """Let everything pass that was held up."""
        self._open.set()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, here = await asyncio.open_connection(self._server.hostname, self._server.port)
        requests = asyncio.create_task(_pass_on(reader, here))
        try:
            while chunk := await there.read(_CHUNK):
                await asyncio.sleep(self.delay)
                await self._open.wait()
                writer.write(chunk)
                await writer.drain()
        except OSError:
            pass  # one of both went away
        finally:
            requests.cancel()
            for end in (writer, here):
                end.transport.abort()
            await asyncio.gather(requests, return_exceptions=True)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while chunk := await reader.read(_CHUNK):
            writer.write(chunk)
            await writer.drain()
        writer.close()
