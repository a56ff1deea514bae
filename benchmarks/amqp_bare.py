"""A bare aio-pika loop that consumes and acks: ``python -m benchmarks.amqp_bare <count> <prefetch>``."""

import asyncio
import os
import sys

import aio_pika
import uvloop
from aio_pika.abc import AbstractIncomingMessage

from benchmarks.children import report
from benchmarks.stopwatch import Stopwatch


async def main(count: int, prefetch: int) -> None:
    """As aio-pika's own documents have it."""
    connection = await aio_pika.connect(os.environ["BENCH_BROKER"])
    channel = await connection.channel(publisher_confirms=False)
    await channel.set_qos(prefetch_count=prefetch)
    queue = await channel.get_queue("kaniko-jobs")
    done = asyncio.Event()
    acked = 0
    watch: Stopwatch | None = None

    async def on_message(message: AbstractIncomingMessage) -> None:
        nonlocal acked, watch
        watch = watch or Stopwatch()
        await message.ack()
        acked += 1
        if acked == count:
            done.set()

    await queue.consume(on_message)
    await done.wait()
    if watch is None:
        raise RuntimeError
    report({"jobs": acked, **watch.read()})
    await connection.close()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2])))
