"""The service as a process of its own, and requests in bytes: what an honest client would not send, this one does."""

import contextlib
import gzip
import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self
from urllib.request import urlopen

from tests.fuzz.mutations import Case

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0
_SETTINGS = {
    "cluster": "memory",
    "memory": {"pendingTime": "0s", "buildTime": "0s", "deletionTime": "0s"},
    "kaniko": {"registry": "registry.example.com", "ttlAfterFinished": "1s"},
    # Small bounds are reached early: from then on nothing may grow.
    "deadLetters": {"maxCount": 200},
    "results": {"maxEntries": 200},
    "asyncJobCreator": {"maxQueueSize": 10_000},
    "logging": {"format": "json"},
}


class Service:
    """``serve`` on the embedded cluster, with a journal on disk."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log
        self.address = ("", 0)

    @classmethod
    @contextlib.contextmanager
    def started(cls, folder: Path) -> Iterator[Self]:
        """Serving until the end of the block; it must end well then."""
        config = folder / "settings.yaml"
        config.write_text(json.dumps(_SETTINGS | {"journal": {"path": str(folder / "journal.sqlite3")}}))
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("BUILDER_", "PORT"))}
        command = [sys.executable, "-m", "builder", "serve", "--host=127.0.0.1", "--port=0", f"--config={config}"]
        log = folder / "log"
        with log.open("wb") as output, subprocess.Popen(command, cwd=ROOT, env=clean, stderr=output) as process:
            try:
                service = cls(process, log)
                (line,) = service.wait_for("listening")
                host, _, port = line["url"].removeprefix("http://").partition(":")
                service.address = (host, int(port))
                yield service
                process.terminate()
                assert process.wait(PATIENCE) == 0
            finally:
                process.kill()

    def wait_for(self, event: str) -> list[dict[str, Any]]:
        """The lines of one kind in the log, once there are some."""
        until = time.monotonic() + PATIENCE
        while not (lines := self.logged(event)):
            assert self.process.poll() is None, self._log.read_text()
            assert time.monotonic() < until, f"no {event} in the log"
            time.sleep(0.02)
        return lines

    def logged(self, event: str) -> list[dict[str, Any]]:
        """The lines of one kind."""
        with self._log.open() as lines:  # not ``splitlines``: ids have characters in them that end a line there
            return [json.loads(line) for line in lines if f'"{event}"' in line and line.endswith("\n")]

    def settled(self) -> dict[str, Any]:
        """The stats, once nothing is left to do."""
        until = time.monotonic() + PATIENCE
        while True:
            with urlopen("http://{}:{}/async-jobs/stats".format(*self.address), timeout=PATIENCE) as answer:  # noqa: S310
                stats: dict[str, Any] = json.load(answer)
            if stats["queue_size"] + stats["active_workers"] + sum(stats["waiting"].values()) == 0:
                return stats
            assert time.monotonic() < until, stats
            time.sleep(0.05)


class Connection:
    """One that is kept open as long as the service keeps it."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._socket: socket.socket | None = None

    def send(self, request: bytes) -> tuple[int, bytes]:
        """Status and body of the answer."""
        if self._socket is None:
            self._socket = socket.create_connection(self._address, timeout=PATIENCE)
        self._socket.sendall(request)
        with self._socket.makefile("rb") as answer:
            version, status, *_ = answer.readline().split()
            headers = {}
            while (line := answer.readline()) not in (b"\r\n", b""):
                name, _, value = line.decode("latin-1").partition(":")
                headers[name.lower()] = value.strip()
            body = answer.read(int(headers.get("content-length", "0")))
        if headers.get("connection") == "close" or version == b"HTTP/1.0":  # the latter to what is no HTTP
            self.close()
        return int(status), body

    def close(self) -> None:
        """Hang up."""
        if self._socket is not None:
            self._socket.close()
        self._socket = None


def sendable(made: Case) -> Case:
    """What HTTP can carry of it: no line ends inside a header, no space around it, nothing that is not UTF-8."""
    headers = []
    for name, value in made.headers:
        line = value.encode("utf-8", "replace").decode()
        line = "".join(one for one in line if one >= " " or one == "\t").strip(" \t")
        if name.isascii() and all(one.isalnum() or one in "-_" for one in name):
            headers.append((name, line))
    return made._replace(headers=headers)


def as_bytes(made: Case, draw: random.Random) -> bytes:
    """On the wire; some of it compressed."""
    body, more = made.body, []
    if draw.random() < 0.1:
        body, more = gzip.compress(body, 1), [("Content-Encoding", "gzip")]
    fields = [("Host", "builder"), *made.headers, *more, ("Content-Length", str(len(body)))]
    head = "".join(f"{name}: {value}\r\n" for name, value in fields)
    return f"POST / HTTP/1.1\r\n{head}\r\n".encode() + body
