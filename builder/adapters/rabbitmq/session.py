"""One channel's life: what it delivers, and what we answer. Delivery tags never leave it, so none can outlive it."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from datetime import datetime

from aiormq.abc import AbstractChannel, ChannelFrame, DeliveredMessage
from pamqp.commands import Basic

from builder.adapters.rabbitmq.connection import plain_words
from builder.adapters.rabbitmq.delivery import Delivery
from builder.errors import BrokerAway, BrokerError
from builder.failpoints import reach
from builder.stats import MessageEnd, Stats

MOST_UNACKED = 65_535
"""The largest prefetch that AMQP can say."""

_CLOSED = "the channel was closed"

TOGETHER = 0.002
"""Seconds that an ack may wait for others, to be sent with them."""


class Session:
    """Consumes one queue on one channel. ``clock`` is the loop's time, ``now`` the time of day in UTC.

    ``fresh`` once a message has come that nobody had before: the queue gives those that came back first.
    """

    def __init__(
        self, channel: AbstractChannel, stats: Stats, clock: Callable[[], float], now: Callable[[], datetime]
    ) -> None:
        self._channel = channel
        self._stats = stats
        self._clock = clock
        self._now = now
        self._arrived: deque[Delivery] = deque()
        self._something = asyncio.Event()
        self._answers: list[Basic.Ack | Basic.Nack] = []
        self._to_say = asyncio.Event()
        self._over: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._tags: list[str] = []
        self._prefetch = 1
        self._held: dict[int, Delivery] = {}
        self.fresh = False
        channel.closing.add_done_callback(self._on_close)
        channel.on_consumer_cancel_callbacks.add(self._on_cancel)

    def __len__(self) -> int:
        """How many messages are in our hands."""
        return len(self._held)

    async def consume(self, queue: str, prefetch: int, patience: float) -> None:
        """Begin, or have ``prefetch`` messages more at once.

        Raises:
            BrokerError: the broker says why not, or nothing for ``patience`` seconds: one that has just started may
                take connections, and leave those waiting for a minute who ask for a queue too early.
        """
        self._prefetch = min(prefetch, MOST_UNACKED)
        with plain_words():
            await self._channel.basic_qos(prefetch_count=self._prefetch, timeout=patience)
            consumed = await self._channel.basic_consume(queue, self._on_message, timeout=patience)
        self._tags.append(str(consumed.consumer_tag))

    @property
    def shares(self) -> int:
        """How often ``prefetch`` messages are asked for."""
        return len(self._tags)

    async def consume_less(self) -> None:
        """Take back one ``consume``. Its messages stay in our hands."""
        with plain_words():
            await self._channel.basic_cancel(self._tags.pop())

    async def stop_consuming(self) -> None:
        """Nothing more is delivered once this returns; what nobody has looked at goes back."""
        while self._tags:
            await self.consume_less()
        while self._arrived:
            self.hand_back(self._arrived.popleft())

    async def next(self) -> Delivery:
        """The next message, in the order of the queue."""
        while not self._arrived:
            self._something.clear()
            await self._something.wait()
        return self._arrived.popleft()

    def held(self) -> Iterable[Delivery]:
        """The messages in our hands, the longest here first."""
        return list(self._held.values())

    async def over(self) -> str:
        """Return when the channel has ended, with why."""
        return await asyncio.shield(self._over)

    async def answer(self) -> None:
        """Tell the broker what has become of its messages, for as long as the channel lives."""
        while True:
            await self._to_say.wait()
            await asyncio.sleep(TOGETHER)
            await self.flush(wait=False)

    async def flush(self, *, wait: bool = True) -> None:
        """Send all answers; with ``wait`` they are on the wire when this returns.

        Raises:
            BrokerAway: the channel is gone, and the broker will give the messages to others.
        """
        self._to_say.clear()
        if not self._answers:
            return
        if self._channel.is_closed:
            raise lost(_CLOSED)
        # Not by ``basic_ack``, which would be a system call for each: that costs more than all else about a message.
        connection = self._channel.connection
        sent = connection.create_future() if wait else None
        frames = ChannelFrame.marshall(self._channel.number, self._answers, sent)
        self._answers = []
        reach("before_ack")
        with plain_words():
            await connection.write_queue.put(frames)
            if sent is not None:
                await sent
        reach("acked")

    async def be_heard(self, patience: float) -> None:
        """Return once the broker has read all answers that were given until now.

        AMQP confirms no ack; but a channel's methods are read in their order, and this sends one that is answered (and
        changes nothing: it is for consumers to come). An ack that was only written may be lost with our process, even
        by the kernel: it resets a connection on which something unread has arrived.

        Raises:
            BrokerError: the channel is gone, or the broker says nothing for ``patience`` seconds.
        """
        await self.flush(wait=False)
        with plain_words():
            await self._channel.basic_qos(prefetch_count=self._prefetch, timeout=patience)

    def ack(self, delivery: Delivery) -> None:
        """See ``Answering``. Of a message that is not held any more the broker hears nothing."""
        if self._let_go(delivery):
            self._say(Basic.Ack(delivery.tag))
            self._stats.messages[MessageEnd.ACKED] += 1
            since = delivery.properties.timestamp
            age = self._clock() - delivery.since if since is None else (self._now() - since).total_seconds()
            self._stats.message_age.observe(max(0.0, age))

    def hand_back(self, delivery: Delivery) -> None:
        """See ``Answering``."""
        if self._let_go(delivery):
            self._say(Basic.Nack(delivery.tag, requeue=True))
            self._stats.messages[MessageEnd.REQUEUED] += 1

    def lose_all(self) -> int:
        """The channel is gone: nothing is held any more. How many messages that were."""
        lost = len(self._held)
        self._stats.messages[MessageEnd.REQUEUED] += lost
        for delivery in self._held.values():
            delivery.held = False
        self._held.clear()
        self._arrived.clear()
        self._answers.clear()
        return lost

    def _let_go(self, delivery: Delivery) -> bool:
        delivery.held = False
        return self._held.pop(delivery.tag, None) is delivery

    def _say(self, answer: Basic.Ack | Basic.Nack) -> None:
        self._answers.append(answer)
        self._to_say.set()

    async def _on_message(self, message: DeliveredMessage) -> None:
        delivery = Delivery(self, message, self._clock())
        self._held[delivery.tag] = delivery
        if delivery.redelivered:
            self._stats.redelivered += 1
        else:
            self.fresh = True
        self._arrived.append(delivery)
        self._something.set()

    def _on_close(self, closing: "asyncio.Future[None]") -> None:
        reason = None if closing.cancelled() else closing.exception()
        self._end(_CLOSED if reason is None or not str(reason) else str(reason))

    def _on_cancel(self, _frame: object) -> None:
        self._tags.clear()
        self._end("the broker cancelled our consumer: the queue was deleted, or has no leader")

    def _end(self, reason: str) -> None:
        if not self._over.done():
            self._over.set_result(reason)


def lost(reason: str) -> BrokerError:
    """The error of a channel that ended."""
    return BrokerAway(f"the connection to the broker was lost: {reason}")
