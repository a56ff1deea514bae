"""Random events, random deaths and restarts: every accepted event comes to one end, whatever the order of things.

Longer with more histories, and one of them again with its seed:

    KNATIVE_LAMBDA_BUILDER_TEST_HISTORIES=100 scripts/test tests/integration/test_random_histories.py
    KNATIVE_LAMBDA_BUILDER_TEST_SEED=… scripts/test tests/integration/test_random_histories.py
"""

import asyncio
import os
import random
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from builder.failpoints import FAILPOINTS
from tests.contract.harness import a_job
from tests.integration.chance import chance
from tests.integration.messages import Document, build_of
from tests.integration.namespace import Namespace
from tests.integration.sender import Sender, account
from tests.integration.service import Service, Services
from tests.integration.witness import Witness

pytestmark = pytest.mark.integration

HISTORIES = int(os.environ.get("KNATIVE_LAMBDA_BUILDER_TEST_HISTORIES", "3"))
LIVES = 5
STEPS = 12
TARGETS = 4
NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)


class History:
    """What happens to the services on one journal, by chance."""

    def __init__(self, random: random.Random, witness: Witness, services: Services, journal: Path) -> None:
        self.sender = Sender()
        self.sent: list[Document] = []
        self._random = random
        self._witness = witness
        self._services = services
        self._settings: dict[str, Any] = {"journal": journal, "asyncJobCreator": {"maxRetryDelay": "200ms"}}

    async def life(self) -> None:
        """A service begins, does some of its work, and is killed: at a failpoint, or between any two instructions."""
        namespace = self._witness.namespace
        if self._random.random() < 0.7:
            point, count = self._random.choice(FAILPOINTS), self._random.randrange(1, 12)
            service = await self._services.start_doomed(namespace, point, count, **self._settings)
        else:
            service = await self._services.start(namespace, **self._settings)
        for _ in range(self._random.randrange(1, STEPS)):
            await self._step(service)
        if service.alive:
            unanswered = asyncio.create_task(self._send(service))
            for _ in range(self._random.randrange(20)):
                await asyncio.sleep(0)
            service.signal(signal.SIGKILL)
            await unanswered
        assert await service.exit_code() == -signal.SIGKILL

    async def end(self) -> Service:
        """One that is left alone, until it has done everything."""
        service = await self._services.start(self._witness.namespace, **self._settings)
        await self.sender.redeliver(service)
        return service

    async def _step(self, service: Service) -> None:
        steps = [self._send, self._send, self._send_again, self._end_some_builds]
        await self._random.choice(steps)(service)

    async def _send(self, service: Service) -> None:
        """New events, several at once."""
        fresh = [self._event(len(self.sent) + number) for number in range(self._random.randrange(1, 6))]
        self.sent += fresh
        await self.sender.deliver(service, *fresh)

    async def _send_again(self, service: Service) -> None:
        """What was not answered, and what was: brokers deliver at least once."""
        again = self._random.sample(self.sent, min(4, len(self.sent)))
        await self.sender.deliver(service, *again, *again, *self.sender.owed.values())

    async def _end_some_builds(self, _service: Service) -> None:
        await self._witness.end_running(lambda _: self._random.random() < 0.5)

    def _event(self, number: int) -> Document:
        """For one of a few targets, one of which a stranger's Job keeps; some are overtaken by later ones."""
        parser = f"parser{self._random.randrange(TARGETS)}"
        parameters = {"runtime": "cobol"} if self._random.random() < 0.1 else {}
        document = build_of(parser, event_id=f"e-{number}", **parameters)
        seconds = number + self._random.randrange(5)
        document["time"] = (NOON + timedelta(seconds=seconds, microseconds=number)).isoformat()
        document["data"]["priority"] = self._random.randrange(1, 11)
        return document


@pytest.mark.timeout(240)
@pytest.mark.parametrize("number", range(HISTORIES))
async def test_every_accepted_event_comes_to_one_end(
    namespace_apart: Namespace, services: Services, tmp_path: Path, number: int
) -> None:
    """Accepted = created + adopted + superseded + dead letters; ``account`` looks for lost and doubled ones."""
    await namespace_apart.create(a_job("kaniko-job-acme-parser0"))
    async with Witness.open(namespace_apart) as witness:
        history = History(chance(number), witness, services, tmp_path / "journal.sqlite3")

        for _ in range(LIVES):
            await history.life()
        service = await history.end()
        async with witness.builds_end_at_once():
            outcomes = await account(history.sender, service, witness)

    accepted, rejected = history.sender.accepted.keys(), history.sender.rejected.keys()
    invalid = {event["id"] for event in history.sent if "runtime" in event["data"]["parameters"]}
    refused = {event["id"] for event in history.sent if event["data"]["parser_id"] == "parser0"} - invalid
    assert accepted | rejected == {event["id"] for event in history.sent}
    assert rejected == invalid
    assert outcomes.total() == len(accepted)
    assert outcomes["failed"] == len(refused)
    print(len(history.sent), "events:", dict(outcomes), len(rejected), "rejected")  # noqa: T201 -- for the record
