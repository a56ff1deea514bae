"""``dead-letters --from amqp`` on a real RabbitMQ: looking takes nothing away, and replaying loses nothing."""

import asyncio
import json
import signal
import sys
from collections.abc import Mapping
from typing import Any

import pytest
from aio_pika import DeliveryMode, Message

from builder.adapters.rabbitmq.connection import connected
from builder.flow.letter_headers import LetterKind, LetterNote, write_note
from tests import building
from tests.broker_parts import Vhost
from tests.contract.harness import eventually
from tests.integration import shell
from tests.integration.service import ROOT, clean_environ

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]  # a busy machine takes its time

KEY = "network.notifi.lambda.job.start"
DLQ = "kaniko-jobs.dlq"


def event(number: int) -> bytes:
    data = building.EXAMPLE["data"] | {"third_party_id": f"acme{number}"}
    return json.dumps(building.EXAMPLE | {"id": f"e-{number}", "data": data}).encode()


def note(reason: str = "forbidden", exchange: str = "cloud-events", key: str = KEY) -> dict[str, Any]:
    """The headers that our consumer writes."""
    kind = LetterKind.REJECTED if reason == "invalid" else LetterKind.FAILED
    noon = building.NOON
    headers = write_note(LetterNote(kind, reason, "in its own words", "Denied 403", 2, noon, noon, exchange, key))
    return {"x-tenant": "acme", **headers}


async def publish(vhost: Vhost, *letters: tuple[bytes, Mapping[str, Any]], queue: str = DLQ, **more: Any) -> None:
    async with connected(vhost.settings()) as connection:
        exchange = (await connection.channel()).default_exchange
        for body, headers in letters:
            message = Message(
                body,
                headers=dict(headers),
                content_type="application/cloudevents+json",
                delivery_mode=DeliveryMode.PERSISTENT,
                message_id="m",
                **more,
            )
            await exchange.publish(message, queue)


async def command(vhost: Vhost, *words: str, code: int = 0) -> Any:
    """The document that the command prints."""
    done = await shell.command("dead-letters", *words, "--from", "amqp", "-o", "json", environ=vhost.environ)
    assert done.returncode == code, done.stderr + done.stdout
    return json.loads(done.stdout) if done.stdout else done.stderr


async def listed(vhost: Vhost, *filters: str) -> list[str]:
    return [letter["event"]["id"] for letter in await command(vhost, "list", *filters)]


async def test_list_and_show(vhost: Vhost) -> None:
    """The newest first, by reason, type, third party and time; what was looked at stays where it was, for ever."""
    await vhost.declare()
    await publish(vhost, (event(1), note()), (event(2), note("invalid")), (event(3), {}))
    for _ in range(3):
        assert await listed(vhost) == ["e-3", "e-2", "e-1"]
    assert await listed(vhost, "--reason", "forbidden") == ["e-1"]
    assert await listed(vhost, "--third-party-id", "acme2") == ["e-2"]
    assert await listed(vhost, "--since", "2024-01-01T12:00:00Z") == ["e-2", "e-1"]
    assert await listed(vhost, "--until", "2024-01-01T12:00:00Z") == ["e-3"]
    letter = (await command(vhost, "list", "--reason", "forbidden"))[0]
    shown = await command(vhost, "show", letter["id"], "--body")
    assert shown["data"]["data"]["parameters"]["environment"] == {"NODE_ENV": "***", "BUILD_MODE": "***"}
    del shown["data"]
    attributes = {name: value for name, value in building.EXAMPLE.items() if name not in ("data", "datacontenttype")}
    assert shown == {
        "id": letter["id"],
        "reason": "forbidden",
        "error": "Denied 403",
        "message": "in its own words",
        "errors": [],
        "event": attributes | {"id": "e-1", "time": "2024-01-01T00:00:00+00:00"},
        "third_party_id": "acme1",
        "attempts": 2,
        "first_at": "2024-01-01T12:00:00+00:00",
        "last_at": "2024-01-01T12:00:00+00:00",
        "replayed_at": None,
        "content_type": "application/cloudevents+json",
        "body_bytes": len(event(1)),
        "exchange": "cloud-events",
        "routing_key": KEY,
        "deaths": [],
    }
    assert "there is no dead letter 0123456789ab" in await command(vhost, "show", "0123456789ab", code=1)


async def test_what_the_broker_dead_lettered(vhost: Vhost) -> None:
    """Expired, over the bound: only ``x-death`` says so, and that is enough to find and to replay it."""
    await vhost.declare(queues={"kanikoJobs": {"maxLength": 1}})
    await publish(vhost, (event(1), {}), queue="kaniko-jobs", expiration=0.01)
    await eventually(lambda: listed(vhost), bool)
    await publish(vhost, (event(2), {}), (event(3), {}), queue="kaniko-jobs")
    (second, first) = await eventually(lambda: command(vhost, "list"), lambda letters: len(letters) == 2)
    assert [(one["event"]["id"], one["reason"]) for one in (first, second)] == [("e-1", "expired"), ("e-2", "maxlen")]
    assert (first["exchange"], first["routing_key"]) == ("", "kaniko-jobs")
    assert first["deaths"] == [{"reason": "expired", "queue": "kaniko-jobs", "count": 1}]
    assert await listed(vhost, "--reason", "expired") == ["e-1"]
    vhost.purge()
    assert (await command(vhost, "replay", first["id"]))["queued"] == 1
    (message,) = await vhost.messages()
    assert message.body == event(1)


async def test_replay(vhost: Vhost) -> None:
    """By the original exchange and key, as it was but marked; one that cannot go blocks none behind it."""
    await vhost.declare()
    lost = event(2), note(exchange="gone")
    nowhere = event(3), note(key="no.such.key")
    await publish(vhost, (event(1), note()), lost, nowhere, (event(4), {}), (event(5), note()))
    report = await command(vhost, "replay", "--all", code=1)
    assert report["queued"] == 2
    assert [one["message"].partition(":")[0] for one in report["rejected"]] == [
        "the broker has no exchange 'gone' (topology declare makes it)",
        "no queue is bound to exchange 'cloud-events' by routing key 'no.such.key'",
        "nothing says by which exchange and routing key it came; publish it yourself, and discard it",
    ]
    messages = await vhost.messages()
    assert [message.body for message in messages] == [event(1), event(5)]
    assert (messages[0].exchange, messages[0].routing_key, messages[0].delivery_mode) == ("cloud-events", KEY, 2)
    assert {*messages[0].headers} - {"x-delivery-count"} == {"x-tenant", "replayed"}
    assert await listed(vhost) == ["e-4", "e-3", "e-2"]


async def test_replay_what_the_filter_wants(vhost: Vhost) -> None:
    await vhost.declare()
    await publish(vhost, (event(1), note()), (event(2), note("quota")), (event(3), note()))
    assert (await command(vhost, "replay", "--all", "--reason", "quota"))["queued"] == 1
    assert [message.body for message in await vhost.messages()] == [event(2)]
    assert await listed(vhost) == ["e-3", "e-1"]


async def test_a_full_queue_stops_a_replay(vhost: Vhost) -> None:
    """What was refused is still a dead letter."""
    await vhost.declare(queues={"kanikoJobs": {"overflow": "reject-publish", "maxLength": 1}})
    await publish(vhost, *((event(number), note()) for number in range(20)))
    report = await command(vhost, "replay", "--all", code=1)
    assert "it is full" in report["stopped"]
    assert report["queued"] + len(await listed(vhost)) == 20
    assert len(await vhost.messages()) == report["queued"]


async def test_discard(vhost: Vhost) -> None:
    await vhost.declare()
    await publish(vhost, (event(1), note()), (event(2), note()))
    (_, first) = await command(vhost, "list")
    assert await command(vhost, "discard", first["id"]) == {"discarded": 1}
    assert await listed(vhost) == ["e-2"]


async def test_killed_half_way(vhost: Vhost) -> None:
    """SIGKILL in the middle of a replay: every message is in one of the queues, or in both; never in none."""
    await vhost.declare()
    await publish(vhost, *((event(number), note()) for number in range(1500)))
    words = "-m", "builder", "dead-letters", "replay", "--all", "--from", "amqp"
    environ = clean_environ(vhost.environ)
    replay = await asyncio.create_subprocess_exec(sys.executable, *words, cwd=ROOT, env=environ)

    async def replayed() -> int:
        async with connected(vhost.settings()) as connection:
            queue = await (await connection.channel()).declare_queue("kaniko-jobs", passive=True)
            return queue.declaration_result.message_count or 0

    try:
        await eventually(replayed, lambda count: count > 50, within=60)
    finally:
        replay.kill()
    assert await replay.wait() == -signal.SIGKILL

    async def everywhere() -> list[bytes]:
        return [message.body for queue in ("kaniko-jobs", DLQ) for message in await vhost.messages(queue)]

    # The broker has the unacked ones back as soon as it sees the connection gone.
    bodies = await eventually(everywhere, lambda bodies: len(set(bodies)) == 1500, within=90)
    assert len(bodies) <= 1501


async def test_no_queue(vhost: Vhost) -> None:
    assert f"the broker has no queue {DLQ} (topology declare makes it)" in await command(vhost, "list", code=1)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["list", "--from", "amqp", "--url", "http://localhost"], "--url is of a service; say --amqp for a broker"),
        (["list", "--amqp", "amqp://localhost"], "--amqp goes with --from amqp"),
        (["show", "0123456789ab"], "that ID is of a letter in the broker: say --from amqp"),
        (["list", "--reason", "expired"], "--reason must be one of"),
        (["list", "--from", "amqp", "--reason", "tired"], "--reason must be one of"),
    ],
)
async def test_asked_wrongly(words: list[str], complaint: str) -> None:
    """Exit code 2, and what to say instead."""
    done = await shell.command("dead-letters", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert complaint in done.stderr
