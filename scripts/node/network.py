"""Sockets in another process's network namespace, and doors: ports here that lead to places there, or the other way."""

import asyncio
import contextlib
import ctypes
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

Address: TypeAlias = tuple[str, int]
MakeSocket: TypeAlias = Callable[[], socket.socket]

_CLONE_NEWNET = 0x40000000
_CHUNK = 65536


class NetworkNamespace:
    """The network in which a process lives; needs root. A socket stays in the network that it was made in."""

    def __init__(self, pid: int) -> None:
        self._path = Path(f"/proc/{pid}/ns/net")

    @property
    def is_ours(self) -> bool:
        """True as long as that process has not left our own network."""
        return self._path.readlink() == Path("/proc/self/ns/net").readlink()

    def socket(self) -> socket.socket:
        """A new TCP socket there."""
        with self._entered():
            return socket.socket()

    @contextlib.contextmanager
    def _entered(self) -> Iterator[None]:
        """Only the calling thread goes there."""
        with Path("/proc/thread-self/ns/net").open("rb") as home, self._path.open("rb") as there:
            _set_namespace(there.fileno())
            try:
                yield
            finally:
                _set_namespace(home.fileno())


def _set_namespace(descriptor: int) -> None:
    """os.setns came with Python 3.12."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def listening(make_socket: MakeSocket, address: Address) -> socket.socket:
    """A socket that waits for connections."""
    listener = make_socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(address)
    listener.listen(128)
    listener.settimeout(0)
    return listener


async def open_door(listener: socket.socket, make_socket: MakeSocket, target: Address) -> asyncio.Server:
    """Whoever connects to ``listener`` talks to ``target``, in the network of ``make_socket``."""

    async def lead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            onward = make_socket()
            onward.settimeout(0)
            try:
                await asyncio.get_running_loop().sock_connect(onward, target)
            except OSError:
                onward.close()
                writer.transport.abort()  # as refused: there is nobody
                return
            far_reader, far_writer = await asyncio.open_connection(sock=onward)
            await asyncio.gather(_pass_on(reader, far_writer), _pass_on(far_reader, writer))

    return await asyncio.start_server(lead, sock=listener)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until one side has nothing more to say; the other is told."""
    try:
        while chunk := await reader.read(_CHUNK):
            writer.write(chunk)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except OSError:
        writer.transport.abort()
