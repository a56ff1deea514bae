"""The road from the broker as tests use it: a queue to publish to, dead letters to look at, and a service on it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

from aio_pika import Message
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage

from builder.adapters.memory_cluster import MemoryCluster
from builder.adapters.memory_journal import MemoryJournal
from builder.adapters.rabbitmq import topology
from builder.adapters.rabbitmq.connection import connect
from builder.adapters.rabbitmq.consumer import Consumer
from builder.app import Parts, assemble
from builder.events.parsing import STRUCTURED_TYPE
from tests import building
from tests.broker_parts import Vhost
from tests.contract.harness import eventually
from tests.integration.messages import Document

QUEUE, LETTERS = "kaniko-jobs", "kaniko-jobs.dlq"


class Queue:
    """004's queue in a vhost of the test's own, from outside."""

    def __init__(self, vhost: Vhost) -> None:
        self.vhost = vhost
        self._connection: AbstractConnection | None = None
        self._channel: AbstractChannel | None = None

    @classmethod
    @asynccontextmanager
    async def declared(cls, vhost: Vhost, **queues: Any) -> AsyncIterator[Self]:
        """With the topology made; ``queues`` are settings of ``rabbitmq.queues``."""
        queue = cls(vhost)
        try:
            await topology.declare(vhost.settings(queues=queues), await queue.connect())
            yield queue
        finally:
            await queue.close()

    async def connect(self) -> AbstractConnection:
        """Anew, if the connection was lost with the broker."""
        transport = None if self._connection is None else self._connection.transport
        if self._connection is None or transport is None or transport.connection.is_closed:
            self._connection = await connect(self.vhost.settings(), "test")
            self._channel = None
        return self._connection

    async def channel(self) -> AbstractChannel:
        """For publishing with confirms, and for looking."""
        connection = await self.connect()
        if self._channel is None or self._channel.is_closed:
            self._channel = await connection.channel(on_return_raises=True)
        return self._channel

    async def on_disk(self) -> None:
        """Return when the broker would find its queues again after a SIGKILL.

        RabbitMQ writes what it knows of a new quorum queue within five seconds, and a queue that is younger when the
        node dies never gets a leader again (3.10.8).
        """
        await asyncio.to_thread(self.vhost.broker.ctl, "eval", "[dets:sync(Table) || Table <- dets:all()].")

    async def close(self) -> None:
        """Harmless if the broker is gone."""
        if self._connection is not None:
            await self._connection.close()

    async def publish(self, *documents: Document | bytes, together: int = 200, **properties: Any) -> None:
        """Events in structured mode, or bodies as they are; each is confirmed."""
        channel = await self.channel()
        known: dict[str, Any] = {"content_type": STRUCTURED_TYPE, "delivery_mode": 2} | properties
        bodies = [one if isinstance(one, bytes) else json.dumps(one).encode() for one in documents]
        for start in range(0, len(bodies), together):
            messages = [Message(body, **known) for body in bodies[start : start + together]]
            posts = [channel.default_exchange.publish(message, QUEUE) for message in messages]
            await asyncio.gather(*posts)

    async def count(self, name: str = QUEUE) -> int:
        """How many messages wait there."""
        queue = await (await self.channel()).declare_queue(name, passive=True)
        return queue.declaration_result.message_count or 0

    async def letters(self, count: int, within: float = 20.0) -> list[AbstractIncomingMessage]:
        """Take the dead letters, once there are ``count``."""
        await eventually(lambda: self.count(LETTERS), lambda there: there >= count, within)
        queue = await (await self.channel()).get_queue(LETTERS, ensure=False)
        letters = [await queue.get(no_ack=True) for _ in range(count)]
        assert await self.count(LETTERS) == 0, "there are more"
        return letters


@dataclass(frozen=True, slots=True)
class Road:
    """A service that consumes, in this process and without an HTTP port."""

    parts: Parts
    consumer: Consumer

    def outcomes(self) -> Mapping[str, int]:
        """How many events came to which end."""
        return {outcome.value: count for outcome, count in self.parts.stats.outcomes.items() if count}

    async def until(self, condition: Callable[["Road"], object], within: float = 20.0) -> None:
        """Come back when it is true."""

        async def look() -> bool:
            return bool(condition(self))

        await eventually(look, bool, within)

    async def until_ended(self, count: int, within: float = 20.0) -> None:
        """Come back when so many events have come to their ends, and the broker knows."""
        await self.until(lambda road: sum(road.outcomes().values()) >= count and road.consumer.held == 0, within)

    async def until_consuming(self, within: float = 20.0) -> None:
        """Come back when it is connected."""
        await self.until(lambda road: road.consumer.trouble is None, within)


@asynccontextmanager
async def consuming(
    vhost: Vhost,
    cluster: MemoryCluster | None = None,
    *,
    workers: bool = True,
    rabbitmq: Mapping[str, Any] | None = None,
    **settings: Any,
) -> AsyncIterator[Road]:
    """A service on the embedded cluster; it ends as SIGTERM ends one. Without ``workers`` items stay in its queue."""
    section = {"url": vhost.url, **(rabbitmq or {})}
    known = building.settings(**{"rabbitmq": section, "custody": "broker", **settings})
    async with AsyncExitStack() as stack:
        if cluster is None:
            cluster = await stack.enter_async_context(MemoryCluster(known.memory))
        clock = asyncio.get_running_loop().time
        parts = assemble(known, cluster, MemoryJournal(known.idempotency, known.dead_letters, clock))
        consumer = parts.consumer
        assert consumer is not None
        await parts.recovery.run()
        tasks = [asyncio.create_task(root) for root in _roots(parts, consumer, workers=workers)]
        try:
            yield Road(parts, consumer)
        finally:
            parts.intake.close()
            await consumer.stop()
            await consumer.close(1.0)
            parts.pool.room.close()
            for task in tasks[1:]:
                task.cancel()
            for ended in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(ended, Exception):
                    raise ended


def _roots(parts: Parts, consumer: Consumer, *, workers: bool) -> Sequence[Any]:
    pool = [parts.pool.work(number) for number in parts.pool.busy] if workers else []
    return [consumer.consume(), consumer.bury(), parts.outage.watch(), *pool]
