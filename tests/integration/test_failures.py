"""The failure table (ARCHITECTURE.md) as far as a real API server can be brought to it: each failure has one owner."""

import asyncio
import json
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from control_plane import ControlPlane

from tests.contract.harness import eventually
from tests.integration.messages import build_of
from tests.integration.namespace import Namespace
from tests.integration.service import Service, Services
from tests.integration.slow_api import SlowApi

pytestmark = pytest.mark.integration

ALL_THAT_IS_USED = ("create", "get", "delete")
NO_RETRIES = {"maxRetries": 0, "maxRetryDelay": "200ms"}
"""Whatever counts against an item ends it at once."""


async def letters(service: Service) -> list[tuple[str, str, str]]:
    """The dead letters: event, reason, message."""
    document = await service.get("/async-jobs/dead-letters")
    return [(letter["event"]["id"], letter["reason"], letter["message"]) for letter in document["items"]]


async def fails(service: Service, reason: str, *, ready: int = 200) -> str:
    """Send an event that must end as a dead letter with this reason, at the first try; the message.

    ``ready`` is what readiness answers: one event's failure says nothing about the next.
    """
    assert await service.statuses(build_of("parser1")) == [202]
    result = await service.ended("parser1")
    assert (result["status"], result["reason"], result["attempts"], result["image"]) == ("failed", reason, 1, None)
    assert await letters(service) == [("parser1", reason, result["message"])]
    assert (await service.stats())["failures"] == {reason: 1}
    assert await service.readiness() == ready
    (line,) = service.logged("event_failed")
    assert (line["reason"], line["error"]) == (reason, result["message"])
    return str(result["message"])


async def test_no_permission(namespace: Namespace, services: Services, tmp_path: Path) -> None:
    """403: nobody but an admin can mend it, so the event is parked with the API server's own words.

    Every other event would end like it, so no more should come: readiness says which permissions are missing.
    """
    token = await namespace.service_account()
    service = await services.start(namespace, kubeconfig=namespace.kubeconfig(tmp_path / "nobody", token=token))

    message = await fails(service, "forbidden", ready=503)

    account = f"system:serviceaccount:{namespace.name}:builder"
    assert message == (
        f'jobs.batch is forbidden: User "{account}" cannot create resource "jobs" in API group "batch" '
        f'in the namespace "{namespace.name}"'
    )


async def test_three_permissions_are_all_that_is_used(namespace: Namespace, services: Services, tmp_path: Path) -> None:
    """As a service account that may create, get and delete Jobs and nothing else, in this namespace and no other."""
    token = await namespace.service_account(may=ALL_THAT_IS_USED)
    kubeconfig = namespace.kubeconfig(tmp_path / "builder", token=token)
    service = await services.start(namespace, kubeconfig=kubeconfig, onActiveBuild="replace")

    await service.send(build_of("parser1", "first"))
    created = await service.ended("first")
    later = build_of("parser1", "second") | {"time": "2024-01-01T00:00:01Z"}
    await service.send(later)
    replaced = await service.ended("second")

    assert (created["status"], replaced["status"]) == ("created", "created")
    assert (await service.stats())["conflicts"]["replace_active"] == 1


async def test_no_such_namespace(namespace: Namespace, services: Services) -> None:
    """404: the setting is wrong, and the message names it."""
    elsewhere = Namespace(namespace.plane, "no-such-namespace")
    service = await services.start(elsewhere)

    assert await fails(service, "namespace_not_found") == 'namespaces "no-such-namespace" not found'


async def test_a_job_that_kubernetes_will_not_have(namespace: Namespace, services: Services) -> None:
    """422: settings that contradict each other are found by the API server, which says where."""
    kaniko = {"requests": {"memory": "4Gi"}, "limits": {"memory": "2Gi"}}
    service = await services.start(namespace, kaniko=kaniko)

    message = await fails(service, "invalid_job")

    assert message.startswith('Job.batch "kaniko-job-acme-parser1" is invalid: spec.template.spec.containers[0].')
    assert message.endswith("must be less than or equal to memory limit of 2Gi")


async def test_a_full_namespace_is_waited_for(namespace: Namespace, services: Services) -> None:
    """403 "exceeded quota" is capacity: no retry is spent, nothing is parked, and room is taken as it comes."""
    await room_for(namespace, jobs=0)
    service = await services.start(namespace, asyncJobCreator=NO_RETRIES)

    await service.send(*(build_of(f"parser{number}") for number in range(5)))
    await eventually(service.stats, lambda stats: (stats["waiting"]["capacity"], stats["active_workers"]) == (5, 0))
    why = "exceeded quota: room, requested: count/jobs.batch=1, used: count/jobs.batch=0, limited: count/jobs.batch=0"
    await eventually(lambda: service.result("parser0"), lambda result: why in str(result["message"]))
    assert (await service.readiness(), await letters(service)) == (200, [])

    await room_for(namespace, jobs=3)
    await eventually(service.stats, lambda stats: stats["outcomes"]["created"] == 3)
    assert len(await namespace.jobs()) == 3
    await room_for(namespace, jobs=10)
    stats = await service.all_done(5)

    assert stats["outcomes"] == {"created": 5, "adopted": 0, "superseded": 0, "failed": 0}
    assert (stats["retries"], stats["failures"], await letters(service)) == (0, {}, [])
    assert len(await namespace.jobs()) == 5


async def test_a_full_namespace_hides_no_job(namespace: Namespace, services: Services) -> None:
    """Kubernetes looks at the quota before the name, so a redelivery is refused for want of room that it does not need."""
    before = await services.start(namespace)
    await before.send(build_of("parser1"))
    await before.ended("parser1")
    await room_for(namespace, jobs=1)
    service = await services.start(namespace, asyncJobCreator=NO_RETRIES)

    await service.send(build_of("parser1"))
    result = await service.ended("parser1", within=5)

    assert result["status"] == "adopted"


async def test_an_answer_that_got_lost(namespace: Namespace, services: Services, tmp_path: Path) -> None:
    """The create happened, its answer never came: the next try meets our own Job, and adopts it."""
    async with SlowApi.open(namespace.plane.url) as slow_api:
        kubeconfig = namespace.kubeconfig(tmp_path / "slow", server=slow_api.url)
        times = {"connectTimeout": "300ms", "requestTimeout": "300ms"}
        service = await services.start(
            namespace, kubeconfig=kubeconfig, kubernetes=times, asyncJobCreator=NO_RETRIES | {"workerCount": 1}
        )
        slow_api.hold()
        await service.send(build_of("parser1"))
        await service.until_logged("api_server_unreachable")
        slow_api.release()
        result = await service.ended("parser1")

    assert (result["status"], list(await namespace.jobs())) == ("adopted", ["kaniko-job-acme-parser1"])
    assert (await service.stats())["retries"] == 0


async def test_an_outage_of_the_api_server(namespace_apart: Namespace, services: Services, tmp_path: Path) -> None:
    """It costs no event and no retry: intake goes on, workers wait, and all goes on by itself afterwards.

    The API server dies in the middle of the work.
    """
    namespace, plane = namespace_apart, namespace_apart.plane
    token = await namespace.service_account(may=ALL_THAT_IS_USED)
    kubeconfig = namespace.kubeconfig(tmp_path / "builder", token=token)
    service = await services.start(namespace, kubeconfig=kubeconfig, asyncJobCreator=NO_RETRIES | {"workerCount": 2})
    events = [build_of(f"parser{number}") for number in range(100)]

    sending = asyncio.create_task(service.statuses(*events[:70]))
    await eventually(service.stats, lambda stats: stats["outcomes"]["created"])
    await asyncio.to_thread(plane.stop_apiserver)
    statuses = await sending + await service.statuses(*events[70:])
    await eventually(service.readiness, lambda status: status == 503)
    during = await service.stats()
    ready = await service.http.get("/health/ready")
    live = await service.http.get("/health/live")
    await asyncio.to_thread(plane.start_apiserver)
    stats = await service.all_done(len(events))

    assert statuses == [202] * len(events)
    assert sum(during["outcomes"].values()) < len(events)
    assert during["api_server"] == {"up": False, "reason": during["api_server"]["reason"], "outages": 1}
    assert ready.json()["detail"] == f"Kubernetes API server: {during['api_server']['reason']}"
    assert live.status_code == 200
    assert await service.readiness() == 200
    assert (stats["retries"], stats["failures"], await letters(service)) == (0, {}, [])
    assert stats["outcomes"]["created"] + stats["outcomes"]["adopted"] == len(events)
    assert sorted(await namespace.jobs()) == sorted(f"kaniko-job-acme-{event['id']}" for event in events)
    assert len(service.logged("api_server_unreachable")) == len(service.logged("api_server_back")) == 1
    assert service.logged("item_waits") == []


async def test_an_api_server_that_is_starting(namespace_apart: Namespace, services: Services, tmp_path: Path) -> None:
    """Until it has read its roles, a starting API server answers 403 to everybody but admins: that is no verdict.

    The service was idle through the restart and noticed nothing; its first calls wait in the listening socket and are
    the first to be answered.
    """
    namespace, plane = namespace_apart, namespace_apart.plane
    token = await namespace.service_account(may=ALL_THAT_IS_USED)
    kubeconfig = namespace.kubeconfig(tmp_path / "builder", token=token)
    service = await services.start(namespace, kubeconfig=kubeconfig, asyncJobCreator=NO_RETRIES)

    plane.stop_apiserver()
    starting = asyncio.create_task(asyncio.to_thread(plane.start_apiserver))
    await until_it_listens(plane)
    statuses = await service.statuses(*(build_of(f"parser{number}") for number in range(20)))
    stats = await service.all_done(20)
    await starting

    assert statuses == [202] * 20
    assert await letters(service) == []
    assert stats["outcomes"]["created"] + stats["outcomes"]["adopted"] == 20
    assert len(await namespace.jobs()) == 20


async def until_it_listens(plane: ControlPlane) -> None:
    """Return as soon as the kernel takes connections for the API server, which is long before it answers."""
    port = int(plane.url.rpartition(":")[2])

    async def listens() -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
        return False

    await eventually(listens, bool)


async def room_for(namespace: Namespace, *, jobs: int) -> None:
    """Set the namespace's quota of Jobs, and return when it is in force."""
    hard = {"count/jobs.batch": str(jobs)}
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "room"}, "spec": {"hard": hard}}
    await namespace.kubectl("apply", "-f", "-", stdin=json.dumps(quota))

    async def status() -> Any:
        (room,) = await namespace.read("resourcequotas")
        return room["status"]

    await eventually(status, lambda status: status.get("hard") == hard and "used" in status)
