"""SIGKILL while 64 connections send: whatever was answered 202 has its Job, and only one, however often that happens."""

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.chance import chance
from tests.integration.messages import Document, build_of
from tests.integration.namespace import Namespace
from tests.integration.sender import Sender, account
from tests.integration.service import Service, Services
from tests.integration.witness import Witness

pytestmark = pytest.mark.integration

CONNECTIONS = 64
KILLS = 10
BUSY: dict[str, Any] = {"workerCount": 16, "maxQueueSize": 10_000}


async def send_until_killed(sender: Sender, service: Service, events: Iterator[Document], answers: int) -> None:
    """One connection: an event after the other; the one that gets the last of so many answers kills the service."""
    while service.alive:
        document = next(events)
        await sender.deliver(service, document)
        if document["id"] in sender.owed:
            return
        if len(sender.accepted) >= answers:
            service.signal(signal.SIGKILL)


@pytest.mark.timeout(300)
async def test_ten_times_in_a_row(namespace_apart: Namespace, services: Services, tmp_path: Path) -> None:
    """On one journal: each service recovers what the one before it left, under the same load."""
    random = chance()
    sender = Sender()
    events = (build_of(f"parser{number}") for number in range(1_000_000))
    settings: dict[str, Any] = {"journal": tmp_path / "journal.sqlite3", "asyncJobCreator": BUSY}
    unanswered = 0

    async with Witness.open(namespace_apart) as witness:
        for _ in range(KILLS):
            service = await services.start(namespace_apart, **settings)
            answers = len(sender.accepted) + random.randrange(1, 150)
            again = sender.deliver(service, *sender.owed.values())
            load = [send_until_killed(sender, service, events, answers) for _ in range(CONNECTIONS)]
            await asyncio.gather(again, *load)
            assert await service.exit_code() == -signal.SIGKILL
            unanswered += len(sender.owed)

        service = await services.start(namespace_apart, **settings)
        await sender.redeliver(service)
        outcomes = await account(sender, service, witness)

    assert outcomes.total() == outcomes["created"] + outcomes["adopted"] == len(sender.accepted)
    jobs = await namespace_apart.jobs()
    assert sorted(name for name in jobs if name.startswith("kaniko")) == sorted(
        f"kaniko-job-acme-{name}" for name in sender.accepted
    )
    print(f"{KILLS} kills, {len(sender.accepted)} events, {unanswered} left unanswered:", dict(outcomes))  # noqa: T201
