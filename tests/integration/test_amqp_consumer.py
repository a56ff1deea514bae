"""Events by AMQP on a real RabbitMQ: acked when they have ended, or when their dead letter is confirmed."""

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest

from builder.adapters.memory_cluster import MemoryCluster
from builder.errors import Denied, NotSettled, Unreachable
from builder.events.parsing import BATCH_TYPE, parse_http
from builder.flow.letter_headers import LetterKind, read_note
from builder.models import Manifest, RejectReason
from builder.settings import Memory
from builder.stats import MessageEnd
from tests.amqp_parts import LETTERS, Queue, consuming
from tests.broker_parts import Vhost
from tests.contract.harness import eventually
from tests.integration.messages import binary, build_of

pytestmark = pytest.mark.integration


class SlowCluster(MemoryCluster):
    """Creates when told to, or refuses what is named ``bad…``."""

    def __init__(self) -> None:
        super().__init__(Memory())
        self.open = asyncio.Event()
        self.created: list[str] = []
        self.away = False

    async def probe(self) -> None:
        if self.away:
            msg = "connection refused"
            raise Unreachable(msg)

    async def create(self, job: Manifest) -> None:
        await self.probe()
        await self.open.wait()
        name = job["metadata"]["name"]
        if "-bad" in name:
            msg = "not like this"
            raise Denied(msg, status=422)
        await super().create(job)
        self.created.append(name)


@pytest.fixture
async def queue(vhost: Vhost) -> AsyncIterator[Queue]:
    async with Queue.declared(vhost) as queue:
        yield queue


@pytest.fixture
async def cluster() -> AsyncIterator[SlowCluster]:
    async with SlowCluster() as cluster:
        yield cluster


async def test_acked_when_the_job_exists(queue: Queue, cluster: SlowCluster) -> None:
    """Not a moment before: until then the broker has it."""
    await queue.publish(*(build_of(f"p{number}") for number in range(3)))
    async with consuming(queue.vhost, cluster) as road:
        await road.until(lambda road: road.consumer.held == 3)
        assert road.parts.stats.messages[MessageEnd.ACKED] == 0
        cluster.open.set()
        await road.until_ended(3)
        assert road.parts.stats.messages == {"acked": 3, "requeued": 0}
        assert road.parts.stats.accepted == {"queue": 3, "direct": 0}
    assert (await queue.count(), await queue.count(LETTERS)) == (0, 0)


async def test_every_encoding(queue: Queue, cluster: SlowCluster) -> None:
    """Bare names, prefixes and a batch; the batch is one message."""
    cluster.open.set()
    for number, prefix in enumerate(("", "ce-", "cloudEvents:")):
        headers, body = binary(build_of(f"p{number}"))
        named = {name.replace("ce-", prefix): value for name, value in headers.items() if name != "content-type"}
        await queue.publish(body, headers=named, content_type="application/json")
    batch = [build_of("p3"), build_of("p4"), build_of("p4")]
    await queue.publish(json.dumps(batch).encode(), content_type=BATCH_TYPE)
    async with consuming(queue.vhost, cluster) as road:
        await road.until_ended(5)
        assert road.parts.stats.messages[MessageEnd.ACKED] == 4
    assert sorted(cluster.created) == [f"kaniko-job-acme-p{number}" for number in range(5)]


async def test_a_bad_message_among_good_ones(queue: Queue, cluster: SlowCluster) -> None:
    """It is a dead letter at once, with its reason, its headers and its very bytes; the others do not notice."""
    cluster.open.set()
    rubbish = b'{"third_party_id": \xff'
    headers = {"id": "e-1", "source": "s", "type": "network.notifi.lambda.job.start", "specversion": "1.0", "x-own": 7}
    await queue.publish(build_of("p0"))
    await queue.publish(rubbish, headers=headers, content_type="application/json", message_id="m-1", expiration=3600)
    await queue.publish(build_of("p1"))
    async with consuming(queue.vhost, cluster) as road:
        await road.until_ended(2)
        (letter,) = await queue.letters(1)
        assert road.parts.stats.lettered[RejectReason.INVALID] == 1
    note = read_note(letter.headers)
    assert note is not None
    assert (note.kind, note.reason, note.exchange, note.routing_key) == (
        LetterKind.REJECTED,
        "invalid",
        "",
        "kaniko-jobs",
    )
    assert (note.problems[0].field, letter.body) == ("data", rubbish)
    assert {
        name: value for name, value in letter.headers.items() if not name.startswith(("dead-letter-", "x-d"))
    } == headers
    assert (letter.content_type, letter.message_id, letter.expiration) == ("application/json", "m-1", None)
    assert await queue.count() == 0


async def test_a_failed_event(queue: Queue, cluster: SlowCluster) -> None:
    """Acked once its letter is confirmed; its other messages with it, and there is one letter for all."""
    await queue.publish(build_of("bad"), build_of("bad"), build_of("p0"))
    async with consuming(queue.vhost, cluster) as road:
        await road.until(lambda road: road.consumer.held == 3)
        cluster.open.set()
        await road.until_ended(2)
        (letter,) = await queue.letters(1)
        assert road.parts.stats.messages[MessageEnd.ACKED] == 3
    note = read_note(letter.headers)
    assert note is not None
    assert (note.kind, note.reason, note.error, note.attempts) == (LetterKind.FAILED, "invalid_job", "Denied 422", 1)
    assert json.loads(letter.body) == build_of("bad")


async def test_the_bad_event_of_a_batch(queue: Queue, cluster: SlowCluster) -> None:
    """Each bad one is a letter of its own, as an event that can be sent again."""
    cluster.open.set()
    batch = [build_of("bad"), build_of("p1"), build_of("p2", runtime="cobol")]
    await queue.publish(json.dumps(batch).encode(), content_type=BATCH_TYPE)
    async with consuming(queue.vhost, cluster) as road:
        await road.until_ended(2)
        letters = await queue.letters(2)
    events = sorted((json.loads(letter.body) for letter in letters), key=lambda event: str(event["id"]))
    assert [(event["id"], event["data"]) for event in events] == [
        (one["id"], one["data"]) for one in (batch[0], batch[2])
    ]


async def test_without_a_dead_letter_queue(queue: Queue, cluster: SlowCluster) -> None:
    """A bad message stays with the broker until its letter can be kept, and readiness says what is missing."""
    cluster.open.set()
    await (await queue.channel()).queue_delete(LETTERS)
    await queue.publish(b"{}", build_of("p0"))
    async with consuming(queue.vhost, cluster) as road:
        await road.until(lambda road: "there is no queue kaniko-jobs.dlq" in (road.consumer.trouble or ""))
        assert "RabbitMQ: there is no queue kaniko-jobs.dlq" in (road.parts.overview.not_ready() or "")
        assert (road.consumer.held, road.outcomes()) == (1, {"created": 1})
        async with Queue.declared(queue.vhost):
            await road.until(lambda road: road.consumer.held == 0 and road.consumer.trouble is None)
            assert len(await queue.letters(1)) == 1


async def test_prefetch_is_the_queue(queue: Queue, cluster: SlowCluster) -> None:
    """What does not fit stays in the broker, and is not asked for again and again."""
    await queue.publish(*(build_of(f"p{number}") for number in range(30)))
    async with consuming(queue.vhost, cluster, asyncJobCreator={"maxQueueSize": 10}) as road:
        await road.until(lambda road: road.consumer.held == 10)
        assert await eventually(queue.count, lambda count: count == 20)
        cluster.open.set()
        await road.until_ended(30)
        assert road.parts.stats.refused.total() == 0


async def test_priorities(queue: Queue, cluster: SlowCluster) -> None:
    """They hold among what has been taken: the only worker has the first, and then takes the most urgent."""
    await queue.publish(build_of("first"))
    async with consuming(queue.vhost, cluster, asyncJobCreator={"workerCount": 1}) as road:
        await road.until(lambda road: road.parts.overview.gauges().workers_busy == 1)
        for priority in (9, 3, 10, 1, 5):
            event = build_of(f"p{priority}")
            event["data"]["priority"] = priority
            await queue.publish(event)
        await road.until(lambda road: road.parts.overview.gauges().queue_size == 5)
        cluster.open.set()
        await road.until_ended(6)
    assert cluster.created == [f"kaniko-job-acme-{name}" for name in ("first", "p1", "p3", "p5", "p9", "p10")]


async def test_stopping(queue: Queue, cluster: SlowCluster) -> None:
    """Nothing is acked that is not settled, and what is not goes to the next."""
    await queue.publish(*(build_of(f"p{number}") for number in range(20)))
    async with consuming(queue.vhost, cluster, asyncJobCreator={"maxQueueSize": 10}) as road:
        await road.until(lambda road: road.consumer.held == 10)
    assert await eventually(queue.count, lambda count: count == 20)
    cluster.open.set()
    async with consuming(queue.vhost, cluster) as road:
        await road.until_ended(20)
    assert (len(cluster.created), await queue.count()) == (20, 0)


async def test_set_aside_items_make_room(queue: Queue, cluster: SlowCluster) -> None:
    """Those that wait for other builds keep their messages, and do not keep others from coming."""
    cluster.open.set()
    policy = {"maxQueueSize": 4, "retryDelay": "30s"}
    await queue.publish(*(build_of(f"p{number}", event_id=f"old-{number}") for number in range(10)))
    async with consuming(queue.vhost, cluster, asyncJobCreator=policy) as road:
        await road.until_ended(10)
        later = [
            dict(build_of(f"p{number}", event_id=f"new-{number}"), time="2025-01-01T00:00:00Z") for number in range(10)
        ]
        await queue.publish(*later, build_of("free"))
        await road.until(lambda road: road.outcomes()["created"] == 11)
        assert cluster.created[-1] == "kaniko-job-acme-free"
        await road.until(lambda road: (road.consumer.held, road.parts.stats.messages[MessageEnd.ACKED]) == (10, 11))
    assert await eventually(queue.count, lambda count: count == 10)


async def test_held_for_long(queue: Queue, cluster: SlowCluster) -> None:
    """Before the broker loses its patience the message goes back, and comes again to the same event."""
    await queue.publish(build_of("p0"), build_of("p1"))
    async with consuming(queue.vhost, cluster, rabbitmq={"consumerTimeout": "200ms"}) as road:
        await road.until(lambda road: road.parts.stats.redelivered >= 4)
        assert road.parts.stats.accepted.total() == 2
        cluster.open.set()
        await road.until_ended(2)
    assert (len(cluster.created), await queue.count()) == (2, 0)


async def test_held_in_an_outage(queue: Queue, cluster: SlowCluster) -> None:
    """Nothing is taken while no Job can be made, or each round would count towards the broker's limit."""
    cluster.away = True
    cluster.open.set()
    await queue.publish(build_of("p0"), build_of("p1"))
    async with consuming(queue.vhost, cluster, rabbitmq={"consumerTimeout": "200ms"}) as road:
        await road.until(lambda road: road.parts.stats.accepted.total() == 2)
        await eventually(queue.count, lambda count: count == 2)
        assert (road.consumer.held, road.consumer.trouble) == (0, None)
        cluster.away = False
        await road.until_ended(2)
        await road.until(lambda road: road.parts.stats.redelivered == 2 and road.consumer.held == 0)
    assert (len(cluster.created), await queue.count()) == (2, 0)


async def test_custody_broker_takes_nothing_over_http(queue: Queue, cluster: SlowCluster) -> None:
    """A 503, which a Knative broker takes for "later"; the other routes stay."""
    async with (
        consuming(queue.vhost, cluster, server={"host": "127.0.0.1", "port": 0}) as road,
        road.parts.listening() as url,
        httpx.AsyncClient(base_url=url, trust_env=False) as client,
    ):
        await road.until_consuming()
        for headers, body in (binary(build_of("p0")), ({"content-type": "text/plain"}, b"?")):
            answer = await client.post("/", headers=headers, content=body)
            assert (answer.status_code, answer.json()["detail"]) == (
                503,
                "events are taken from RabbitMQ only (setting custody: broker)",
            )
        assert (await client.get("/health/ready")).status_code == 200
        stats = (await client.get("/async-jobs/stats")).json()
        assert (stats["refused"]["http_off"], stats["broker"]["up"]) == (2, True)


async def test_by_both_roads(queue: Queue, cluster: SlowCluster) -> None:
    """The same event over HTTP and by AMQP is one Job, whichever comes first; a message waits for HTTP's end of it."""
    cluster.open.set()
    async with consuming(queue.vhost, cluster, custody="sender") as road:
        await road.until_consuming()
        for number in range(2):
            event = parse_http(
                None, binary(build_of(f"p{number}"))[0].items(), binary(build_of(f"p{number}"))[1]
            ).items[0]
            if number == 0:
                await road.parts.intake.offer(event)
            await queue.publish(build_of(f"p{number}"))
            await road.until(lambda road: road.parts.stats.messages[MessageEnd.ACKED] == number + 1)  # noqa: B023
            await road.parts.intake.offer(event)
        cluster.open.clear()
        event = parse_http(None, binary(build_of("bad"))[0].items(), binary(build_of("bad"))[1]).items[0]
        offer = asyncio.create_task(road.parts.intake.offer(event))
        await road.until(lambda road: road.parts.pool.unfinished())
        await queue.publish(build_of("bad"))
        await road.until(lambda road: road.consumer.held == 1)
        cluster.open.set()
        with pytest.raises(NotSettled):
            await offer
        (letter,) = await queue.letters(1)
        assert letter.redelivered is False
        assert road.parts.stats.messages == {MessageEnd.ACKED: 3, MessageEnd.REQUEUED: 1}
    assert cluster.created == ["kaniko-job-acme-p0", "kaniko-job-acme-p1"]
