"""Sends events to a builder (or to any CloudEvents receiver) over HTTP, and asks it what became of them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import httpx

from builder.errors import StartError
from builder.events.outgoing import Outgoing, Sent
from builder.retry import Hope

ENDED = frozenset({"created", "adopted", "superseded", "failed"})
_LATER = frozenset({429, 503})
_POLL = 0.25
_LOOKS, _BETWEEN_LOOKS = 3, 1.0
"""A queue that seems empty so often in a row, so many seconds apart, is: the builder's own look may be a second old."""
_NOT_KNOWN = {"ready": None, "held": None}


class HttpPublisher:
    """A client of one receiver. Up to ``in_flight`` requests at a time."""

    def __init__(self, client: httpx.AsyncClient, in_flight: int = 16) -> None:
        self._client = client
        self._slots = asyncio.Semaphore(in_flight)

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str) -> AsyncIterator["HttpPublisher"]:
        """A publisher to the receiver at ``url``."""
        # The answer may have waited for a slot, or in custody mode for the Job.
        async with httpx.AsyncClient(base_url=url, timeout=httpx.Timeout(60.0, connect=5.0)) as client:
            yield cls(client)

    async def send_all(self, events: Iterable[Outgoing], patience: float) -> AsyncIterator[Sent]:
        """Send the events; yields in the order of the answers.

        A 429 or 503 is sent again when its ``Retry-After`` says so, until none has gone through for ``patience``
        seconds; what is left is then sent once.

        Raises:
            StartError: there is no receiver at the address.
        """
        hope = Hope(patience, asyncio.get_running_loop().time)
        for done in asyncio.as_completed([self._send(event, hope) for event in events]):
            yield await done

    async def _send(self, event: Outgoing, hope: Hope) -> Sent:
        async with self._slots:
            while True:
                response = await self._post(event)
                if response.is_success:
                    hope.renew()
                pause = _retry_after(response)
                if response.status_code not in _LATER or not hope.outlasts(pause):
                    return event.answered(response.status_code, _document(response), accepted=response.is_success)
                await asyncio.sleep(pause)

    async def outcome(self, correlation_id: str, patience: float, known: Callable[[], bool]) -> dict[str, Any]:
        """The request's document once it has ended, or as it is after ``patience`` seconds.

        ``known`` tells whether the builder must have it by now; until then it may still come to it. While nobody
        answers, the builder may still come back.
        """
        hope = Hope(patience, asyncio.get_running_loop().time)
        while True:
            must_be_there = known()  # before it is asked
            status, document = await self._get(f"/async-jobs/{correlation_id}")
            over = not hope.outlasts(0)
            if status == httpx.codes.OK and isinstance(document, dict):
                if document["status"] in ENDED or over:
                    return document
            elif over or (must_be_there and status):
                said = document.get("detail", document) if isinstance(document, dict) else document
                return {"correlation_id": correlation_id, "status": "unknown", "message": str(said)}
            await asyncio.sleep(_POLL)

    async def consumed(self) -> None:
        """Return once the builder has taken in all that was in its queue of RabbitMQ, be it that it reads none."""
        looks = 0
        while looks < _LOOKS:
            _, stats = await self._get("/async-jobs/stats")
            broker = stats.get("broker") if isinstance(stats, dict) else _NOT_KNOWN
            looks = looks + 1 if broker is None or (broker["ready"], broker["held"]) == (0, 0) else 0
            await asyncio.sleep(_BETWEEN_LOOKS)

    async def _get(self, path: str) -> tuple[int, Any]:
        """The status and the document; 0 and why, if nobody answers."""
        try:
            async with self._slots:
                response = await self._client.get(path)
        except httpx.TransportError as exc:
            return 0, f"no answer from {self._client.base_url}: {str(exc) or type(exc).__name__}"
        return response.status_code, _document(response)

    async def _post(self, event: Outgoing) -> httpx.Response:
        try:
            return await self._client.post("/", headers=event.headers, content=event.body)
        except httpx.TransportError as exc:
            why = str(exc) or type(exc).__name__
            msg = f"no answer from {self._client.base_url}: {why} (is the builder there? say where with --url)"
            raise StartError(msg) from exc


def _retry_after(response: httpx.Response) -> float:
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isdecimal() else 1.0


def _document(response: httpx.Response) -> Any:
    if not response.content:
        return None
    try:
        return response.json()
    except ValueError:
        return response.text
