"""Sends events to a builder (or to any CloudEvents receiver) over HTTP, and asks it what became of them."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import httpx

from builder.errors import StartError
from builder.events.outgoing import Outgoing, Sent

ENDED = frozenset({"created", "adopted", "superseded", "failed"})
_LATER = frozenset({429, 503})
_POLL = 0.25


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
        """Send the events; yields in the order of the answers. See ``send``."""
        for done in asyncio.as_completed([self.send(event, patience) for event in events]):
            yield await done

    async def send(self, event: Outgoing, patience: float) -> Sent:
        """Send one event. A 429 or 503 is sent again when its ``Retry-After`` says so, for ``patience`` seconds in all.

        Raises:
            StartError: there is no receiver at the address.
        """
        async with self._slots:
            end = asyncio.get_running_loop().time() + patience
            while True:
                response = await self._post(event)
                pause = _retry_after(response)
                if response.status_code not in _LATER or asyncio.get_running_loop().time() + pause > end:
                    return event.answered(response.status_code, _document(response), accepted=response.is_success)
                await asyncio.sleep(pause)

    async def outcome(self, correlation_id: str, patience: float, *, known: bool = True) -> dict[str, Any]:
        """The request's document once it has ended, or as it is after ``patience`` seconds.

        ``known`` says that the builder has it already; otherwise it may still come to it.
        """
        end = asyncio.get_running_loop().time() + patience
        while True:
            async with self._slots:
                response = await self._client.get(f"/async-jobs/{correlation_id}")
            document = _document(response)
            over = asyncio.get_running_loop().time() > end
            if response.status_code == httpx.codes.OK and isinstance(document, dict):
                if document["status"] in ENDED or over:
                    return document
            elif known or over:
                return {"correlation_id": correlation_id, "status": "unknown", "message": str(document)}
            await asyncio.sleep(_POLL)

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
