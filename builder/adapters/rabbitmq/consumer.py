"""The AMQP door: takes messages from the queue as there are slots, and keeps coming back when the broker goes away."""

import asyncio
import contextlib
import random
from collections.abc import Callable
from datetime import datetime

import structlog
from aio_pika.abc import AbstractConnection

from builder.adapters.rabbitmq import topology
from builder.adapters.rabbitmq.connection import being_cancelled, connected, plain_words
from builder.adapters.rabbitmq.custody import BrokerCustody
from builder.adapters.rabbitmq.delivery import Delivery
from builder.adapters.rabbitmq.letter_message import crashed
from builder.adapters.rabbitmq.session import Session, lost
from builder.adapters.rabbitmq.undertaker import Undertaker
from builder.errors import BrokerError, EventRejected, Problem, SettingsError, StorageError
from builder.events.amqp import content_type_of, parse_amqp
from builder.events.parsing import Item, Mode, Rejected
from builder.failpoints import reach
from builder.flow.intake import Intake
from builder.flow.outage import Outage
from builder.flow.ports import Journal
from builder.retry import Backoff
from builder.settings import Settings
from builder.stats import MessageEnd, Stats

RECONNECTING = Backoff(base=0.2, cap=5.0)
_LOOK = 1.0
"""Seconds between two looks at how many messages wait."""

log = structlog.get_logger(__name__)


class Consumer:
    """Consumes ``rabbitmq.queues.kanikoJobs``. ``clock`` is the loop's time, ``now`` the time of day in UTC.

    ``trouble`` says why nothing is consumed; ``ready`` how many messages waited in the broker a moment ago. ``waiting``
    tells how many items are set aside: they keep their messages, and others may come in their place.
    """

    def __init__(
        self,
        settings: Settings,
        intake: Intake,
        journal: Journal,
        outage: Outage,
        stats: Stats,
        clock: Callable[[], float],
        now: Callable[[], datetime],
        waiting: Callable[[], int],
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._settings = settings
        self._queue = settings.rabbitmq.queues.kaniko_jobs.name
        self._outage = outage
        self._waiting = waiting
        self._intake = intake
        self._stats = stats
        self._clock = clock
        self._now = now
        self._draw = draw
        self._undertaker = Undertaker(settings.rabbitmq, stats, draw)
        self._custody = BrokerCustody(journal, self._undertaker.bury)
        self._session: Session | None = None
        self._taking: asyncio.Task[None] | None = None
        self._stopping = False
        self._careful = False
        self._looked = False
        self._closing = asyncio.Event()
        self._trouble: str | None = "not connected yet"
        self.ready: int | None = None

    @property
    def trouble(self) -> str | None:
        """Why messages are not consumed, or dead letters not kept; None in good times."""
        return self._trouble if self._trouble is not None else self._undertaker.trouble

    @property
    def held(self) -> int:
        """Messages that the broker waits to hear of."""
        return 0 if self._session is None else len(self._session)

    async def holds(self, identity: bytes) -> bool:
        """See ``Holder``. An ack may have arrived by now; of messages that are not delivered yet nobody here knows."""
        if self._custody.holds(identity):
            await self._be_heard()
        return self._custody.holds(identity)

    async def bury(self) -> None:
        """Send the dead letters. Runs for the life of the service."""
        await self._undertaker.work()

    async def consume(self) -> None:
        """Connect, consume, and begin anew when that has ended, until ``close``."""
        failures = 0
        while not self._stopping:
            acked = self._stats.messages[MessageEnd.ACKED]
            try:
                await self._live()
            except (BrokerError, SettingsError) as exc:
                self._tell(str(exc))
            except asyncio.CancelledError:
                if being_cancelled():
                    raise
                self._tell("the connection to the broker was lost")
            if self._stats.messages[MessageEnd.ACKED] > acked:
                failures = 0
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RECONNECTING.delay(failures, self._draw, floor=0.05)):
                    await self._closing.wait()
            failures += 1

    async def stop(self) -> None:
        """Take nothing more. What nobody has looked at goes back at once; what is under way may end."""
        self._stopping = True
        if self._taking is not None:
            self._taking.cancel()
        if self._session is not None:
            with contextlib.suppress(BrokerError):
                await self._session.stop_consuming()

    async def close(self, grace: float) -> None:
        """Say the last words: dead letters that wait for at most ``grace`` seconds, then acks. The rest goes back."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._undertaker.rest()
        if self._session is not None:
            for delivery in self._session.held():
                delivery.hand_back()
            with contextlib.suppress(BrokerError):
                await self._session.flush()
        self._closing.set()

    # --- one connection -----------------------------------------------------------------------------------------------

    async def _live(self) -> None:
        """One connection's life. Ends with ``BrokerError``, or when we close."""
        async with connected(self._settings.rabbitmq) as connection:
            if not self._looked:
                await topology.tell(self._settings.rabbitmq, connection)
                self._looked = True
            with plain_words():
                channel = await connection.channel(publisher_confirms=False)
                session = Session(await channel.get_underlay_channel(), self._stats, self._clock, self._now)
            await self._ask(session)
            self._session = session
            log.info("consuming", queue=self._queue, after=self._trouble)
            self._trouble = None
            try:
                await self._run(session, connection)
            finally:
                self._careful = True
                self._session = None
                self.ready = None
                if requeued := session.lose_all():
                    log.info("messages_given_back", queue=self._queue, messages=requeued)

    async def _run(self, session: Session, connection: AbstractConnection) -> None:
        self._taking = asyncio.create_task(self._take_all(session), name="take")
        closing = asyncio.create_task(self._closing.wait(), name="closing")
        answering = asyncio.create_task(session.answer(), name="answer")
        looking = asyncio.create_task(self._look(connection), name="look")
        tending = asyncio.create_task(self._tend(session), name="tend")
        over = asyncio.create_task(session.over(), name="over")
        tasks: list[asyncio.Task[object]] = [self._taking, closing, answering, looking, tending, over]
        open_ones = set(tasks)
        try:
            while not (closing.done() or over.done()):
                done, open_ones = await asyncio.wait(open_ones, return_when=asyncio.FIRST_COMPLETED)
                for task in done - {over}:
                    if not task.cancelled():
                        task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if over.done() and not over.cancelled():
            raise lost(over.result())

    @property
    def _share(self) -> int:
        """Messages to be asked for at once.

        One at a time after a connection that was lost: it may be lost over a message that no client can read, which
        comes again first. Then only that one nears the ``deliveryLimit``, and not all that are on the way with it.
        """
        return 1 if self._careful else self._settings.async_job_creator.max_queue_size

    async def _ask(self, session: Session) -> None:
        await session.consume(self._queue, self._share, self._settings.rabbitmq.connect_timeout)

    async def _tend(self, session: Session) -> None:
        """As many messages as there is room for, and none so long that the broker would close the channel over it."""
        too_long = self._settings.rabbitmq.consumer_timeout / 2
        while not self._stopping:
            await asyncio.sleep(_LOOK)
            if self._careful and (session.fresh or len(session) == 0 or self.ready == 0):
                self._careful = False
                while session.shares:
                    await session.consume_less()
            await self._be_heard()
            wanted = 1 + self._waiting() // self._share
            if session.shares < wanted:
                await self._ask(session)
            elif session.shares > wanted:
                await session.consume_less()
            overdue = [delivery for delivery in session.held() if self._clock() - delivery.since > too_long]
            if overdue:
                await self._renew(session, overdue)

    async def _be_heard(self) -> None:
        """Let go of the events whose acks have arrived; after a lost connection, once those have come that had not."""
        ended = self._custody.ended()
        if ended and self._session is not None and not self._careful:
            with contextlib.suppress(BrokerError):
                await self._session.be_heard(self._settings.rabbitmq.connect_timeout)
                self._custody.heard(ended)

    async def _renew(self, session: Session, overdue: list[Delivery]) -> None:
        """Hand messages back that have been here for long; they come again at once and join their events.

        In an outage of the API server that would go on, and each round counts towards ``deliveryLimit``: then all go
        back, and nothing is taken until it is over.
        """
        log.info("messages_renewed", queue=self._queue, messages=len(overdue))
        if self._outage.reason is None:
            for delivery in overdue:
                delivery.hand_back()
            return
        await session.stop_consuming()
        for delivery in session.held():
            delivery.hand_back()
        await self._outage.over()
        await self._ask(session)

    async def _look(self, connection: AbstractConnection) -> None:
        """How many messages wait: a passive declare knows at once what the management's counters learn later."""
        while True:
            try:
                with plain_words():
                    channel = await connection.channel(publisher_confirms=False)
                    while True:
                        queue = await channel.declare_queue(self._queue, passive=True)
                        self.ready = queue.declaration_result.message_count
                        await asyncio.sleep(_LOOK)
            except BrokerError:
                self.ready = None
                await asyncio.sleep(_LOOK)

    def _tell(self, reason: str) -> None:
        if reason != self._trouble:
            log.error("broker_unreachable", queue=self._queue, error=reason, then="reconnecting; nothing is lost")
        self._trouble = reason

    # --- messages -----------------------------------------------------------------------------------------------------

    async def _take_all(self, session: Session) -> None:
        while True:
            await self._take(await session.next())

    async def _take(self, delivery: Delivery) -> None:
        """Take in the events of one message. It is acked when all of them have come to their ends."""
        if not delivery.held:
            return
        reach("message_delivered")
        try:
            if not self._custody.over(delivery):
                mode, items = self._read(delivery)
                delivery.batch = mode is Mode.BATCH
                for item in items:
                    await self._take_in(delivery, item)
        except asyncio.CancelledError:
            delivery.hand_back()
            raise
        except Exception as exc:  # a bug of ours must not let the same message come for ever
            log.exception("message_crashed", queue=self._queue)
            self._custody.park(delivery, crashed(delivery, exc, self._now()))
        self._custody.end(delivery)

    async def _take_in(self, delivery: Delivery, item: Item) -> None:
        while True:
            try:
                await self._intake.take(item, custodian=self._custody.of(delivery))
            except EventRejected:
                return
            except StorageError as exc:  # of the journal, which knows what came over HTTP
                await asyncio.sleep(exc.retry_after)
            else:
                return

    def _read(self, delivery: Delivery) -> tuple[Mode, list[Item]]:
        content_type, limit = delivery.properties.content_type, self._settings.intake.max_body_size
        if len(delivery.body) <= limit:
            return parse_amqp(content_type, delivery.headers, delivery.body)
        problem = Problem("body", f"must not be larger than {limit} bytes (setting intake.maxBodySize)")
        shown = content_type_of(content_type, delivery.headers)
        return Mode.BINARY, [Rejected({}, shown, b"", (problem,), 413)]
