"""Compares the broker with the topology that is wanted, and makes what is missing. Nothing is ever deleted.

Over AMQP alone a queue's arguments are read by declaring it *as it is*: it exists, so nothing is made, and where we are
wrong the broker closes the channel with the name and the value of one argument. With that corrected we ask again,
until it agrees. Bindings and policies cannot be seen that way; the management API shows them.
"""

import re
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import aio_pika
import structlog
from aio_pika.abc import AbstractChannel, AbstractConnection
from aiormq.exceptions import ChannelNotFoundEntity, ChannelPreconditionFailed

from builder.adapters.rabbitmq.connection import plain_words
from builder.errors import BrokerAway, BrokerError
from builder.flow.topology import Arguments, Exchange, Queue, Topology, wanted
from builder.flow.topology_check import Found, QueueFound, Report
from builder.rabbitmq_settings import Rabbitmq

log = structlog.get_logger(__name__)

_INEQUIVALENT = re.compile(
    r"inequivalent arg '([^']+)' for .* but current is (?:none|(?:the value )?'(.*?)'(?: of type '\w+')?)$"
)
_MOST_ARGUMENTS = 30


async def look(settings: Rabbitmq, connection: AbstractConnection) -> Report:
    """Compare.

    Raises:
        BrokerError: the broker would not be asked.
    """
    want, note = wanted(settings), None
    found = None
    if settings.management_url is not None:
        from builder.adapters.rabbitmq.management import Management  # noqa: PLC0415 -- most go without an HTTP client

        try:
            async with Management.open(settings) as management:
                found = await management.look(want)
        except BrokerError as exc:
            note = str(exc)
    if found is None:
        found = await _AmqpLook(connection).look(want)
    return Report(want, found, () if note is None else (note,))


async def declare(settings: Rabbitmq, connection: AbstractConnection) -> tuple[Report, Report]:
    """Make what is wanted and not there; gives the reports before and after. What is there stays as it is.

    Raises:
        BrokerError: it could not be made, in the broker's own words.
    """
    before = await look(settings, connection)
    want = before.want
    with plain_words():
        channel = await connection.channel()
        for exchange in want.exchanges:
            if exchange.name not in before.found.exchanges:
                await channel.declare_exchange(exchange.name, aio_pika.ExchangeType(exchange.type), durable=True)
        for queue in want.queues:
            if queue.name not in before.found.queues and queue.name not in before.found.unreadable:
                await _declare(channel, queue)
        for binding in want.bindings:
            there = await channel.get_queue(binding.queue, ensure=False)
            await there.bind(binding.exchange, binding.routing_key)
        await channel.close()
    after = await look(settings, connection)
    return before, after if after.found.bindings is not None else after.with_bindings()


async def tell(settings: Rabbitmq, connection: AbstractConnection) -> None:
    """Say in the log what is not as wanted; an error where messages are lost by it.

    Raises:
        BrokerAway: the connection was lost.
    """
    try:
        report = await look(settings, connection)
    except BrokerAway:
        raise
    except BrokerError as exc:  # an account that may consume need not be one that may declare
        log.info("topology_not_seen", detail=str(exc))
        return
    for one in report.differences:
        if one.loses:
            log.error("topology_loses_events", what=one.what, why=one.problem, loses=one.loses, way_out=one.way_out)
        else:
            log.warning("topology_differs", what=one.what, why=one.problem, way_out=one.way_out)
    if not report.differences:
        log.info("topology", detail="as wanted, as far as it can be seen" if report.unseen else "as wanted")
    for hidden in report.unseen:
        log.info("topology_not_seen", detail=hidden)


class _AmqpLook:
    """Reads by passive and by equal declarations. Each refusal costs a channel."""

    def __init__(self, connection: AbstractConnection) -> None:
        self._connection = connection

    async def look(self, want: Topology) -> Found:
        exchanges, queues, unreadable = {}, {}, {}
        for exchange in want.exchanges:
            if (is_type := await self._exchange_type(exchange)) is not None:
                exchanges[exchange.name] = is_type
        for queue in want.queues:
            there = await self._queue(queue)
            if isinstance(there, QueueFound):
                queues[queue.name] = there
            elif there is not None:
                unreadable[queue.name] = there
        return Found(exchanges, queues, unreadable=unreadable)

    async def _exchange_type(self, exchange: Exchange) -> str | None:
        if not await self._exists(lambda channel: channel.get_exchange(exchange.name)):
            return None
        refusal = await self._refusal(
            lambda channel: channel.declare_exchange(exchange.name, aio_pika.ExchangeType(exchange.type), durable=True)
        )
        match = _INEQUIVALENT.search(refusal or "")
        return match[2] if match is not None and match[1] == "type" else exchange.type

    async def _queue(self, queue: Queue) -> QueueFound | str | None:
        """The queue as it is; the broker's words where they cannot be understood; None where there is none."""
        if not await self._exists(lambda channel: channel.get_queue(queue.name)):
            return None
        guess: dict[str, Any] = {"durable": queue.durable, "auto_delete": queue.auto_delete, **queue.arguments}
        refusal = None
        for _ in range(_MOST_ARGUMENTS):
            as_guessed = _of(queue.name, guess)
            refusal = await self._refusal(partial(_declare, queue=as_guessed))
            if refusal is None:
                return QueueFound(as_guessed.durable, as_guessed.auto_delete, as_guessed.arguments, policy=None)
            match = _INEQUIVALENT.search(refusal)
            if match is None:
                break
            guess.pop(match[1], None)
            if match[2] is not None:
                guess[match[1]] = _value(match[2])
        return refusal

    async def _exists(self, ask: Callable[[AbstractChannel], Awaitable[object]]) -> bool:
        with plain_words():
            channel = await self._connection.channel()
            try:
                await ask(channel)
            except ChannelNotFoundEntity:
                return False
            await channel.close()
        return True

    async def _refusal(self, ask: Callable[[AbstractChannel], Awaitable[object]]) -> str | None:
        """The broker's words where it finds a declaration unlike what is there."""
        with plain_words():
            channel = await self._connection.channel()
            try:
                await ask(channel)
            except ChannelPreconditionFailed as exc:
                return str(exc.args[0])
            await channel.close()
        return None


async def _declare(channel: AbstractChannel, queue: Queue) -> None:
    await channel.declare_queue(
        queue.name, durable=queue.durable, auto_delete=queue.auto_delete, arguments=dict(queue.arguments)
    )


def _of(name: str, guess: dict[str, Any]) -> Queue:
    arguments: Arguments = {key: value for key, value in guess.items() if key not in ("durable", "auto_delete")}
    return Queue(name, guess["durable"], guess["auto_delete"], arguments)


def _value(text: str) -> str | int | bool:
    if text in ("true", "false"):
        return text == "true"
    return int(text) if text.isdecimal() else text
