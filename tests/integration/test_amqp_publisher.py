"""``publish`` to a real RabbitMQ: what is confirmed is there, and what is not is said to be not."""

import asyncio
import json
from collections.abc import Iterator

import pytest

from builder.adapters.rabbitmq.publisher import AmqpPublisher
from builder.errors import BrokerError, NotRouted
from builder.events.outgoing import Outgoing, encode_structured, job_start_event
from builder.events.parsing import parse_http
from builder.models import Event
from tests.broker_parts import Vhost
from tests.integration.service import run

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]  # a busy machine takes its time

SCRIPT = "tests/create-job-start-event.py"


def events(count: int) -> Iterator[Outgoing]:
    for number in range(count):
        event = job_start_event(third_party_id="acme", parser_id=f"p{number}", parameters={})
        yield Outgoing(event.get_id(), f"c{number}", event.get_type(), *encode_structured(event))


async def test_004s_script(vhost: Vhost) -> None:
    """By default to the broker that is set: persistent, whole in structured mode, in the queue when it says confirmed."""
    await vhost.declare()
    done = await run(SCRIPT, "--count", "3", environ=vhost.environ)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split(" event=")[0] for line in lines] == ["confirmed"] * 3 + ["sent: 3 x confirmed"]
    messages = await vhost.messages()
    assert len(messages) == 3
    for message in messages:
        assert (message.exchange, message.routing_key) == ("cloud-events", "network.notifi.lambda.job.start")
        assert (message.content_type, message.delivery_mode) == ("application/cloudevents+json", 2)
        _, (event,) = parse_http(message.content_type, (), message.body)
        assert isinstance(event, Event)
        assert (event.id, event.source) == (message.message_id, "network.notifi.kaniko-jobs")


async def test_which_road(vhost: Vhost) -> None:
    """What is typed wins over what is set."""
    await vhost.declare()
    nobody = "http://127.0.0.1:1"
    done = await run("-m", "builder", "publish", "--url", nobody, environ=vhost.environ)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"no answer from {nobody}" in done.stderr
    done = await run("-m", "builder", "publish", "--amqp", vhost.url, "-o", "json")
    assert (done.returncode, json.loads(done.stdout)[0]["status"]) == (0, "confirmed")
    done = await run("-m", "builder", "publish", "--amqp", vhost.url, "--mode", "binary")
    assert (done.returncode, done.stdout) == (2, "")


async def test_nowhere_to_go(vhost: Vhost) -> None:
    """The missing exchange, then the missing binding, by name and with the way out."""
    done = await run(SCRIPT, environ=vhost.environ)
    assert done.returncode == 1
    assert "has no exchange 'cloud-events' (topology declare makes it)" in done.stderr
    vhost.manage("PUT", "exchanges", "cloud-events", {"type": "topic", "durable": True})
    done = await run(SCRIPT, "--count", "20", environ=vhost.environ)
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        "no queue is bound to exchange 'cloud-events' by routing key 'network.notifi.lambda.job.start': the binding "
        "is missing (topology declare makes it)"
    ) in done.stderr


async def test_a_full_queue(vhost: Vhost) -> None:
    """``reject-publish`` refuses, and that is no success; once there is room, it goes through."""
    settings = await vhost.declare(queues={"kanikoJobs": {"overflow": "reject-publish", "maxLength": 2}})
    async with AmqpPublisher.open(settings, in_flight=1) as publisher:
        sent = [one async for one in publisher.send_all(events(20), 0.5)]
        refused = [one for one in sent if not one.accepted]
        assert len(refused) >= 15  # quorum queues let a few more in than their bound
        assert {one.status for one in refused} == {"refused"}
        late = asyncio.create_task(publisher.send(next(events(1)), 60))
        vhost.purge()
        assert (await late).accepted
    assert len(await vhost.messages()) == 1


async def test_no_exchange_ends_all_at_once(vhost: Vhost) -> None:
    """One that cannot be delivered for a reason that stays is not tried for as long as patience lasts."""
    async with AmqpPublisher.open(vhost.settings(), in_flight=10) as publisher:
        with pytest.raises(BrokerError, match="has no exchange"):
            [one async for one in publisher.send_all(events(100), 3600)]
    await vhost.declare()
    async with AmqpPublisher.open(vhost.settings(exchange="dlx")) as publisher:
        assert (await publisher.send(next(events(1)), 3600)).accepted
    async with AmqpPublisher.open(vhost.settings(exchange="amq.topic")) as publisher:
        with pytest.raises(NotRouted, match=r"bound to exchange 'amq\.topic'"):
            await publisher.send(next(events(1)), 3600)


async def test_the_broker_dies_meanwhile(vhost: Vhost) -> None:
    """SIGKILL in the middle: every event is there in the end; twice perhaps, never not."""
    settings = await vhost.declare(confirmTimeout="3s")
    confirmed = 0
    async with AmqpPublisher.open(settings, in_flight=20) as publisher:
        async for sent in publisher.send_all(events(600), 120):
            assert sent.accepted, sent
            confirmed += 1
            if confirmed == 100:
                await asyncio.to_thread(vhost.broker.kill)
                await asyncio.to_thread(vhost.broker.start)
    ids = {json.loads(message.body)["subject"] for message in await vhost.messages()}
    assert (confirmed, len(ids)) == (600, 600)
