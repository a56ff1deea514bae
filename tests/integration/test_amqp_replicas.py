"""Replicas that compete for one queue, without a word between them: as many Jobs as there are events."""

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from builder.adapters.memory_cluster import MemoryCluster
from builder.models import Manifest
from builder.settings import Memory
from tests.amqp_parts import LETTERS, Queue, consuming
from tests.broker_parts import Vhost
from tests.contract.harness import eventually
from tests.integration.messages import build_of
from tests.integration.namespace import Namespace
from tests.integration.service import Services
from tests.integration.witness import Witness

pytestmark = pytest.mark.integration

EVENTS = 5000


class CountingCluster(MemoryCluster):
    """Knows how often each Job was made; others get a turn in the middle of a call."""

    def __init__(self) -> None:
        super().__init__(Memory())
        self.made: Counter[str] = Counter()

    async def create(self, job: Manifest) -> None:
        await asyncio.sleep(0)
        await super().create(job)
        self.made[job["metadata"]["name"]] += 1


@pytest.fixture
async def queue(vhost: Vhost) -> AsyncIterator[Queue]:
    async with Queue.declared(vhost) as queue:
        yield queue


@pytest.mark.timeout(120)
async def test_three_for_five_thousand(queue: Queue) -> None:
    """Every tenth event is there twice, and all of them before the first consumer comes."""
    numbers = [number for number in range(EVENTS) for _ in range(2 if number % 10 == 0 else 1)]
    await queue.publish(*(build_of(f"p{number}") for number in numbers))
    async with CountingCluster() as cluster, AsyncExitStack() as stack:
        roads = [await stack.enter_async_context(consuming(queue.vhost, cluster)) for _ in range(3)]
        for road in roads:
            await road.until(lambda road: road.consumer.held == 0 and road.consumer.ready == 0, within=90)
        ended = sum((Counter(road.outcomes()) for road in roads), Counter[str]())
        acked = sum(road.parts.stats.messages.total() for road in roads)
        assert all(road.outcomes().get("created", 0) > 0 for road in roads)
    assert (len(cluster.made), cluster.made.total(), ended["created"]) == (EVENTS, EVENTS, EVENTS)
    assert acked == len(numbers)
    assert (await queue.count(), await queue.count(LETTERS)) == (0, 0)


@pytest.mark.timeout(120)
async def test_three_processes(namespace_apart: Namespace, services: Services, queue: Queue) -> None:
    """On a real API server, with duplicates; one of them is killed, one is told to go, and the third does the rest."""
    numbers = [number for number in range(300) for _ in range(2 if number % 10 == 0 else 1)]
    settings: dict[str, Any] = {
        "custody": "broker",
        "rabbitmq": {"url": queue.vhost.url},
        "asyncJobCreator": {"maxQueueSize": 20},
    }
    async with Witness.open(namespace_apart) as witness:
        first, second, third = [await services.start(namespace_apart, **settings) for _ in range(3)]
        await queue.publish(*(build_of(f"p{number}") for number in numbers))
        await eventually(queue.count, lambda count: count < len(numbers) - 100)
        first.signal(signal.SIGKILL)
        second.signal(signal.SIGTERM)
        assert await second.exit_code() == 0
        await eventually(
            third.stats, lambda stats: (stats["broker"]["ready"], stats["broker"]["held"]) == (0, 0), within=60
        )
        made = await witness.made()
    assert made == Counter(f"p{number}" for number in range(300))
    assert (await queue.count(), await queue.count(LETTERS)) == (0, 0)
