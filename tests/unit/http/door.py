"""The service behind its real port, in this process: how the tests of this folder deliver and look.

Nothing is taken for granted of any answer: each is checked for what must hold for all of them.
"""

import asyncio
import copy
import json
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import httpx
from prometheus_client.parser import text_string_to_metric_families

from builder.adapters.memory_cluster import MemoryCluster
from builder.adapters.memory_journal import MemoryJournal
from builder.adapters.sqlite_journal import SqliteJournal
from builder.app import Custody, Parts, assemble
from builder.models import Event
from builder.settings import Settings
from tests import building

PROBLEM = "application/problem+json"
QUEUED = b'{"status":"queued"}'


class _LeftOut:
    def __repr__(self) -> str:
        return "left out"


LEFT_OUT: Any = _LeftOut()
"""As a new value: take the member away."""

Document: TypeAlias = dict[str, Any]


# --- what is sent -----------------------------------------------------------------------------------------------------


class Delivery(NamedTuple):
    """Headers and body of one POST."""

    headers: dict[str, str]
    content: bytes


def example(changes: Mapping[str, Any] | None = None) -> Document:
    """004's event with some members set, each under its path such as ``data.parameters.priority``."""
    event = copy.deepcopy(building.EXAMPLE)
    for path, value in (changes or {}).items():
        *above, name = path.split(".")
        place = event
        for part in above:
            place = place[part]
        if value is LEFT_OUT:
            del place[name]
        else:
            place[name] = value
    return event


def numbered(number: int, changes: Mapping[str, Any] | None = None) -> Document:
    """One of many events, each for a target of its own."""
    own = {"id": f"e-{number}", "data.parser_id": f"parser{number}", "data.job_name": LEFT_OUT}
    return example({**own, "data.correlation_id": f"c-{number}", **(changes or {})})


def structured(event: object) -> Delivery:
    """The event whole in the body."""
    return Delivery({"Content-Type": "application/cloudevents+json"}, _json(event))


def batch(*events: object) -> Delivery:
    """Several events in the body."""
    return Delivery({"Content-Type": "application/cloudevents-batch+json"}, _json(events))


def binary(event: Document, content_type: str | None = "application/json") -> Delivery:
    """As Knative sends it: attributes in headers, data in the body."""
    names = [name for name in event if name not in {"data", "datacontenttype"}]
    headers = {f"ce-{name}": event[name] for name in names}
    if content_type is not None:
        headers["Content-Type"] = content_type
    return Delivery(headers, _json(event["data"]))


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def raw_post(lines: Iterable[bytes], body: bytes = b"", path: bytes = b"/") -> bytes:
    """A request in bytes, for what an honest client would never send."""
    head = [b"POST %s HTTP/1.1" % path, b"Host: builder", b"Connection: close", *lines]
    return b"\r\n".join([*head, b"Content-Length: %d" % len(body), b"", body])


def raw_binary(**attributes: bytes) -> list[bytes]:
    """Header lines of the example in binary mode, with raw bytes as values."""
    known = {name: building.EXAMPLE[name].encode() for name in ("specversion", "id", "source", "type")}
    return [b"ce-%s: %s" % (name.encode(), value) for name, value in (known | attributes).items()]


# --- what comes back --------------------------------------------------------------------------------------------------


class Answer(NamedTuple):
    """What came back over a raw connection. Header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


def check_headers(headers: Iterable[tuple[str, str]]) -> None:
    """No answer looks like an event (a broker would publish it), and each says one correlation id."""
    names = [name.lower() for name, _ in headers]
    assert not [name for name in names if name.startswith("ce-")]
    assert names.count("x-correlation-id") == 1
    assert not any("\r" in value or "\n" in value for _, value in headers)


async def _check(response: httpx.Response) -> None:
    check_headers(response.headers.multi_items())


def problem_of(response: httpx.Response) -> Document:
    """The problem document of an answer, whose status stands in it as well."""
    assert response.headers["Content-Type"] == PROBLEM
    document: Document = response.json()
    assert document["status"] == response.status_code
    assert document["title"]
    assert document["detail"]
    return document


def fields_of(response: httpx.Response) -> list[str]:
    """The fields that a problem names."""
    errors = problem_of(response)["errors"]
    assert all(set(error) == {"field", "message"} and error["message"] for error in errors)
    return [error["field"] for error in errors]


async def until(condition: Callable[[], object]) -> None:
    """Come back when it is true; the test's own time limit is the bound."""
    while not condition():  # noqa: ASYNC110 -- what is waited for has no event of its own
        await asyncio.sleep(0.001)


# --- the service ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Door:
    """A service that listens. Its workers rest until ``working``."""

    parts: Parts
    cluster: MemoryCluster
    client: httpx.AsyncClient

    async def deliver(
        self, delivery: Delivery, path: str = "/", headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """POST one delivery, with more ``headers``."""
        return await self.client.post(path, content=delivery.content, headers={**delivery.headers, **(headers or {})})

    async def exchange(self, request: bytes) -> Answer:
        """Send bytes as they are over a connection of their own, and read one answer."""
        (answer,) = await self.exchange_all(request, 1)
        return answer

    async def exchange_all(self, requests: bytes, answers: int) -> list[Answer]:
        """The same for several answers over one connection."""
        async with self.connected() as (reader, writer):
            writer.write(requests)
            return [await read_answer(reader) for _ in range(answers)]

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A connection of one's own."""
        url = self.client.base_url
        reader, writer = await asyncio.open_connection(url.host, url.port)
        try:
            yield reader, writer
        finally:
            writer.close()
            await writer.wait_closed()

    def queued(self) -> list[Event]:
        """The accepted events that have not come to their end."""
        return [item.event for item in self.parts.pool.unfinished()]

    def waiting_for_slot(self) -> int:
        """How many senders stand at the door of a full queue."""
        return len(self.parts.pool._queue._for_slot)

    async def take_one(self) -> None:
        """Do as a worker does: make room for one more."""
        await self.parts.pool._queue.take()

    async def get(self, path: str) -> Document:
        """A JSON document."""
        response = await self.client.get(path)
        assert (response.status_code, response.headers["Content-Type"]) == (200, "application/json")
        document: Document = response.json()
        return document

    async def letters(self) -> list[Document]:
        """The dead letters, newest first."""
        document = await self.get("/async-jobs/dead-letters")
        assert document["count"] == len(document["items"])
        items: list[Document] = document["items"]
        return items

    async def samples(self) -> dict[str, dict[str, float]]:
        """What Prometheus reads: name → label value ("" where there is no label) → value."""
        response = await self.client.get("/metrics")
        samples: dict[str, dict[str, float]] = {}
        for family in text_string_to_metric_families(response.text):
            for sample in family.samples:
                samples.setdefault(sample.name, {})[",".join(sample.labels.values())] = sample.value
        return samples

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """The root tasks run: items are taken from the queue."""
        pool = self.parts.pool
        async with asyncio.TaskGroup() as group:
            roots = [group.create_task(self.parts.outage.watch())]
            roots += [group.create_task(pool.work(number)) for number in pool.busy]
            try:
                yield
            finally:
                for task in roots:
                    task.cancel()

    async def work(self) -> None:
        """Bring all that was accepted to its end."""
        async with self.working():
            await until(lambda: not self.queued())


@asynccontextmanager
async def serving(
    make_cluster: type[MemoryCluster] = MemoryCluster, *, file: Path | None = None, **settings: Any
) -> AsyncIterator[Door]:
    """The service on a free port of loopback; ``settings`` are top-level keys in the file's spelling.

    Its journal is in memory, or in ``file``.
    """
    known: Settings = building.settings(**{"server": {"host": "127.0.0.1", "port": 0}, **settings})
    async with make_cluster(known.memory) as cluster, _journal(known, file) as journal:
        parts = assemble(known, cluster, journal)
        await parts.recovery.run()
        async with parts.listening() as url, _client(url) as client:
            yield Door(parts, cluster, client)


@asynccontextmanager
async def _journal(settings: Settings, file: Path | None) -> AsyncIterator[Custody]:
    if file is None:
        yield MemoryJournal(settings.idempotency, settings.dead_letters, asyncio.get_running_loop().time)
        return
    async with SqliteJournal.open(file, settings) as journal:
        yield journal


def _client(url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=url,
        event_hooks={"response": [_check]},
        limits=httpx.Limits(max_connections=200),
        timeout=None,  # noqa: S113 -- the test's own time limit is the bound, in real time
        trust_env=False,
        verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),  # unused; reading the CAs of the system takes 30 ms
    )


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("utf-8", "surrogateescape")
    status_line, *lines = head.split("\r\n")[:-2]
    pairs = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    headers = {name.lower(): value for name, value in pairs}
    assert len(headers) == len(pairs)
    assert not any(name.startswith("ce-") for name in headers)
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Answer(int(status_line.split()[1]), headers, body)
