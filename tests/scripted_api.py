"""An API server that says what a test laid down, be it half a header, and the real cluster's client before it."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.adapters.kubernetes import KubernetesCluster
from builder.settings import Kubernetes


@dataclass(frozen=True)
class Reply:
    """The server says ``data`` to a request, and with the connection it will ``keep``, ``close``, ``reset`` or ``hang``."""

    data: bytes = b""
    then: str = "keep"


@dataclass(frozen=True)
class Request:
    """What the server was asked. ``connection`` counts connections from 1; header names are in lower case."""

    connection: int
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class ScriptedServer:
    """Gives one reply after the other, over as many connections as the client opens."""

    def __init__(self, *replies: Reply) -> None:
        self.requests: list[Request] = []
        self.port = 0
        self._replies = list(replies)
        self._connections = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator["ScriptedServer"]:
        """Listen on a free port of loopback."""
        hanging = asyncio.Event()

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._connections += 1
            await self._talk(self._connections, reader, writer, hanging)
            writer.close()

        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            hanging.set()
            server.close()

    async def _talk(
        self, connection: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, hanging: asyncio.Event
    ) -> None:
        while True:
            try:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
            except (asyncio.IncompleteReadError, ConnectionError):
                return
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:-1])}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            method, path, _ = head[0].split(" ")
            self.requests.append(Request(connection, method, path, headers, body))
            reply = self._replies.pop(0)
            writer.write(reply.data)
            match reply.then:
                case "close":
                    return
                case "reset":
                    writer.transport.abort()
                    return
                case "hang":
                    await hanging.wait()
                    return


def http(status: int, body: bytes | str = b"", **headers: str) -> Reply:
    """An HTTP answer; ``retry_after`` and the like become headers."""
    data = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status} Some Words", f"Content-Length: {len(data)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return Reply("\r\n".join([*lines, "", ""]).encode() + data)


def refusal(status: int, reason: str, message: str, **headers: str) -> Reply:
    """An answer with a Status object, as the API server's own refusals are."""
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": message}
    return http(status, json.dumps(body | {"code": status}), **headers)


TOKEN_FILE: Mapping[str, Any] = {"tokenFile": "token"}


def write_kubeconfig(folder: Path, server: str, user: Mapping[str, Any] = TOKEN_FILE) -> dict[str, str]:
    """The environment in which this file is found; the token is in ``folder/token``."""
    (folder / "token").write_text("first\n")
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "from-context"}}],
        "current-context": "x",
    }
    (folder / "kubeconfig").write_text(json.dumps(config))
    return {"KUBECONFIG": str(folder / "kubeconfig")}


class ScriptedApi:
    """A scripted server and a cluster client that talks to it, with all files in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = Kubernetes(namespace="builds")
        self.user = TOKEN_FILE

    @asynccontextmanager
    async def replying(self, *replies: Reply) -> AsyncIterator[tuple[KubernetesCluster, ScriptedServer]]:
        """The two of them."""
        async with ScriptedServer(*replies).running() as server:
            environ = write_kubeconfig(self.folder, f"http://127.0.0.1:{server.port}", self.user)
            async with KubernetesCluster.open(self.settings, environ) as cluster:
                yield cluster, server
