"""A sender's connection while it says only plain things: one whole event in each request, one request at a time.

That is what brokers do all day, and it is answered here, without objects for request and response. At the first request
that is anything else (another path or method, a body in pieces, two requests at once, an error) aiohttp takes over the
connection, as if it had been there from the beginning. llhttp reads the requests in both cases.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from typing import TypeAlias, cast

import httptools
from aiohttp import web

Delivers: TypeAlias = Mapping[bytes, Callable[[dict[str, str], bytes], Awaitable[bytes]]]
"""By path, what takes headers and body of a POST and gives the bytes of the whole answer."""

_MAX_PIECE = 2**16
"""Bytes of a request that is taken here. More than that comes in pieces anyway."""

_MAX_HEADERS = 64
"""Headers of a request that is taken here."""

_UNUSUAL = frozenset({"connection", "expect", "transfer-encoding", "upgrade"})
"""Headers that say something about the connection or the body's way over it."""

_MAX_IDLE = 300.0
"""Seconds after which a silent connection is closed; longer than brokers keep theirs."""


class Connection(asyncio.Protocol):
    """One connection. ``aiohttp`` makes the protocol that may take over; ``forget`` is told when this one is done."""

    def __init__(
        self,
        delivers: Delivers,
        max_header: int,
        aiohttp: Callable[[], web.RequestHandler],
        forget: Callable[["Connection"], None],
    ) -> None:
        self._delivers = delivers
        self._aiohttp = aiohttp
        self._forget = forget
        self._loop = asyncio.get_running_loop()
        self._max_header = max_header
        self._parser = httptools.HttpRequestParser(self)
        self._begin_anew()
        self._transport: asyncio.Transport | None = None
        self._answering = False
        self._work: asyncio.Task[None] | None = None
        self._next: asyncio.Future[Awaitable[bytes] | None] = self._loop.create_future()
        self._early = b""
        self._closing = False
        self._idle_since = self._loop.time()
        self._watchdog = self._loop.call_later(_MAX_IDLE, self._close_if_idle)

    # --- what the event loop calls ------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See ``asyncio.Protocol``."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, _exc: Exception | None) -> None:
        """See ``asyncio.Protocol``. An event that is being taken in is taken in: only nobody hears the answer."""
        self._let_go()

    def data_received(self, data: bytes) -> None:
        """See ``asyncio.Protocol``."""
        if self._answering:
            self._wait_with(data)
        elif (answer := self._answer(data)) is None:
            self._hand_over(data)
        else:
            self._answering = True
            self._next.set_result(answer)
            if self._work is None:  # one task for all of its requests: a new one costs more than reading the request
                self._work = self._loop.create_task(self._answer_all())

    def pause_writing(self) -> None:
        """See ``asyncio.Protocol``: who does not read our answers is not read either."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """See ``asyncio.Protocol``."""
        if self._transport is not None:
            self._transport.resume_reading()

    # --- the requests -------------------------------------------------------------------------------------------------

    def _answer(self, data: bytes) -> Awaitable[bytes] | None:
        """The answer to come, if ``data`` is one plain request from its first byte to its last."""
        if len(data) > _MAX_PIECE:
            return None
        self._begin_anew()
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            return None
        deliver = self._delivers.get(self._path)
        if deliver is None or self._begun != 1 or not self._whole or len(data) - len(self._body) > self._max_header:
            return None
        if self._parser.get_method() != b"POST" or self._parser.get_http_version() != "1.1":
            return None
        headers = _headers(self._names, self._values)
        return None if headers is None else deliver(headers, self._body)

    async def _answer_all(self) -> None:
        while (answer := await self._next) is not None:
            data = await answer
            self._next = self._loop.create_future()
            self._answering = False
            if self._transport is None:
                return
            self._send(self._transport, data)

    def _send(self, transport: asyncio.Transport, data: bytes) -> None:
        transport.write(data)
        self._idle_since = self._loop.time()
        if self._closing:
            transport.close()
        elif self._early:
            early, self._early = self._early, b""
            transport.resume_reading()
            self.data_received(early)

    def _wait_with(self, data: bytes) -> None:
        """The next request came before the answer to this one."""
        self._early += data
        if self._transport is not None:
            self._transport.pause_reading()

    def _hand_over(self, data: bytes) -> None:
        """From here on it is aiohttp's connection."""
        transport = self._transport
        if transport is None:
            return
        self._let_go()
        successor = self._aiohttp()
        transport.set_protocol(successor)
        successor.connection_made(transport)
        successor.data_received(data)

    # --- what the parser calls ----------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A request begins."""
        self._begun += 1

    def on_url(self, url: bytes) -> None:
        """Its path and query."""
        self._path += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One of its headers."""
        self._names.append(name)
        self._values.append(value)

    def on_body(self, body: bytes) -> None:
        """All of its body, or a part."""
        self._body += body

    def on_message_complete(self) -> None:
        """It has ended."""
        self._whole = True

    def _begin_anew(self) -> None:
        self._begun = 0
        self._path = b""
        self._names: list[bytes] = []
        self._values: list[bytes] = []
        self._body = b""
        self._whole = False

    # --- the end ------------------------------------------------------------------------------------------------------

    def close(self) -> "asyncio.Task[None] | None":
        """Take no more requests. Hangs up when the one that is being answered, which is returned, is answered."""
        self._closing = True
        if self._answering:
            return self._work
        if self._transport is not None:
            self._transport.close()
        return None

    def abort(self) -> None:
        """Hang up now."""
        if self._transport is not None:
            self._transport.abort()

    def _let_go(self) -> None:
        self._transport = None
        if not self._next.done():
            self._next.set_result(None)
        self._watchdog.cancel()
        self._forget(self)

    def _close_if_idle(self) -> None:
        left = self._idle_since + _MAX_IDLE - self._loop.time()
        if left <= 0 and not self._answering:
            self.close()
        else:
            self._watchdog = self._loop.call_later(max(left, 1.0), self._close_if_idle)


def _headers(names: list[bytes], values: list[bytes]) -> dict[str, str] | None:
    """By their names in lower case; None if they say something unusual."""
    keys = _keys(tuple(names))
    if keys is None:
        return None
    try:
        texts = b"\n".join(values).decode("ascii").split("\n")  # at once: a value has no line feed
        return dict(zip(keys, texts, strict=True))
    except ValueError:  # not ASCII, or no headers at all
        return None


@lru_cache(maxsize=64)
def _keys(names: tuple[bytes, ...]) -> tuple[str, ...] | None:
    """In lower case; None if there are too many, or one is unusual or stands twice. A sender always has the same."""
    keys = tuple(name.decode("ascii").lower() for name in names)
    usual = _UNUSUAL.isdisjoint(keys) and len(set(keys)) == len(keys) <= _MAX_HEADERS
    return keys if usual else None
