"""The dead letters of a running service, over HTTP."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx

from builder.errors import StartError

_PATH = "/async-jobs/dead-letters"


class DeadLetterClient:
    """Asks the service at one URL. Documents are as the service shows them.

    Every method raises ``StartError``, with the service's own words, where it will not.
    """

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, token: str | None) -> AsyncIterator["DeadLetterClient"]:
        """A client of the service at ``url``; ``token`` is that of ``admin.token``."""
        headers = {b"Authorization": f"Bearer {token}".encode()} if token else {}
        # Replaying is rate-limited, and may wait for slots: a hundred letters take their time.
        timeout = httpx.Timeout(600.0, connect=3.0)
        try:
            client = httpx.AsyncClient(base_url=url, headers=headers, timeout=timeout)
        except (httpx.InvalidURL, ValueError) as exc:
            msg = f"{url!r} is no URL: {exc}"
            raise StartError(msg) from exc
        async with client:
            yield cls(client)

    async def find(self, query: Mapping[str, str]) -> dict[str, Any]:
        """A page: ``items`` and ``next_before``."""
        return self._document(await self._call("GET", _PATH, query), "items")

    async def show(self, letter_id: str, *, with_data: bool) -> dict[str, Any]:
        """One letter."""
        return self._document(
            await self._call("GET", f"{_PATH}/{letter_id}", {"body": "true"} if with_data else {}), "event"
        )

    async def replay(self, letter_id: str) -> None:
        """Send one again."""
        await self._call("POST", f"{_PATH}/{letter_id}/replay", {})

    async def replay_many(self, query: Mapping[str, str]) -> dict[str, Any]:
        """Send a page of them again: ``queued``, ``rejected``, ``stopped`` and ``until``."""
        return self._document(await self._call("POST", f"{_PATH}/replay", query), "queued")

    async def discard(self, letter_id: str) -> None:
        """Forget one."""
        await self._call("DELETE", f"{_PATH}/{letter_id}", {})

    async def _call(self, method: str, path: str, query: Mapping[str, str]) -> httpx.Response:
        try:
            response = await self._client.request(method, path, params=dict(query))
        except httpx.RequestError as exc:
            msg = f"no answer from {self._client.base_url}: {str(exc) or type(exc).__name__}"
            raise StartError(msg) from exc
        if response.is_success:
            return response
        try:
            words = response.json()["detail"]
        except (ValueError, KeyError, TypeError):
            words = response.text[:200]
        msg = f"{response.status_code}: {words}"
        raise StartError(msg)

    def _document(self, response: httpx.Response, wanted: str) -> dict[str, Any]:
        """The JSON object of an answer, which has the member ``wanted``."""
        try:
            document = response.json()
        except ValueError:
            document = None
        if not isinstance(document, dict) or wanted not in document:
            msg = f"{self._client.base_url} is no builder: it answered {response.text[:100]!r}"
            raise StartError(msg)
        return document
