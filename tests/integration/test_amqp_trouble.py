"""The road from the broker when something goes wrong on it: nothing is lost, nothing doubled, and it says what is wrong."""

import asyncio
import json
import struct
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pamqp.encode
import pytest
from broker import Broker

from builder.adapters.memory_cluster import MemoryCluster
from builder.models import Manifest, identity_of
from builder.settings import Memory
from tests.amqp_parts import LETTERS, Queue, Road, consuming
from tests.broker_parts import Vhost
from tests.contract.harness import a_job, eventually
from tests.integration.messages import build_of
from tests.tcp_proxy import TcpProxy

pytestmark = [
    pytest.mark.integration,
    # Of the sender here: connections to a server that is killed may be left to be collected.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]

BAD = b"no event"


class CountingCluster(MemoryCluster):
    """Knows how often each Job was made, and may take its time."""

    def __init__(self) -> None:
        super().__init__(Memory())
        self.made: Counter[str] = Counter()
        self.open = asyncio.Event()
        self.open.set()
        self.pause = 0.0

    async def create(self, job: Manifest) -> None:
        await self.open.wait()
        await asyncio.sleep(self.pause)
        await super().create(job)
        self.made[job["metadata"]["name"]] += 1


def once(count: int) -> Counter[str]:
    """Each of the Jobs, made once."""
    return Counter(f"kaniko-job-acme-p{number}" for number in range(count))


def identity(event_id: str) -> bytes:
    """Of an event that a test sent."""
    return identity_of(build_of(event_id)["source"], event_id)


@pytest.fixture
async def cluster() -> AsyncIterator[CountingCluster]:
    async with CountingCluster() as cluster:
        yield cluster


@pytest.fixture
async def queue(vhost: Vhost) -> AsyncIterator[Queue]:
    async with Queue.declared(vhost) as queue:
        yield queue


@pytest.fixture(scope="module")
def mortal(broker: Broker) -> Iterator[Broker]:  # noqa: ARG001 -- says whether there can be one
    """A broker of this module's own, which may be killed."""
    with Broker() as mortal:
        yield mortal


@pytest.fixture
async def mortal_queue(mortal: Broker) -> AsyncIterator[Queue]:
    mortal.start()
    vhost = Vhost(mortal, mortal.create_vhost("test"))
    async with Queue.declared(vhost) as queue:
        await queue.on_disk()
        yield queue


def through(proxy: TcpProxy, vhost: Vhost) -> dict[str, str]:
    """The settings of the way through the proxy, on which silence is noticed soon."""
    port = urlsplit(vhost.url).port
    return {"url": vhost.url.replace(f":{port}/", f":{proxy.port}/"), "heartbeat": "1s"}


@asynccontextmanager
async def on_the_way(queue: Queue, cluster: CountingCluster) -> AsyncIterator[tuple[TcpProxy, Road]]:
    """A service that consumes through a proxy."""
    async with (
        TcpProxy.open(queue.vhost.broker.port) as proxy,
        consuming(queue.vhost, cluster, rabbitmq=through(proxy, queue.vhost)) as road,
    ):
        yield proxy, road


async def test_killed_under_load(mortal: Broker, mortal_queue: Queue, cluster: CountingCluster) -> None:
    """Kill -9 of the broker: what it had it has again, what had ended is not begun anew."""
    cluster.pause = 0.01
    await mortal_queue.publish(*(build_of(f"p{number}") for number in range(300)))
    async with consuming(mortal_queue.vhost, cluster) as road:
        await road.until(lambda _: cluster.made.total() >= 100)
        await asyncio.to_thread(mortal.kill)
        await road.until(lambda road: "RabbitMQ: rabbitmq.url: no broker at" in (road.parts.overview.not_ready() or ""))
        await asyncio.to_thread(mortal.start)
        await road.until(lambda _: cluster.made.total() == 300, within=60)
        await road.until(lambda road: road.consumer.held == 0 and road.consumer.ready == 0)
        assert road.parts.overview.not_ready() is None
    assert cluster.made == once(300)
    assert (await mortal_queue.count(), await mortal_queue.count(LETTERS)) == (0, 0)


async def test_away_at_the_start(mortal: Broker, mortal_queue: Queue, cluster: CountingCluster) -> None:
    """The service starts all the same, and begins when the broker comes."""
    await mortal_queue.publish(build_of("p0"))
    await asyncio.to_thread(mortal.stop)
    async with consuming(mortal_queue.vhost, cluster) as road:
        await road.until(lambda road: "no broker at" in (road.consumer.trouble or ""))
        await asyncio.to_thread(mortal.start)
        await road.until_ended(1, within=60)
    assert cluster.made == once(1)


async def test_memory_alarm(mortal: Broker, mortal_queue: Queue, cluster: CountingCluster) -> None:
    """The broker reads nothing from those who publish: acks go through all the same, and the letter once it is over."""
    await mortal_queue.publish(build_of("p0"), BAD, build_of("p1"), BAD)
    cluster.open.clear()
    async with consuming(mortal_queue.vhost, cluster) as road:
        await mortal_queue.letters(2)
        await road.until(lambda road: road.consumer.held == 2)
        await mortal_queue.publish(BAD)
        await mortal_queue.letters(1)  # the letters' connection has published, so it will be blocked
        await asyncio.to_thread(mortal.ctl, "set_vm_memory_high_watermark", "0.00001")
        try:
            sender = asyncio.create_task(mortal_queue.publish(BAD))
            cluster.open.set()
            await road.until(lambda road: road.outcomes() == {"created": 2} and road.consumer.held == 0)
        finally:
            await asyncio.to_thread(mortal.ctl, "set_vm_memory_high_watermark", "0.6")
        await sender
        assert len(await mortal_queue.letters(1)) == 1
    assert await mortal_queue.count() == 0


async def test_consumer_timeout(mortal: Broker, mortal_queue: Queue, cluster: CountingCluster) -> None:
    """The broker closes the channel over a message that is held too long: it comes again and joins its event."""
    cluster.open.clear()
    for setting in ("consumer_timeout", "channel_tick_interval"):
        await asyncio.to_thread(mortal.ctl, "eval", f"application:set_env(rabbit, {setting}, 500).")
    try:
        await mortal_queue.publish(build_of("p0"), build_of("p1"))
        async with consuming(mortal_queue.vhost, cluster) as road:
            await road.until(lambda road: road.parts.stats.redelivered >= 2)
            assert road.parts.stats.accepted.total() == 2
            cluster.open.set()
            await road.until_ended(2)
    finally:
        await asyncio.to_thread(mortal.ctl, "eval", "application:set_env(rabbit, consumer_timeout, 1800000).")
    assert cluster.made == once(2)
    assert await mortal_queue.count() == 0


@pytest.mark.parametrize("fault", ["cut", "silence"])
async def test_network(queue: Queue, cluster: CountingCluster, fault: str) -> None:
    """A cut under load, and a network that swallows everything and says nothing. Bad messages are among the good ones."""
    cluster.pause = 0.01
    good = [build_of(f"p{number}") for number in range(100)]
    await queue.publish(*good[:50], BAD, *good[50:])
    async with on_the_way(queue, cluster) as (proxy, road):
        await road.until(lambda _: cluster.made.total() >= 30)
        if fault == "cut":
            proxy.cut()
        else:
            proxy.silence()
            await road.until(lambda road: "connection to the broker was lost" in (road.consumer.trouble or ""))
            proxy.cut()
        await road.until(lambda road: cluster.made.total() == 100 and road.consumer.held == 0, within=40)
        await road.until(lambda road: road.consumer.trouble is None and road.consumer.ready == 0)
        assert len(await queue.letters(1)) == 1
    assert cluster.made == once(100)
    assert (await eventually(queue.count, lambda count: count == 0), await queue.count(LETTERS)) == (0, 0)


async def test_held_until_its_ack_is_heard(queue: Queue, cluster: CountingCluster) -> None:
    """An ack on its way can be lost, and then the event comes again: nobody may replace its Job before."""
    cluster.open.clear()
    await queue.publish(build_of("p0"))
    async with on_the_way(queue, cluster) as (proxy, road):
        await road.until(lambda road: road.consumer.held == 1)
        proxy.delay = 0.2
        cluster.open.set()
        await road.until_ended(1)
        assert not await road.consumer.holds(identity("p0"))
        proxy.cut()
        proxy.delay = 0
        await road.until(lambda road: road.consumer.trouble is not None)
        await road.until_consuming()
        await queue.publish(build_of("p1"))
        await road.until_ended(2)
        assert road.parts.stats.redelivered == 0


async def test_held_until_it_has_come_again(queue: Queue, cluster: CountingCluster) -> None:
    """Its ack was lost with the connection. Who waits for its Job waits on until it is acked anew, and no longer."""
    cluster.open.clear()
    later = build_of("p0", "later") | {"time": "2999-01-01T00:00:00Z"}
    await queue.publish(build_of("p0"), later)
    async with on_the_way(queue, cluster) as (proxy, road):
        await road.until(lambda road: road.consumer.held == 2)
        proxy.silence()
        cluster.open.set()
        await road.until(lambda road: road.outcomes() == {"created": 1})
        proxy.cut()
        await road.until(lambda road: road.consumer.trouble is not None)
        assert await road.consumer.holds(identity("p0"))
        await road.until_ended(2)
        assert road.parts.stats.redelivered == 2
        assert not await road.consumer.holds(identity("p0"))
    assert cluster.made == {"kaniko-job-acme-p0": 2}
    assert await queue.count() == 0


async def test_slow_network(queue: Queue, cluster: CountingCluster) -> None:
    """Many at once make up for it."""
    await queue.publish(*(build_of(f"p{number}") for number in range(200)))
    async with TcpProxy.open(queue.vhost.broker.port) as proxy:
        proxy.delay = 0.05
        async with consuming(queue.vhost, cluster, rabbitmq=through(proxy, queue.vhost)) as road:
            await road.until_ended(200)
            assert proxy.accepted == 1
    assert cluster.made == once(200)
    assert await queue.count() == 0


async def test_cut_again_and_again(queue: Queue, cluster: CountingCluster) -> None:
    """Every cut comes at another point."""
    cluster.pause = 0.002
    await queue.publish(*(build_of(f"p{number}") for number in range(300)))
    async with on_the_way(queue, cluster) as (proxy, road):
        for cuts in range(1, 8):
            enough = cuts * 35
            await road.until(lambda road: cluster.made.total() >= enough and road.consumer.trouble is None)  # noqa: B023 -- awaited here
            proxy.cut()
        await road.until(lambda road: cluster.made.total() == 300 and road.consumer.held == 0, within=40)
        await road.until(lambda road: road.consumer.ready == 0)
    assert cluster.made == once(300)
    assert (await eventually(queue.count, lambda count: count == 0), await queue.count(LETTERS)) == (0, 0)


async def test_failed_after_the_cut(queue: Queue, cluster: CountingCluster) -> None:
    """An event fails while nobody holds its message: whoever has the message ends it, with one letter."""
    await queue.publish(build_of("p0"))
    cluster.open.clear()
    async with on_the_way(queue, cluster) as (proxy, road):
        await road.until(lambda road: road.parts.stats.accepted.total() == 1)
        await MemoryCluster.create(cluster, a_job("kaniko-job-acme-p0"))
        await proxy.refuse()
        proxy.cut()
        await road.until(lambda road: road.consumer.trouble is not None and road.consumer.held == 0)
        cluster.open.set()
        await road.until(lambda road: not road.parts.pool.unfinished())
        assert road.outcomes() == {}
        await proxy.listen()
        (letter,) = await queue.letters(1)
        assert road.outcomes() == {"failed": 1}
    assert letter.headers["dead-letter-reason"] == "name_taken"
    assert await queue.count() == 0


async def test_queue_deleted(queue: Queue, cluster: CountingCluster) -> None:
    """The consumer is cancelled; when the queue is there again, so are we."""
    async with consuming(queue.vhost, cluster) as road:
        await road.until_consuming()
        await (await queue.channel()).queue_delete("kaniko-jobs")
        await road.until(lambda road: "no queue 'kaniko-jobs'" in (road.consumer.trouble or ""))
        async with Queue.declared(queue.vhost) as anew:
            await anew.publish(build_of("p0"))
            await road.until_ended(1)
    assert cluster.made == once(1)


async def test_no_way_in(queue: Queue, cluster: CountingCluster, capsys: pytest.CaptureFixture[str]) -> None:
    """An account and a vhost that come later: told once each, without the password, and mended by themselves."""
    broker = queue.vhost.broker
    user, vhost = f"u-{queue.vhost.name}", f"v-{queue.vhost.name}"
    url = broker.url_of(vhost).replace("guest:guest", f"{user}:s3cret")
    async with consuming(queue.vhost, cluster, rabbitmq={"url": url}) as road:
        await road.until(lambda road: "refuses the user or the password" in (road.consumer.trouble or ""))
        broker.manage("PUT", f"/api/users/{user}", {"password": "s3cret", "tags": ""})
        await road.until(lambda road: "there is no such vhost" in (road.consumer.trouble or ""))
        broker.manage("PUT", f"/api/vhosts/{vhost}")
        for name in (user, "guest"):
            broker.manage("PUT", f"/api/permissions/{vhost}/{name}", {"configure": ".*", "write": ".*", "read": ".*"})
        await road.until(lambda road: "no queue 'kaniko-jobs'" in (road.consumer.trouble or ""))
        async with Queue.declared(Vhost(broker, vhost)):
            await road.until_consuming()
        broker.delete_vhost(vhost)
    told = capsys.readouterr().out
    assert "s3cret" not in told
    assert told.count("refuses the user or the password") == 1


async def test_tls(queue: Queue, cluster: CountingCluster) -> None:
    """With the authority and a certificate of our own it works, without it is told; of several hosts one must be there."""
    broker = queue.vhost.broker
    url = broker.url_of(queue.vhost.name, tls=True)
    async with consuming(queue.vhost, cluster, rabbitmq={"url": url}) as road:
        await road.until(lambda road: "rabbitmq.tls.caFile" in (road.consumer.trouble or ""))
    tls = {"caFile": str(broker.ca_file), "certFile": str(broker.cert_file), "keyFile": str(broker.key_file)}
    both = {"url": f"amqps://guest:guest@127.0.0.1:1/x,{url}", "tls": tls}
    await queue.publish(build_of("p0"), BAD)
    async with consuming(queue.vhost, cluster, rabbitmq=both) as road:
        await road.until_ended(1)
        assert len(await queue.letters(1)) == 1


async def test_what_the_broker_throws_out(vhost: Vhost) -> None:
    """Over the bound, expired, tried too often: each is found in the dead letters, with the broker's reason."""
    bounds = {"maxLength": 3, "messageTtl": 60_000, "deliveryLimit": 2}
    async with Queue.declared(vhost, kanikoJobs=bounds) as queue:
        await queue.publish(*(build_of(f"p{number}") for number in range(5)), together=1)
        letters = await queue.letters(2)
        assert [(json.loads(letter.body)["id"], reason_of(letter.headers)) for letter in letters] == [
            ("p0", "maxlen"),
            ("p1", "maxlen"),
        ]
        jobs = await (await queue.channel()).get_queue("kaniko-jobs", ensure=False)
        for _ in range(3):
            message = await jobs.get()
            await message.nack(requeue=True)
            while message.headers["x-delivery-count"] != 2:
                message = await jobs.get()
                await message.nack(requeue=True)
        letters = await queue.letters(3)
        assert {reason_of(letter.headers) for letter in letters} == {"delivery_limit"}
        await queue.publish(build_of("late"), expiration=0.05)
        (letter,) = await queue.letters(1)
        assert reason_of(letter.headers) == "expired"


async def test_reject_publish(vhost: Vhost, cluster: CountingCluster) -> None:
    """The other mode: the publisher is told, and what was confirmed is built."""
    async with Queue.declared(vhost, kanikoJobs={"maxLength": 3, "overflow": "reject-publish"}) as queue:
        refused = 0
        for number in range(10):
            try:
                await queue.publish(build_of(f"p{number}"))
            except Exception:  # noqa: BLE001 -- aio-pika's own
                refused += 1
        assert refused > 0
        async with consuming(vhost, cluster) as road:
            await road.until_ended(10 - refused)
        assert (cluster.made.total(), await queue.count(LETTERS)) == (10 - refused, 0)


def reason_of(headers: Mapping[str, Any]) -> str:
    """The broker's, of the latest death."""
    deaths = headers["x-death"]
    assert isinstance(deaths, list)
    return str(deaths[0]["reason"])


async def test_a_message_that_no_client_can_read(vhost: Vhost, cluster: CountingCluster) -> None:
    """It ends the connection each time that it comes, until the broker gives it up: that one, and no other."""
    async with Queue.declared(vhost, kanikoJobs={"deliveryLimit": 6}) as queue:
        await _one_among_others(queue, cluster)


async def _one_among_others(queue: Queue, cluster: CountingCluster) -> None:
    await queue.publish(*(build_of(f"p{number}") for number in range(20)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(pamqp.encode.METHODS, "timestamp", lambda _: struct.pack(">Q", 2**62))
        await queue.publish(build_of("unreadable"), timestamp=0)
    await queue.publish(*(build_of(f"p{number}") for number in range(20, 40)))
    async with consuming(queue.vhost, cluster) as road:
        await road.until_ended(40, within=40)
        await eventually(lambda: queue.count(LETTERS), lambda count: count == 1, within=40)
        await road.until(lambda road: road.consumer.trouble is None)
    assert cluster.made == once(40)
    assert (await queue.count(), await queue.count(LETTERS)) == (0, 1)
