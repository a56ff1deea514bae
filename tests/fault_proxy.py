"""A way to the API server on which things go wrong: TLS in front of the real one, and a fault for each request that asks for it.

What no fault is laid down for passes untouched, watches included, so whatever happens is done by a real API server.
"""

import asyncio
import json
import re
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Self
from urllib.parse import urlsplit

from control_plane import ControlPlane

_CHUNK = 2**16


class Cut(Enum):
    """How much of an answer comes."""

    WHOLE = "all of it"
    HALF = "half of it, then the connection is reset"
    NOTHING = "nothing, the connection is reset"
    NEVER = "nothing, and the connection stays"
    REFUSED = "nothing, the connection is reset, and nobody listens until `listen`"


@dataclass(frozen=True)
class Fault:
    """What happens to one request.

    ``passed_on`` says whether the API server gets it, and thus does what it asks. ``data`` is said instead of the API
    server's own answer; ``before`` happens first, such as what somebody else does in this very moment.
    """

    passed_on: bool = True
    data: bytes | None = None
    cut: Cut = Cut.WHOLE
    before: Callable[[], Awaitable[object]] | None = None


def answer(status: int, body: str, **headers: str) -> Fault:
    """This answer, from a proxy or from flow control: the API server never sees the request."""
    lines = [f"HTTP/1.1 {status} Some Words", f"Content-Length: {len(body.encode())}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return Fault(passed_on=False, data="\r\n".join([*lines, "", body]).encode())


def refusal(status: int, reason: str, message: str, **headers: str) -> Fault:
    """This answer as a Status object, as the API server's own are."""
    document = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": message}
    return answer(status, json.dumps(document | {"code": status}), Content_Type="application/json", **headers)


def after_the_commit(fault: Fault) -> Fault:
    """The same, but the API server has done what was asked."""
    return replace(fault, passed_on=True)


def meanwhile(act: Callable[[], Awaitable[object]]) -> Fault:
    """No fault: somebody else acts before the request gets there."""
    return Fault(before=act)


RESET = Fault(passed_on=False, cut=Cut.NOTHING)
HANG = Fault(passed_on=False, cut=Cut.NEVER)
REFUSED = Fault(passed_on=False, cut=Cut.REFUSED)
HALF = Fault(cut=Cut.HALF)
NO_JSON = after_the_commit(answer(200, '{"kind": "Job", "metadata": {"na', Content_Type="application/json"))

ALWAYS = 10**9


@dataclass
class _Rule:
    method: str
    path: re.Pattern[str]
    fault: Fault
    times: int


@dataclass
class FaultProxy:
    """Listens on a port of its own. ``requests`` are those that came: ``POST /apis/batch/v1/namespaces/…``."""

    plane: ControlPlane
    requests: list[str] = field(default_factory=list)
    url: str = ""
    _rules: list[_Rule] = field(default_factory=list)
    _connections: set[asyncio.Task[None]] = field(default_factory=set)
    _listener: asyncio.Server | None = None
    _opening: asyncio.Lock = field(default_factory=asyncio.Lock)

    @classmethod
    @asynccontextmanager
    async def open(cls, plane: ControlPlane) -> AsyncIterator[Self]:
        """In front of this control plane, with its own certificate, until the end of the block."""
        proxy = cls(plane)
        await proxy.listen()
        try:
            yield proxy
        finally:
            proxy.refuse()
            await asyncio.gather(*proxy._connections, return_exceptions=True)

    def lay_down(self, method: str, fault: Fault, times: int = 1, path: str = "/jobs") -> None:
        """Let ``fault`` happen to the next so many requests of this method whose path matches."""
        self._rules.append(_Rule(method, re.compile(path), fault, times))

    @property
    def laid_down(self) -> int:
        """How many faults wait for their request."""
        self._rules = [rule for rule in self._rules if rule.times]
        return sum(rule.times for rule in self._rules)

    def mend(self) -> None:
        """From now on everything passes."""
        self._rules.clear()

    def cut_all(self) -> None:
        """Reset every connection that is open."""
        for connection in self._connections - {asyncio.current_task()}:
            connection.cancel()

    @property
    def refusing(self) -> bool:
        """True while nobody listens."""
        return self._listener is None

    async def listen(self) -> None:
        """Take connections, on the same port as before."""
        async with self._opening:
            await self._listen()

    async def _listen(self) -> None:
        if self._listener is None:
            tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            tls.load_cert_chain(self.plane.ca_file, self.plane.ca_file.with_suffix(".key"))
            port = urlsplit(self.url).port or 0
            self._listener = await asyncio.start_server(self._connect, "127.0.0.1", port, ssl=tls)
            self.url = f"https://127.0.0.1:{self._listener.sockets[0].getsockname()[1]}"

    def refuse(self) -> None:
        """Reset every connection, and take no more until ``listen``."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        self.cut_all()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.current_task()
        assert connection is not None
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)
        upstream = _Upstream(self.plane)
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while True:
                    await self._handle(await _read_request(reader), upstream, writer)
        finally:
            # All at once: the end of the test may cancel what is awaited here.
            upstream.abort()
            await _reset(writer)

    async def _handle(self, request: bytes, upstream: "_Upstream", writer: asyncio.StreamWriter) -> None:
        method, path = request.split(b" ", 2)[:2]
        self.requests.append(f"{method.decode()} {path.decode()}")
        fault = self._fault(method.decode(), path.decode())
        if fault.before is not None:
            await fault.before()
        answer = upstream.ask(request) if fault.passed_on else _nothing()
        if fault.cut is Cut.WHOLE and fault.data is None:
            async for piece in answer:
                writer.write(piece)
                await writer.drain()
            return
        data = b"".join([piece async for piece in answer])
        writer.write(_left(data if fault.data is None else fault.data, fault.cut))
        await writer.drain()
        match fault.cut:
            case Cut.WHOLE:
                pass
            case Cut.HALF | Cut.NOTHING:
                raise ConnectionResetError
            case Cut.NEVER:
                await asyncio.Event().wait()
            case Cut.REFUSED:
                self.refuse()
                raise ConnectionResetError

    def _fault(self, method: str, path: str) -> Fault:
        for rule in self._rules:
            if rule.times and rule.method == method and rule.path.search(path):
                rule.times -= 1
                return rule.fault
        return Fault()


class _Upstream:
    """One connection to the real API server, made when it is needed."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, request: bytes) -> AsyncIterator[bytes]:
        """The answer, head and body, piece by piece as it comes."""
        if self._writer is None:
            tls = ssl.create_default_context(cafile=str(self._plane.ca_file))
            there = urlsplit(self._plane.url)
            self._reader, self._writer = await asyncio.open_connection(there.hostname, there.port, ssl=tls)
        self._writer.write(request)
        await self._writer.drain()
        head = await self._reader.readuntil(b"\r\n\r\n")
        yield head
        headers = _headers(head)
        if headers.get("transfer-encoding") == "chunked":
            last = False
            while not last:
                size = await self._reader.readline()
                last = int(size, 16) == 0
                yield size + await self._reader.readexactly(int(size, 16) + 2)
        elif length := int(headers.get("content-length", 0)):
            yield await self._reader.readexactly(length)

    def abort(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()


async def _nothing() -> AsyncIterator[bytes]:
    yield b""


async def _read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    return head + await reader.readexactly(int(_headers(head).get("content-length", 0)))


def _headers(head: bytes) -> dict[str, str]:
    lines = (line.partition(": ") for line in head.decode().splitlines()[1:])
    return {name.lower(): value for name, _, value in lines}


def _left(data: bytes, cut: Cut) -> bytes:
    match cut:
        case Cut.WHOLE:
            return data
        case Cut.HALF:
            return data[: len(data) // 2]
        case _:
            return b""


async def _reset(writer: asyncio.StreamWriter) -> None:
    """Close so that the other side sees a reset and no orderly end."""
    if (there := writer.get_extra_info("socket")) is not None:
        with suppress(OSError):
            there.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    with suppress(OSError):
        await writer.wait_closed()
