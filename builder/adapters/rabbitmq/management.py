"""RabbitMQ's management API, for what AMQP does not show: bindings and policies."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import httpx
from yarl import URL

from builder.adapters.rabbitmq.connection import masked
from builder.errors import BrokerAway, BrokerDenied, BrokerError
from builder.flow.topology import Binding, Topology
from builder.flow.topology_check import Found, QueueFound
from builder.rabbitmq_settings import Rabbitmq

_REFUSED = (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN)


class Management:
    """Reads one vhost; changes nothing."""

    def __init__(self, client: httpx.AsyncClient, vhost: str) -> None:
        self._client = client
        self._vhost = quote(vhost, safe="")

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Rabbitmq) -> AsyncIterator["Management"]:
        """For the vhost of ``rabbitmq.url``; ``rabbitmq.managementUrl`` must be set."""
        url = "" if settings.management_url is None else settings.management_url.get_secret_value()
        async with httpx.AsyncClient(base_url=url, timeout=settings.connect_timeout) as client:
            yield cls(client, vhost_of(settings.urls[0]))

    async def look(self, want: Topology) -> Found:
        """What there is of what is wanted.

        Raises:
            BrokerError: the API does not answer, or not us, or it is not there.
        """
        if await self._get("/api/overview") is None:  # else all that is asked for would seem to be missing
            msg = f"{self._where} is no management API"
            raise BrokerError(msg)
        exchanges = {one.name: await self._get(self._path("exchanges", one.name)) for one in want.exchanges}
        queues = {one.name: await self._get(self._path("queues", one.name)) for one in want.queues}
        bindings = [
            Binding(name, one["destination"], one["routing_key"])
            for name, there in exchanges.items()
            if there is not None
            for one in await self._get(self._path("exchanges", name) + "/bindings/source") or ()
            if one["destination_type"] == "queue"
        ]
        return Found(
            exchanges={name: one["type"] for name, one in exchanges.items() if one is not None},
            queues={name: _queue(one) for name, one in queues.items() if one is not None},
            bindings=frozenset(bindings),
        )

    def _path(self, kind: str, name: str) -> str:
        return f"/api/{kind}/{self._vhost}/{quote(name, safe='')}"

    async def _get(self, path: str) -> Any:
        """The document; None where there is none."""
        try:
            response = await self._client.get(path)
            if response.status_code == httpx.codes.NOT_FOUND:
                return None
            if response.is_success:
                return response.json()
        except (httpx.HTTPError, ValueError) as exc:
            msg = f"{self._where} does not answer as it should: {str(exc) or type(exc).__name__}"
            raise BrokerAway(msg) from exc
        if response.status_code in _REFUSED:
            msg = f"{self._where} refuses the user, who needs the tag monitoring, and a right in this vhost"
            raise BrokerDenied(msg)
        msg = f"{self._where} answered {response.status_code}"
        raise BrokerError(msg)

    @property
    def _where(self) -> str:
        return f"rabbitmq.managementUrl: {masked(str(self._client.base_url))}"


def vhost_of(url: str) -> str:
    """The vhost that an AMQP URL names: ``/`` where it names none."""
    return URL(url).path[1:] or "/"


def _queue(document: dict[str, Any]) -> QueueFound:
    arguments = {name: value for name, value in document["arguments"].items() if name != "x-queue-type"}
    return QueueFound(
        durable=document["durable"],
        auto_delete=document["auto_delete"],
        # A vhost may have a default type, which stands in no argument.
        arguments=arguments | {"x-queue-type": document["type"]},
        policy=document.get("effective_policy_definition") or {},
    )
