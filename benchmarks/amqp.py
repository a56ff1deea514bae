"""The road from RabbitMQ beside a bare consumer, and beside our own HTTP road."""

import asyncio
import http.client
import json
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import aio_pika
from broker import Broker
from control_plane import ControlPlane

from benchmarks import example
from benchmarks.children import measure, serving
from benchmarks.table import Bound, Row, ratios
from builder.adapters.rabbitmq import topology
from builder.adapters.rabbitmq.connection import connected
from builder.rabbitmq_settings import Rabbitmq

MESSAGES = 5000
JOBS = 400
PREFETCH = 100
SENDERS = 32
MIB = 2**20

_names = count()


def rows(rounds: int, cluster: ControlPlane) -> list[Row]:
    """To the embedded cluster, to the real one, and what it weighs."""
    with Broker() as broker:
        settings = Rabbitmq.model_validate({"url": broker.url})
        asyncio.run(_declare(settings))
        there = {"BENCH_BROKER": broker.url}
        api = {"KUBECONFIG": str(cluster.kubeconfig)}
        road: dict[str, list[dict[str, Any]]] = {"ours": [], "bare": [], "amqp": [], "http": []}
        _through_http(cluster, api)  # the first Jobs of a new API server are slow
        for number in range(rounds):
            for side in ("ours", "bare") if number % 2 else ("bare", "ours"):
                asyncio.run(_fill(settings, MESSAGES))
                road[side].append(
                    measure("amqp_service", "consume", MESSAGES, environ=there)
                    if side == "ours"
                    else measure("amqp_bare", MESSAGES, PREFETCH, environ=there)
                )
            for side in ("amqp", "http") if number % 2 else ("http", "amqp"):
                if side == "http":
                    road[side].append(_through_http(cluster, api))
                    continue
                asyncio.run(_fill(settings, JOBS))
                namespace = cluster.create_namespace("bench")
                road[side].append(measure("amqp_service", "consume", JOBS, namespace, environ=there | api))
        weights = [_weights(settings, there) for _ in range(rounds)]
    few, many = zip(*weights, strict=True)
    return [
        _row("AMQP: messages to Jobs of the embedded cluster", road["ours"], road["bare"], 0.8),
        _row("AMQP: Jobs per second on the real API server, 20 at a time", road["amqp"], road["http"], 0.9),
        Row(
            "AMQP: memory with 10,000 messages waiting",
            ratios(many, few),
            Bound("≤", 1.05),
            ours=f"{median(many) / MIB:.0f} MiB",
            peer=f"{median(few) / MIB:.0f} MiB with 10",
        ),
    ]


def _row(what: str, ours: Sequence[dict[str, Any]], peer: Sequence[dict[str, Any]], bound: float) -> Row:
    mine, other = ([one["jobs"] / one["seconds"] for one in side] for side in (ours, peer))
    return Row(
        what, ratios(mine, other), Bound("≥", bound), ours=f"{median(mine):,.0f}/s", peer=f"{median(other):,.0f}/s"
    )


def _weights(settings: Rabbitmq, there: dict[str, str]) -> tuple[float, float]:
    """Resident sets with 10 and with 10,000 messages in the broker, nobody at work behind the queue."""
    asyncio.run(_purge(settings))
    asyncio.run(_fill(settings, 10))
    few = measure("amqp_service", "hold", 10, environ=there)["bytes"]
    asyncio.run(_fill(settings, 9990))
    many = measure("amqp_service", "hold", 10_000, environ=there)["bytes"]
    asyncio.run(_purge(settings))
    return few, many


def _through_http(cluster: ControlPlane, api: dict[str, str]) -> dict[str, Any]:
    """The same Jobs by the HTTP door, the journal on disk."""
    namespace = cluster.create_namespace("bench")
    with tempfile.TemporaryDirectory() as folder:
        environ = api | {"BENCH_JOURNAL": f"{folder}/journal.sqlite3"}
        with serving("benchmarks.amqp_service", "http", str(JOBS), namespace, environ=environ) as service:
            address = urlsplit(service.first_line())
            names = _event_names(JOBS)
            with ThreadPoolExecutor(SENDERS) as senders:
                list(
                    senders.map(lambda share: _post(address.netloc, share), [names[n::SENDERS] for n in range(SENDERS)])
                )
            figures: dict[str, Any] = json.loads(service.first_line())
            return figures


def _post(netloc: str, names: Sequence[str]) -> None:
    connection = http.client.HTTPConnection(netloc, timeout=60)
    for name in names:
        connection.request("POST", "/", example.body(name, name), example.headers(name))
        answer = connection.getresponse()
        answer.read()
        if answer.status != http.client.ACCEPTED:
            msg = f"{answer.status}"
            raise ValueError(msg)
    connection.close()


def _event_names(number: int) -> list[str]:
    """For targets that no other run has."""
    run = f"r{next(_names)}"
    return [run + f"{one:032d}"[len(run) :] for one in range(number)]


async def _declare(settings: Rabbitmq) -> None:
    async with connected(settings) as connection:
        await topology.declare(settings, connection)


async def _purge(settings: Rabbitmq) -> None:
    async with connected(settings) as connection:
        await (await (await connection.channel()).get_queue("kaniko-jobs")).purge()


async def _fill(settings: Rabbitmq, number: int) -> None:
    """As Knative's broker publishes, each confirmed."""
    async with connected(settings) as connection:
        exchange = (await connection.channel()).default_exchange
        names = _event_names(number)
        for start in range(0, number, 200):
            await asyncio.gather(
                *(exchange.publish(_message(name), "kaniko-jobs") for name in names[start : start + 200])
            )


def _message(name: str) -> aio_pika.Message:
    headers = {key.lower().removeprefix("ce-"): value for key, value in example.headers(name).items()}
    return aio_pika.Message(example.body(name, name), headers=dict(headers), delivery_mode=2)
