"""SIGKILL at every point between a message's delivery and its ack: nothing lost, nothing doubled.

There is no journal: the broker keeps every message until it hears of it, and the next process goes on.
"""

import signal
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from builder.failpoints import FAILPOINTS, OF_HTTP, Failpoint
from tests.amqp_parts import LETTERS, Queue
from tests.broker_parts import Vhost
from tests.contract.harness import eventually
from tests.integration.messages import Document
from tests.integration.namespace import Namespace
from tests.integration.service import Service, Services
from tests.integration.ways import every_way, surroundings, wish
from tests.integration.witness import Witness

pytestmark = [
    pytest.mark.integration,
    # Of the sender here: connections to a server that is killed may be left to be collected.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]

BY_AMQP = [point for point in FAILPOINTS if point not in OF_HTTP]

UNDER_LOAD: list[Failpoint] = [
    "message_delivered",
    "enqueued",
    "after_create",
    "settled",
    "before_ack",
    "acked",
]
"""Where a message is in other hands than at the one before."""


@pytest.fixture
async def queue(vhost: Vhost) -> AsyncIterator[Queue]:
    async with Queue.declared(vhost) as queue:
        yield queue


@pytest.fixture
def settings(queue: Queue) -> dict[str, Any]:
    """For all services of a test, which come one after the other."""
    return {
        "custody": "broker",
        "rabbitmq": {"url": queue.vhost.url},
        "asyncJobCreator": {"maxRetryDelay": "200ms"},
    }


async def all_acked(service: Service) -> None:
    """Return when the broker has nothing left, neither waiting nor unacked."""

    async def broker() -> Document:
        document: Document = (await service.stats())["broker"]
        return document

    await eventually(broker, lambda broker: (broker["ready"], broker["held"]) == (0, 0), within=40)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("point", BY_AMQP)
async def test_killed_at_a_failpoint(
    namespace_apart: Namespace, services: Services, queue: Queue, settings: dict[str, Any], point: Failpoint
) -> None:
    """The next process brings every event to the one end that it would have come to anyway."""
    await surroundings(namespace_apart)
    async with Witness.open(namespace_apart) as witness:
        await queue.publish(*every_way())
        service = services.spawn_doomed(namespace_apart, point, 1, **settings)
        assert await service.exit_code() == -signal.SIGKILL

        service = await services.start(namespace_apart, **settings)
        await eventually(service.stats, lambda stats: stats["waiting"]["active_build"] == 1)
        await witness.end_builds(["kaniko-job-acme-busy"])
        await all_acked(service)
        made = await witness.made()

    assert made == Counter(["free0", "free1", "free2", "finished", "busy"])
    # A crash between the broker's taking a letter and its hearing the message's ack cannot be told from one before both.
    letters = await queue.letters(await queue.count(LETTERS))
    reasons = Counter(str(letter.headers["dead-letter-reason"]) for letter in letters)
    assert set(reasons) == {"invalid", "name_taken"}
    assert max(reasons.values()) <= 2
    assert (await queue.count(), await queue.count(LETTERS)) == (0, 0)


@pytest.mark.timeout(240)
async def test_killed_again_and_again_under_load(
    namespace_apart: Namespace, services: Services, queue: Queue, settings: dict[str, Any]
) -> None:
    """A service for each of them that dies there at the third time. Few targets, and builds that end at once."""
    sent = 0
    async with Witness.open(namespace_apart) as witness, witness.builds_end_at_once():
        for point in UNDER_LOAD:
            service = services.spawn_doomed(namespace_apart, point, 3, **settings)
            while service.alive:
                await queue.publish(*(wish(number) for number in range(sent, sent + 12)))
                sent += 12
                await eventually(queue.count, lambda count: count < 12 or not service.alive)  # noqa: B023 -- awaited here
                assert sent < 10_000, f"{point} is never reached"
            assert await service.exit_code() == -signal.SIGKILL

        service = await services.start(namespace_apart, **settings)
        await all_acked(service)
        made = await witness.made()

    assert {event: count for event, count in made.items() if count > 1} == {}, "built more than once"
    assert {f"e-{number}" for number in range(sent - 5, sent)} <= made.keys(), "the last event of each target is built"
    assert (await queue.count(), await queue.count(LETTERS)) == (0, 0)
