"""Publishing with confirms beside bare aio-pika, as many on the way."""

import asyncio
from statistics import median
from typing import Any

from broker import Broker

from benchmarks.children import measure
from benchmarks.table import Bound, Row, ratios
from builder.adapters.rabbitmq import topology
from builder.adapters.rabbitmq.connection import connected
from builder.rabbitmq_settings import Rabbitmq

EVENTS = 3000
IN_FLIGHT = 100


def rows(rounds: int) -> list[Row]:
    """Events per second, each confirmed by a quorum queue."""
    with Broker() as broker:
        asyncio.run(_declare(broker.url))
        sides: dict[str, list[dict[str, Any]]] = {"publish_ours": [], "publish_bare": []}
        for number in range(rounds):
            for side in sorted(sides, reverse=number % 2 == 0):
                sides[side].append(measure(side, EVENTS, IN_FLIGHT, environ={"BENCH_BROKER": broker.url}))
                broker.manage("DELETE", "/api/queues/%2F/kaniko-jobs/contents")
    ours, bare = ([one["events"] / one["seconds"] for one in side] for side in sides.values())
    return [
        Row(
            f"AMQP: publish with confirms, {IN_FLIGHT} in flight",
            ratios(ours, bare),
            Bound("≥", 0.9),
            ours=f"{median(ours):,.0f}/s",
            peer=f"{median(bare):,.0f}/s",
        )
    ]


async def _declare(url: str) -> None:
    settings = Rabbitmq.model_validate({"url": url})
    async with connected(settings) as connection:
        await topology.declare(settings, connection)
