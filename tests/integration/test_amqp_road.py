"""The whole road as people walk it: broker, ``topology``, ``serve``, ``publish``, ``dead-letters``."""

import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.broker_parts import Vhost
from tests.contract.harness import eventually
from tests.integration import shell
from tests.integration.service import Service

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]  # a busy machine takes its time


@asynccontextmanager
async def serving(vhost: Vhost, folder: Path, **environ: str) -> AsyncIterator[Service]:
    """The service on the embedded cluster, as a process."""
    more = {"BUILDER_JOURNAL__PATH": str(folder / "journal.sqlite3"), "BUILDER_LOGGING__FORMAT": "json"}
    service = Service.spawn(folder / "log", "--cluster=memory", "--port=0", environ=vhost.environ | more | environ)
    try:
        await service.listening()
        yield service
    finally:
        await service.close()


async def builder(vhost: Vhost, *words: str) -> Any:
    """What a command prints, as JSON."""
    done = await shell.command(*words, "-o", "json", environ=vhost.environ)
    return json.loads(done.stdout)


async def letters(vhost: Vhost) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = await builder(vhost, "dead-letters", "list", "--from", "amqp")
    return found


async def test_from_publish_to_outcome_and_to_dead_letter(vhost: Vhost, tmp_path: Path) -> None:
    """What is published is built, and ``--wait`` sees it; what is wrong is found, replayed, and comes back anew."""
    await builder(vhost, "topology", "declare")
    async with serving(vhost, tmp_path) as service:
        await service.until_logged("topology")
        sent = await builder(vhost, "publish", "--amqp", vhost.url, "--url", service.url, "--count", "5", "--wait")
        assert [(one["status"], one["outcome"]["status"]) for one in sent] == [("confirmed", "created")] * 5
        (bad,) = await builder(vhost, "publish", "--amqp", vhost.url, "--priority", "11")
        (letter,) = await eventually(lambda: letters(vhost), bool)
        assert (letter["event"]["id"], letter["reason"]) == (bad["event_id"], "invalid")
        assert letter["errors"] == [
            {"field": "data.priority", "message": "must be a whole number from 1 (first) to 10"}
        ]
        assert (letter["exchange"], letter["routing_key"]) == ("cloud-events", "network.notifi.lambda.job.start")
        assert (await builder(vhost, "dead-letters", "replay", letter["id"], "--from", "amqp"))["queued"] == 1
        (again,) = await eventually(lambda: letters(vhost), lambda found: found and found[0]["id"] != letter["id"])
        assert (again["event"]["id"], again["reason"]) == (bad["event_id"], "invalid")
        assert again["last_at"] > letter["last_at"]
        stats = await service.stats()
        assert (stats["accepted"], stats["rejected"]["invalid"]) == ({"queue": 5, "direct": 0}, 2)


async def test_a_phase_without_the_queue(vhost: Vhost, tmp_path: Path) -> None:
    """``intake.flows: direct`` parks what comes by the queue; the way back is the setting and a replay."""
    await builder(vhost, "topology", "declare")
    async with serving(vhost, tmp_path, BUILDER_INTAKE__FLOWS="direct"):
        await builder(vhost, "publish", "--amqp", vhost.url)
        (letter,) = await eventually(lambda: letters(vhost), bool)
        assert letter["reason"] == "queue-disabled"
    async with serving(vhost, tmp_path) as service:
        assert (await builder(vhost, "dead-letters", "replay", "--all", "--from", "amqp"))["queued"] == 1
        await service.all_done(1)
        assert (await service.stats())["outcomes"]["created"] == 1
    assert await letters(vhost) == []


async def test_least_privilege(vhost: Vhost, tmp_path: Path) -> None:
    """An account that may read and write, and declare nothing, can build; it is only said that it cannot look."""
    await builder(vhost, "topology", "declare")
    broker, name = vhost.broker, f"worker-{vhost.name}"
    broker.manage("PUT", f"/api/users/{name}", {"password": "s3cret", "tags": ""})
    rights = {"configure": "^$", "write": ".*", "read": ".*"}
    broker.manage("PUT", f"/api/permissions/{vhost.name}/{name}", rights)
    url = vhost.url.replace("guest:guest", f"{name}:s3cret")
    more = {"BUILDER_RABBITMQ__URL": url, "BUILDER_RABBITMQ__MANAGEMENT_URL": broker.management_url + "/nowhere"}
    async with serving(vhost, tmp_path, **more) as service:
        await builder(vhost, "publish", "--amqp", url)
        await service.all_done(1)
        (line,) = await service.until_logged("topology_not_seen")
        assert "ACCESS_REFUSED" in line["detail"]
        assert "s3cret" not in service.text()
    broker.manage("DELETE", f"/api/users/{name}")


async def test_serve_says_what_loses_events(vhost: Vhost, tmp_path: Path) -> None:
    """The same as ``topology check``, in the log, before anything is lost."""
    await builder(vhost, "topology", "declare")
    vhost.manage("DELETE", "queues", "kaniko-jobs.dlq")
    vhost.manage("DELETE", "exchanges", "dlx")
    async with serving(vhost, tmp_path) as service:
        lines = await service.until_logged("topology_loses_events")
        assert [line["what"] for line in service.logged("topology_loses_events")][:2] == [
            "exchange dlx",
            "queue kaniko-jobs.dlq",
        ]
        assert lines[0]["way_out"] == "topology declare makes it"


async def test_what_a_drain_leaves_goes_back_to_the_broker(vhost: Vhost, tmp_path: Path) -> None:
    """It is no loss and not told as one: the broker has it again before the process has ended."""
    await builder(vhost, "topology", "declare")
    slow = {"BUILDER_MEMORY__BUILD_TIME": "1h", "BUILDER_ASYNC_JOB_CREATOR__DRAIN_TIMEOUT": "100ms"}
    async with serving(vhost, tmp_path, **slow) as service:
        await builder(vhost, "publish", "--amqp", vhost.url)
        await service.all_done(1)
        (waits,) = await builder(vhost, "publish", "--amqp", vhost.url)
        await eventually(service.stats, lambda stats: stats["waiting"]["active_build"] == 1)
        service.signal(signal.SIGTERM)
        assert await service.exit_code() == 0
        assert [line["event_id"] for line in service.logged("left_to_broker")] == [waits["event_id"]]
        assert service.logged("left_unfinished") == []
    assert [message.message_id for message in await vhost.messages()] == [waits["event_id"]]
