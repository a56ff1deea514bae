"""SIGKILL at every point between the accepted bytes and the settled row: nothing lost, nothing doubled.

The process dies there, another goes on with its journal, and the sender sends again whatever was not answered.
"""

import asyncio
import signal
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from control_plane import ControlPlane

from builder.failpoints import FAILPOINTS, OF_AMQP, Failpoint
from tests.integration.namespace import Namespace
from tests.integration.sender import Sender, account
from tests.integration.service import Services
from tests.integration.ways import every_way, surroundings, wish
from tests.integration.witness import Witness

pytestmark = pytest.mark.integration

OVER_HTTP = [point for point in FAILPOINTS if point not in OF_AMQP]

COMMITS = ("before_commit", "after_commit")
# Opening the journal commits too: later times are those of the events.
FIRST_TIMES = {point: 8 if point in COMMITS else 1 for point in OVER_HTTP}
"""Each failpoint, and at which time that it is reached the process dies."""

SIDE_BY_SIDE = 3
"""So many of them at once: most of the time of each goes by in waiting."""

NTH_TIMES = [*((point, 3) for point in OVER_HTTP), ("before_commit", 25), ("after_commit", 25)]
"""The same under load, when other events are at other points."""


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    """One journal for all services of a test, which come one after the other; and back-off that it can wait for."""
    return {"journal": tmp_path / "journal.sqlite3", "asyncJobCreator": {"maxRetryDelay": "200ms"}}


Case: TypeAlias = Callable[[Failpoint, Namespace, Services, dict[str, Any]], Awaitable[None]]


async def at_each_failpoint(case: Case, plane: ControlPlane, folder: Path) -> None:
    """Have the case at all of them, each in a namespace and with a journal of its own; what fails names the point."""
    turns = asyncio.Semaphore(SIDE_BY_SIDE)

    async def one(point: Failpoint) -> None:
        own = folder / point
        async with turns:
            own.mkdir()
            namespace = Namespace(plane, await asyncio.to_thread(plane.create_namespace, "crash"))
            settings = {"journal": own / "journal.sqlite3", "asyncJobCreator": {"maxRetryDelay": "200ms"}}
            services = Services(own)
            try:
                await case(point, namespace, services, settings)
            except BaseException as exc:
                exc.add_note(f"killed at {point}")
                raise
            finally:
                await services.close()

    async with asyncio.TaskGroup() as group:
        for point in OVER_HTTP:
            group.create_task(one(point))


@pytest.mark.timeout(600)
async def test_killed_at_each_failpoint(another_plane: ControlPlane, tmp_path: Path) -> None:
    """After the restart every event has come to the one end that it would have come to anyway."""
    await at_each_failpoint(killed_with_a_journal, another_plane, tmp_path)


async def killed_with_a_journal(
    point: Failpoint, namespace: Namespace, services: Services, settings: dict[str, Any]
) -> None:
    """Killed at the failpoint, and started again on the same journal."""
    await surroundings(namespace)
    sender = Sender()
    async with Witness.open(namespace) as witness:
        service = await services.start_doomed(namespace, point, FIRST_TIMES[point], **settings)
        await sender.deliver(service, *every_way())
        assert await service.exit_code() == -signal.SIGKILL

        service = await services.start(namespace, **settings)
        await sender.redeliver(service)
        await witness.end_builds(["kaniko-job-acme-busy"])
        outcomes = await account(sender, service, witness)
        made = await witness.made()

    assert made == Counter(["free0", "free1", "free2", "finished", "busy"])
    assert (outcomes["created"] + outcomes["adopted"], outcomes["superseded"], outcomes["failed"]) == (5, 1, 1)
    assert sender.rejected.keys() == {"invalid"}


@pytest.mark.timeout(600)
async def test_the_sender_keeps_what_was_not_answered(another_plane: ControlPlane, tmp_path: Path) -> None:
    """Custody ``sender``: the process forgets all with its death, and yet nothing is lost and nothing doubled."""
    await at_each_failpoint(killed_without_a_journal, another_plane, tmp_path)


async def killed_without_a_journal(
    point: Failpoint, namespace: Namespace, services: Services, settings: dict[str, Any]
) -> None:
    """Killed at the failpoint, and started again with nothing: the redeliveries find the Jobs that are there.

    Without a journal there are no commits, and nobody dies of them.
    """
    await surroundings(namespace)
    settings = settings | {"custody": "sender", "intake": {"custodyWait": "300ms"}}
    sender = Sender()
    async with Witness.open(namespace) as witness:
        service = await services.start_doomed(namespace, point, 1, **settings)
        await sender.deliver(service, *every_way())
        if point in COMMITS:
            service.signal(signal.SIGKILL)
        assert await service.exit_code() == -signal.SIGKILL
        answered = set(sender.accepted)
        made_before = await witness.made()

        service = await services.start(namespace, **settings)
        await witness.end_builds(["kaniko-job-acme-busy"])
        await sender.redeliver_all_but(service, "taken")
        made = await witness.made()

    # An answer came after the Job, or after a later request took its place.
    assert answered - {"newer"} <= made_before.keys()
    assert made == Counter(["free0", "free1", "free2", "finished", "busy"])
    assert sender.owed.keys() == {"taken"}, "a failed event is its sender's: no answer but 503 lets go of it"
    assert sender.rejected.keys() == {"invalid"}


def test_every_failpoint_is_tried() -> None:
    """Enumerated, not sampled: a new failpoint is in both lists by itself, and fails there if nothing reaches it."""
    assert FIRST_TIMES.keys() == set(OVER_HTTP)
    assert {point for point, _ in NTH_TIMES} == set(OVER_HTTP)


async def test_a_job_is_not_replaced_before_its_own_event_has_found_it(
    namespace_apart: Namespace, services: Services, settings: dict[str, Any], tmp_path: Path
) -> None:
    """Else a second crash, or another worker, could come while the name is free, and the event would be built again."""
    older, newer = wish(0), wish(5)
    older["data"]["priority"], newer["data"]["priority"] = 10, 1
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        away = namespace_apart.kubeconfig(tmp_path / "away", server=f"https://127.0.0.1:{nobody.getsockname()[1]}")
    settings["asyncJobCreator"]["workerCount"] = 1
    sender = Sender()
    async with Witness.open(namespace_apart) as witness:
        service = await services.start_doomed(namespace_apart, "after_create", 1, **settings)
        await sender.deliver(service, older)
        assert await service.exit_code() == -signal.SIGKILL
        await witness.end_builds(["kaniko-job-acme-parser0"])
        service = await services.start(namespace_apart, kubeconfig=away, **settings)
        await sender.deliver(service, newer)
        service.signal(signal.SIGKILL)
        assert await service.exit_code() == -signal.SIGKILL

        service = await services.start(namespace_apart, **settings)
        await sender.redeliver(service)
        await account(sender, service, witness)
        statuses = [(await service.result(event["id"]))["status"] for event in (older, newer)]

    assert statuses == ["adopted", "created"]


@pytest.mark.timeout(300)
async def test_killed_again_and_again_under_load(
    namespace_apart: Namespace, services: Services, settings: dict[str, Any]
) -> None:
    """One journal, and a service for each failpoint that dies there at the third time, be it while it recovers.

    Few targets and builds that end at once: events supersede and replace one another all the time.
    """
    sender = Sender()
    sent = 0
    async with Witness.open(namespace_apart) as witness, witness.builds_end_at_once():
        for point, count in NTH_TIMES:
            service = await services.start_doomed(namespace_apart, point, count, **settings)
            while service.alive:
                wave = [wish(number) for number in range(sent, sent + 12)]
                sent += len(wave)
                await sender.deliver(service, *wave, *list(sender.owed.values())[:20])
                assert sent < 10_000, f"{point} is never reached"
            assert await service.exit_code() == -signal.SIGKILL

        service = await services.start(namespace_apart, **settings)
        await sender.redeliver(service)
        outcomes = await account(sender, service, witness)

    assert outcomes.total() == len(sender.accepted) == sent
    assert outcomes["failed"] == 0
    print(f"{len(NTH_TIMES)} crashes, {sent} events:", dict(outcomes))  # noqa: T201 -- for the record
