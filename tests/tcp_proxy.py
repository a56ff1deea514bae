"""A way to a server on which the network fails: connections that are cut, that fall silent, that are slow."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Self


class TcpProxy:
    """Passes bytes on, to and from one port of loopback."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.StreamWriter] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self.delay = 0.0
        self.port = 0
        self.accepted = 0

    @classmethod
    @asynccontextmanager
    async def open(cls, port: int) -> AsyncIterator[Self]:
        """In front of ``port``."""
        proxy = cls(port)
        await proxy.listen()
        try:
            yield proxy
        finally:
            await proxy.refuse()
            proxy.cut()

    async def listen(self) -> None:
        """Take connections, on the same port as before."""
        self._server = await asyncio.start_server(self._link, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Take no connections."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def cut(self) -> None:
        """Reset every connection there is."""
        self._flowing.set()
        for writer in list(self._links):
            writer.transport.abort()

    def silence(self) -> None:
        """Nothing passes any more, and nobody is told: half-open connections."""
        self._flowing.clear()

    def resume(self) -> None:
        """What was held back passes after all."""
        self._flowing.set()

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        await self._flowing.wait()
        with suppress(OSError):
            there = await asyncio.open_connection("127.0.0.1", self._target)
            self._links |= {writer, there[1]}
            try:
                await asyncio.gather(self._pump(reader, there[1]), self._pump(there[0], writer))
            finally:
                for end in (writer, there[1]):
                    self._links.discard(end)
                    end.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(2**16):
                await asyncio.sleep(self.delay)
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
        writer.transport.abort()
