"""The publisher, in a process of its own: ``python -m benchmarks.publish_ours <count> <in flight>``."""

import asyncio
import os
import sys

from benchmarks import example
from benchmarks.children import report
from benchmarks.stopwatch import Stopwatch
from builder.adapters.rabbitmq.publisher import AmqpPublisher
from builder.events.outgoing import Outgoing
from builder.events.routing import JOB_START
from builder.rabbitmq_settings import Rabbitmq

HEADERS = {"content-type": "application/cloudevents+json"}
PATIENCE = 60.0


async def main(count: int, in_flight: int) -> None:
    """Events that are encoded before the time is taken, as on the other side."""
    names = [f"{number:032d}" for number in range(count)]
    events = [Outgoing(name, name, JOB_START, HEADERS, example.body(name, name)) for name in names]
    settings = Rabbitmq.model_validate({"url": os.environ["BENCH_BROKER"]})
    async with AmqpPublisher.open(settings, in_flight) as publisher:
        watch = Stopwatch()
        confirmed = sum([sent.accepted async for sent in publisher.send_all(events, PATIENCE)])
        report({"events": confirmed, **watch.read()})


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
