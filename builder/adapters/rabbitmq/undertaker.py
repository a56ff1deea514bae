"""Dead letters on their way to the broker's queue for them: sent until the broker confirms, and only then done.

One at a time, over a connection of its own: in a memory alarm the broker stops reading from whoever publishes, and what
is acked must be read meanwhile.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import structlog
from aiormq.channel import Channel

from builder.adapters.rabbitmq.connection import being_cancelled, connected
from builder.adapters.rabbitmq.delivery import Delivery
from builder.adapters.rabbitmq.letter_message import letter_message
from builder.adapters.rabbitmq.publisher import open_channel, publish
from builder.errors import BrokerError, BrokerFull, NotRouted, SettingsError
from builder.failpoints import reach
from builder.models import DeadLetter
from builder.rabbitmq_settings import Rabbitmq
from builder.retry import Backoff
from builder.stats import Stats

RETRYING = Backoff(base=0.2, cap=10.0)

log = structlog.get_logger(__name__)


class Burial(NamedTuple):
    """One letter. ``deliveries`` are the messages that wait for it, ``over`` is called once nothing more will be done.

    ``over(True)``: the letter is in the broker. ``over(False)``: all messages were lost meanwhile, so whoever gets
    them will write it.
    """

    letter: DeadLetter
    deliveries: Callable[[], Sequence[Delivery]]
    over: Callable[[bool], None]


class Undertaker:
    """Sends letters, the oldest first, for as long as it takes."""

    def __init__(self, settings: Rabbitmq, stats: Stats, draw: Callable[[], float] = random.random) -> None:
        self._settings = settings
        self._queue = settings.queues.dead_letters.name
        self._stats = stats
        self._draw = draw
        self._waiting: deque[Burial] = deque()
        self._something = asyncio.Event()
        self._nothing = asyncio.Event()
        self._nothing.set()
        self.trouble: str | None = None

    def __len__(self) -> int:
        """How many letters wait."""
        return len(self._waiting)

    def bury(self, burial: Burial) -> None:
        """Send a letter soon."""
        self._waiting.append(burial)
        self._nothing.clear()
        self._something.set()

    async def rest(self) -> None:
        """Return when all letters are sent."""
        await self._nothing.wait()

    async def work(self) -> None:
        """Runs for the life of the service."""
        failures = 0
        while True:
            await self._something.wait()
            try:
                async with connected(self._settings, "knative-lambda-builder dead letters") as connection:
                    channel = await open_channel(connection)
                    while True:
                        await self._send_all(channel)
                        failures = 0
                        await self._something.wait()
            except (BrokerError, SettingsError) as exc:
                if failures:  # else it may be no more than a connection that broke while nobody needed it
                    self._tell(exc)
            except asyncio.CancelledError as exc:
                if being_cancelled():
                    raise
                self._tell(exc)
            await asyncio.sleep(RETRYING.delay(failures, self._draw, floor=0.05))
            failures += 1

    async def _send_all(self, channel: Channel) -> None:
        while self._waiting:
            burial = self._waiting[0]
            delivery = next((one for one in burial.deliveries() if one.held), None)
            if delivery is not None:
                await self._send(channel, delivery, burial.letter)
                reach("letter_confirmed")
                self._stats.lettered[burial.letter.reason] += 1
                if self.trouble is not None:
                    log.info("dead_letters_kept_again", queue=self._queue)
                    self.trouble = None
            self._waiting.popleft()
            burial.over(delivery is not None)
        self._something.clear()
        self._nothing.set()

    async def _send(self, channel: Channel, delivery: Delivery, letter: DeadLetter) -> None:
        """Return when the letter is in the queue.

        To the queue itself, not to the exchange, which may have other queues bound and confirm without ours.

        Raises:
            BrokerError: it is not, or nobody knows.
        """
        body, properties = letter_message(delivery, letter)
        reach("before_letter")
        try:
            await publish(channel, "", self._queue, body, properties)
        except NotRouted as exc:
            msg = f"there is no queue {self._queue}: make it with `knative-lambda-builder topology declare`"
            raise NotRouted(msg) from exc
        except BrokerFull as exc:
            msg = f"the queue {self._queue} takes no more: replay or discard what is in it"
            raise BrokerFull(msg) from exc

    def _tell(self, exc: BaseException) -> None:
        reason = str(exc) or "the connection to the broker was lost"
        if reason != self.trouble:
            log.error("dead_letters_not_kept", queue=self._queue, error=reason, then="messages stay in the broker")
        self.trouble = reason
