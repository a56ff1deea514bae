"""The service, and its commands, as processes of their own: what a user starts."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self

import httpx
from child_programs import die_with_parent

from builder import failpoints
from builder.failpoints import Failpoint
from tests.contract.harness import eventually
from tests.integration.messages import Document, binary
from tests.integration.namespace import Namespace

ROOT = Path(__file__).parents[2]
ENDED = frozenset({"created", "adopted", "superseded", "failed"})
REGISTRY = "registry.example.com"
PATIENCE = 60.0
"""Seconds that a process may take to start or to end on a machine that has much else to do."""
_TAIL = 30
_NOT_OURS = ("BUILDER_", "KUBE", "K_", "OTEL_")


def settings_tree(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings in the file's spelling, with the one that a real cluster demands."""
    kaniko = {"registry": REGISTRY} | settings.get("kaniko", {})
    return {"logging": {"format": "json"}, **settings, "kaniko": kaniko}


def clean_environ(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment without anything that would configure the service, and with ``more``."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_OURS) and name != "PORT"}
    return ours | dict(more or {})


async def run(
    *command: str, environ: Mapping[str, str] | None = None, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a Python program of the repository to its end, with the interpreter of the tests: ``run("-m", "builder", …)``."""

    def to_its_end() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *command],
            cwd=ROOT,
            env=clean_environ(environ),
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )

    return await asyncio.to_thread(to_its_end)


class Service:
    """``python -m builder serve`` as a process, and the HTTP client of its users."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log
        self.url = ""
        self.http = httpx.AsyncClient(timeout=30, trust_env=False)

    @classmethod
    def spawn(cls, log: Path, *flags: str, environ: Mapping[str, str]) -> Self:
        """The process, not ready yet; its log goes to a file."""
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "builder", "serve", "--host=127.0.0.1", *flags],
                cwd=ROOT,
                env=clean_environ(environ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=output,
                preexec_fn=die_with_parent() if sys.platform == "linux" else None,  # noqa: PLW1509 -- see there
            )
        return cls(process, log)

    async def listening(self) -> None:
        """Wait until it says where it listens."""
        (line,) = await eventually(self._first_words, bool, PATIENCE)
        self.url = line["url"]
        self.http.base_url = httpx.URL(self.url)

    async def listening_or_dead(self) -> None:
        """Wait until it says where it listens, or has died before it could."""

        async def look() -> bool:
            return self._process.poll() is not None or bool(self.logged("listening"))

        await eventually(look, bool, PATIENCE)
        if self.alive:
            await self.listening()

    @property
    def alive(self) -> bool:
        """True until its end."""
        return self._process.poll() is None

    async def _first_words(self) -> list[Document]:
        assert self._process.poll() is None, f"ended with {self._process.returncode}:\n{self.text()}"
        return self.logged("listening")

    def text(self) -> str:
        """All that it has written."""
        return self._log.read_text()

    def lines(self) -> list[Document]:
        """The log: its last line may not be finished yet, and what an exit says at the end is for people."""
        lines = self.text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("\n")]

    def logged(self, event: str) -> list[Document]:
        """The log's lines of one kind."""
        return [line for line in self.lines() if line["event"] == event]

    async def until_logged(self, event: str) -> list[Document]:
        """The lines of one kind, once there is one."""

        async def read() -> list[Document]:
            return self.logged(event)

        return await eventually(read, bool)

    async def send(self, *documents: Document) -> list[httpx.Response]:
        """Send events, all at once, in binary mode."""
        messages = [binary(document) for document in documents]
        posts = [self.http.post("/", headers=headers, content=body) for headers, body in messages]
        return list(await asyncio.gather(*posts))

    async def statuses(self, *documents: Document) -> list[int]:
        """Send events; the answers' statuses."""
        return [response.status_code for response in await self.send(*documents)]

    async def get(self, path: str) -> Any:
        """A JSON document of the service's own."""
        response = await self.http.get(path)
        assert response.status_code == httpx.codes.OK, response.text
        return response.json()

    async def stats(self) -> Document:
        """Its numbers."""
        document: Document = await self.get("/async-jobs/stats")
        return document

    async def readiness(self) -> int:
        """The status of its readiness probe."""
        return (await self.http.get("/health/ready")).status_code

    async def result(self, correlation_id: str) -> Document:
        """What became of a request so far."""
        document: Document = await self.get(f"/async-jobs/{correlation_id}")
        return document

    async def ended(self, correlation_id: str, within: float = 20.0) -> Document:
        """What became of a request, once that is settled."""
        return await eventually(lambda: self.result(correlation_id), lambda result: result["status"] in ENDED, within)

    async def all_done(self, count: int, within: float = 30.0) -> Document:
        """The numbers, once so many events have come to an end."""
        return await eventually(self.stats, lambda stats: sum(stats["outcomes"].values()) == count, within)

    def signal(self, number: signal.Signals) -> None:
        """What the kubelet or Ctrl-C sends."""
        self._process.send_signal(number)

    async def exit_code(self, within: float = PATIENCE) -> int:
        """Wait for its end; a signal's number is negative."""
        return await asyncio.to_thread(self._process.wait, within)

    async def close(self) -> None:
        """End it if it still runs."""
        await self.http.aclose()
        self._process.kill()
        self._process.wait()
        tail = self.text().splitlines()[-_TAIL:]
        print(f"--- end of the log of service {self._process.pid}", *tail, sep="\n")  # noqa: T201 -- shown with a failure


class Services:
    """Starts services, and ends what a test leaves running."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started = 0
        self._stack = AsyncExitStack()

    async def start(
        self,
        namespace: Namespace,
        *flags: str,
        kubeconfig: Path | None = None,
        journal: Path | None = None,
        **settings: Any,
    ) -> Service:
        """A service that listens, for the Jobs of ``namespace``; ``settings`` are sections in the file's spelling.

        It has a journal of its own unless it is to go on with another's.
        """
        service = self.spawn(namespace, *flags, kubeconfig=kubeconfig, journal=journal, **settings)
        await service.listening()
        return service

    async def start_doomed(self, namespace: Namespace, point: Failpoint, count: int, **settings: Any) -> Service:
        """A service that dies at the ``count``-th time that it reaches the failpoint; it may have done so already."""
        service = self.spawn_doomed(namespace, point, count, **settings)
        await service.listening_or_dead()
        return service

    def spawn_doomed(self, namespace: Namespace, point: Failpoint, count: int, **settings: Any) -> Service:
        """As ``start_doomed``, but not waited for."""
        return self.spawn(namespace, environ={failpoints.VARIABLE: f"{point}:{count}"}, **settings)

    def spawn(
        self,
        namespace: Namespace,
        *flags: str,
        kubeconfig: Path | None = None,
        journal: Path | None = None,
        environ: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> Service:
        """As ``start``, but not waited for."""
        self._started += 1
        config = self._folder / f"service-{self._started}.json"
        config.write_text(json.dumps(settings_tree(settings)))
        variables = dict(namespace.environ if kubeconfig is None else {"KUBECONFIG": str(kubeconfig)})
        variables["BUILDER_JOURNAL__PATH"] = str(config.with_suffix(".sqlite3") if journal is None else journal)
        variables |= environ or {}
        standard = f"--config={config}", f"--namespace={namespace.name}", "--port=0"
        service = Service.spawn(config.with_suffix(".log"), *standard, *flags, environ=variables)
        self._stack.push_async_callback(service.close)
        return service

    async def close(self) -> None:
        """End them all."""
        await self._stack.aclose()
