"""The dead letters in the broker: looked at without being taken, and sent again without being lost.

A message that is looked at is held, unacked, until the command ends; then the broker has it back where it was. One that
is replayed is acked after the broker has confirmed its copy, so a command that is killed leaves at most both.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any

from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage
from aiormq.channel import Channel
from aiormq.exceptions import ChannelNotFoundEntity
from pamqp.commands import Basic

from builder.adapters.rabbitmq.connection import connected, plain_words
from builder.adapters.rabbitmq.publisher import open_channel, publish
from builder.errors import BrokerAway, BrokerError, BrokerFull, StartError
from builder.flow.broker_letters import BROKERS_REASONS, BrokerLetter
from builder.flow.letter_document import read_query
from builder.flow.letter_headers import REPLAYED, original_headers
from builder.flow.ports import LetterFilter
from builder.rabbitmq_settings import Rabbitmq

_PERSISTENT = 2
_PUT_BACK = 5.0
"""Seconds that the broker may take to put back what was looked at; it does so after it has let us go."""


class DeadLetterQueue:
    """The queue ``rabbitmq.queues.deadLetters``, over one connection. Documents are as the service shows its own.

    Every method raises ``BrokerError`` where the broker will not.
    """

    def __init__(self, settings: Rabbitmq, connection: AbstractConnection) -> None:
        self._settings = settings
        self._queue = settings.queues.dead_letters.name
        self._connection = connection
        self._publishing: Channel | None = None
        self._looking: AbstractChannel | None = None
        self._there = 0

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Rabbitmq) -> AsyncIterator["DeadLetterQueue"]:
        """Connected."""
        async with connected(settings, "dead-letters") as connection:
            letters = cls(settings, connection)
            yield letters
            await letters._give_back()

    async def find(self, query: Mapping[str, str]) -> dict[str, Any]:
        """All of them, the newest first, as one page."""
        wanted, _ = read_query(query, tuple(BROKERS_REASONS))
        items = [letter.document() async for letter, _ in self._held() if letter.is_wanted(wanted)]
        return {"items": items[::-1], "next_before": None}

    async def show(self, letter_id: str, *, with_data: bool) -> dict[str, Any]:
        """One of them."""
        async for letter, _ in self._held():
            if letter.id == letter_id:
                return letter.document(with_data=with_data)
        raise self._unknown(letter_id)

    async def discard(self, letter_id: str) -> None:
        """Take one away for good."""
        async for letter, message in self._held():
            if letter.id == letter_id:
                await self._take_away(message)
                return
        raise self._unknown(letter_id)

    async def replay(self, letter_id: str) -> None:
        """Publish one as it was first published."""
        async for letter, message in self._held():
            if letter.id == letter_id:
                await self._replay(letter, message)
                return
        raise self._unknown(letter_id)

    async def replay_many(self, query: Mapping[str, str]) -> dict[str, Any]:
        """Publish again what the filter wants, the oldest first: ``queued``, ``rejected``, ``stopped`` and ``until``.

        One that cannot be replayed does not hold up those behind it; a full queue ends it early.
        """
        wanted, _ = read_query(query, tuple(BROKERS_REASONS))
        until = datetime.now(UTC) if wanted.until is None else wanted.until
        queued, stopped, rejected = 0, None, []
        async for letter, message in self._held():
            if not letter.is_wanted(_before(wanted, until)):
                continue
            try:
                await self._replay(letter, message)
            except BrokerAway:
                raise
            except BrokerFull as exc:
                stopped = str(exc)
                break
            except BrokerError as exc:
                rejected.append({"id": letter.id, "message": str(exc)})
            else:
                queued += 1
        return {"queued": queued, "rejected": rejected, "stopped": stopped, "until": until.isoformat()}

    async def _replay(self, letter: BrokerLetter, message: AbstractIncomingMessage) -> None:
        if letter.route is None:
            msg = "nothing says by which exchange and routing key it came; publish it yourself, and discard it"
            raise BrokerError(msg)
        if self._publishing is None or self._publishing.is_closed:
            self._publishing = await open_channel(self._connection)
        try:
            async with asyncio.timeout(self._settings.confirm_timeout):
                await publish(self._publishing, *letter.route, letter.body, _again(message))
        except TimeoutError as exc:
            msg = "the broker did not confirm in time; the letter stays, and its copy may have arrived"
            raise BrokerAway(msg) from exc
        with plain_words():
            await self._take_away(message)

    async def _take_away(self, message: AbstractIncomingMessage) -> None:
        await message.ack()
        self._there -= 1

    async def _held(self) -> AsyncIterator[tuple[BrokerLetter, AbstractIncomingMessage]]:
        """Those that are there now, the oldest first, held until the end, unless acked.

        Their number is taken at the start: what comes back while we replay is not replayed for ever.
        """
        with plain_words():
            self._looking = await self._connection.channel()
            try:
                queue = await self._looking.declare_queue(self._queue, passive=True)
            except ChannelNotFoundEntity as exc:
                msg = f"the broker has no queue {self._queue} (topology declare makes it)"
                raise BrokerError(msg) from exc
            self._there = queue.declaration_result.message_count or 0
            for _ in range(self._there):
                message = await queue.get(fail=False)
                if message is None:
                    break
                yield BrokerLetter(message.body, message.content_type, message.message_id, message.headers), message
        await self._give_back()

    async def _give_back(self) -> None:
        """Return when what was only looked at is in its place again, where the next command must find it."""
        looked, self._looking = self._looking, None
        if looked is None:
            return
        with suppress(BrokerError), plain_words():
            await looked.close()
            channel = await self._connection.channel()
            async with asyncio.timeout(_PUT_BACK):
                while (await _ready(channel, self._queue)) < self._there:  # noqa: ASYNC110 -- AMQP can only be asked
                    await asyncio.sleep(0.02)
            await channel.close()

    def _unknown(self, letter_id: str) -> StartError:
        return StartError(f"there is no dead letter {letter_id} in {self._queue} (any more)")


async def _ready(channel: AbstractChannel, queue: str) -> int:
    """How many messages wait there."""
    return (await channel.declare_queue(queue, passive=True)).declaration_result.message_count or 0


def _before(wanted: LetterFilter, until: datetime) -> LetterFilter:
    return LetterFilter(wanted.reason, wanted.type, wanted.third_party_id, wanted.since, until)


def _again(message: AbstractIncomingMessage) -> Basic.Properties:
    """As it was first published, but marked: what comes back in spite of its replay is another letter."""
    return Basic.Properties(
        content_type=message.content_type,
        content_encoding=message.content_encoding,
        headers={**original_headers(dict(message.headers)), REPLAYED: datetime.now(UTC).isoformat()},
        delivery_mode=_PERSISTENT,
        correlation_id=message.correlation_id,
        message_id=message.message_id,
        timestamp=message.timestamp,
        message_type=message.type,
        app_id=message.app_id,
    )
