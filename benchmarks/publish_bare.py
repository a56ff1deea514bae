"""A bare aio-pika loop that publishes with confirms: ``python -m benchmarks.publish_bare <count> <in flight>``."""

import asyncio
import os
import sys

import aio_pika

from benchmarks import example
from benchmarks.children import report
from benchmarks.stopwatch import Stopwatch
from builder.events.routing import JOB_START


async def main(count: int, in_flight: int) -> None:
    """As aio-pika's own documents have it: persistent, mandatory, confirmed."""
    names = [f"{number:032d}" for number in range(count)]
    bodies = [(name, example.body(name, name)) for name in names]
    connection = await aio_pika.connect(os.environ["BENCH_BROKER"])
    channel = await connection.channel(on_return_raises=True)
    exchange = await channel.get_exchange("cloud-events")
    todo = iter(bodies)
    confirmed = 0

    async def work() -> None:
        nonlocal confirmed
        for name, body in todo:
            message = aio_pika.Message(
                body, content_type="application/cloudevents+json", delivery_mode=2, message_id=name
            )
            await exchange.publish(message, JOB_START)
            confirmed += 1

    watch = Stopwatch()
    await asyncio.gather(*(work() for _ in range(in_flight)))
    report({"events": confirmed, **watch.read()})
    await connection.close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
