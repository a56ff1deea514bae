"""Sends messages so that none is lost: persistent, confirmed, and never into nowhere."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import cast

from aio_pika.abc import AbstractConnection
from aiormq.channel import Channel
from aiormq.exceptions import ChannelNotFoundEntity, DeliveryError, PublishError
from pamqp.commands import Basic

from builder.adapters.rabbitmq.connection import connect, plain_words
from builder.errors import BrokerAway, BrokerError, BrokerFull, NotRouted
from builder.events.outgoing import Outgoing, Sent
from builder.rabbitmq_settings import Rabbitmq
from builder.retry import Backoff, Hope

_PAUSES = Backoff(0.1, 5.0)
_PERSISTENT = 2


async def open_channel(connection: AbstractConnection) -> Channel:
    """A channel for ``publish``: one of aiormq's, since aio-pika's waits for the socket after each message.

    Raises:
        BrokerAway: the connection is gone.
    """
    if connection.transport is None:
        msg = "the connection to the broker is closed"
        raise BrokerAway(msg)
    with plain_words():
        channel = await connection.transport.connection.channel(publisher_confirms=True, on_return_raises=True)
    return cast("Channel", channel)  # the interface that it is declared as lacks a parameter


async def publish(channel: Channel, exchange: str, routing_key: str, body: bytes, properties: Basic.Properties) -> None:
    """Return once the broker has confirmed that a queue has the message.

    Raises:
        NotRouted: no queue takes it; nobody has it.
        BrokerFull: a queue refused it.
        BrokerAway: the connection was lost; the broker may have it, or not.
        BrokerError: there is no such exchange, or we may not publish to it.
    """
    with plain_words():
        try:
            await channel.basic_publish(
                body, exchange=exchange, routing_key=routing_key, properties=properties, mandatory=True, wait=False
            )
        except PublishError as exc:
            raise NotRouted(_nowhere(exchange, routing_key)) from exc
        except DeliveryError as exc:
            msg = f"a queue behind exchange {exchange!r} refused the message: it is full (or could not write it down)"
            raise BrokerFull(msg) from exc
        except ChannelNotFoundEntity as exc:
            msg = f"the broker has no exchange {exchange!r} (topology declare makes it)"
            raise BrokerError(msg) from exc


class AmqpPublisher:
    """Publishes events to ``rabbitmq.exchange``, by their type. A connection that is lost is opened again."""

    def __init__(self, settings: Rabbitmq, in_flight: int) -> None:
        self._settings = settings
        self._in_flight = in_flight
        self._opening = asyncio.Lock()
        self._connection: AbstractConnection | None = None
        self._channel: Channel | None = None

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Rabbitmq, in_flight: int = 100) -> AsyncIterator["AmqpPublisher"]:
        """A publisher that has at most so many messages on the way.

        Raises:
            SettingsError, BrokerError: there is no way to the broker.
        """
        publisher = cls(settings, in_flight)
        try:
            await publisher._ready()
            yield publisher
        finally:
            await publisher.close()

    async def close(self) -> None:
        """End the connection; what was not confirmed may have arrived or not."""
        if self._connection is not None:
            with suppress(BrokerError), plain_words():
                await self._connection.close()

    async def send_all(self, events: Iterable[Outgoing], patience: float) -> AsyncIterator[Sent]:
        """Send the events; yields in the order of the confirms. See ``send``.

        Once nothing has gone through for ``patience`` seconds, what is left is not tried any more.
        """
        source = iter(events)  # the workers share it: each event goes to one that is free
        hope = Hope(patience, asyncio.get_running_loop().time)
        done: asyncio.Queue[Sent | None] = asyncio.Queue()

        async def work() -> None:
            for event in source:
                done.put_nowait(await self._send(event, hope))

        async def work_together() -> None:
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(self._in_flight):
                        group.create_task(work())
            except BaseExceptionGroup as exc:  # the first says it: the others were stopped, or failed alike
                raise exc.exceptions[0] from None
            finally:
                done.put_nowait(None)

        workers = asyncio.create_task(work_together())
        try:
            while (sent := await done.get()) is not None:
                yield sent
            await workers
        finally:
            workers.cancel()
            await asyncio.wait([workers])

    async def send(self, event: Outgoing, patience: float) -> Sent:
        """Send one event. A full queue and a lost connection are tried again, for ``patience`` seconds in all.

        So an event may come twice, which its identity tells, and is never lost.

        Raises:
            BrokerError: it cannot be delivered, and trying again alone would not help.
        """
        return await self._send(event, Hope(patience, asyncio.get_running_loop().time))

    async def _send(self, event: Outgoing, hope: Hope) -> Sent:
        tries = 0
        why = f"not tried: nothing had gone through for {hope.patience:g} s"
        while hope.outlasts(0):
            soon = asyncio.get_running_loop().time() + self._settings.confirm_timeout
            try:
                await self._try(event, min(hope.until, soon))
            except (BrokerAway, BrokerFull) as exc:
                why = str(exc)
                await asyncio.sleep(_PAUSES.delay(tries, random.random))
                tries += 1
            else:
                hope.renew()
                return event.answered("confirmed", None, accepted=True)
        return event.answered("refused", why, accepted=False)

    async def _try(self, event: Outgoing, until: float) -> None:
        channel = await self._ready()
        try:
            async with asyncio.timeout_at(until):
                await publish(channel, self._settings.exchange, event.type, event.body, _properties(event))
        except TimeoutError as exc:
            if self._channel is channel:  # it may be the channel, or its connection, that is dead: take a new one
                self._channel = None
            msg = "no confirm in time (has the broker an alarm, of memory or disk?)"
            raise BrokerAway(msg) from exc

    async def _ready(self) -> Channel:
        if self._channel is not None and not self._channel.is_closed:
            return self._channel
        async with self._opening:
            if self._channel is None or self._channel.is_closed:
                await self.close()
                self._connection = await connect(self._settings, "publish")
                self._channel = await open_channel(self._connection)
            return self._channel


def _properties(event: Outgoing) -> Basic.Properties:
    """The event is whole in the body, so a content type is all that its readers need."""
    return Basic.Properties(
        content_type=event.headers["content-type"],
        delivery_mode=_PERSISTENT,
        message_id=event.event_id,
        timestamp=datetime.now(UTC),
    )


def _nowhere(exchange: str, routing_key: str) -> str:
    if exchange == "":
        return f"the broker has no queue {routing_key!r} (topology declare makes it)"
    return (
        f"no queue is bound to exchange {exchange!r} by routing key {routing_key!r}: the binding is missing (topology "
        "declare makes it)"
    )
