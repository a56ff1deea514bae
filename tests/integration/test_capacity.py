"""Namespaces that are full or have limits, on the real API server with its quota and Job controllers."""

import json
from collections import Counter
from typing import Any

import pytest

from builder.jobs import labels
from tests.contract.harness import eventually
from tests.integration.messages import Document, build_of
from tests.integration.namespace import Namespace
from tests.integration.service import Service, Services
from tests.integration.test_failures import letters, room_for

pytestmark = pytest.mark.integration

MANY = 300
PARTIES = ("acme", "globex", "initech")
WIDE: dict[str, Any] = {"maxQueueSize": MANY, "maxRetries": 0}


def builds(count: int) -> list[Document]:
    """Events for so many targets; the first third party has most of them, the others thirty between them."""
    documents = [build_of(f"parser{number}") for number in range(count)]
    for number, document in enumerate(documents[-30:]):
        document["data"]["third_party_id"] = PARTIES[1 + number % 2]
    return documents


async def calls(service: Service) -> Counter[str]:
    """How often Jobs were asked for or read, as the metrics have it."""
    text = (await service.http.get("/metrics")).text
    found: Counter[str] = Counter()
    for line in text.splitlines():
        if line.startswith("knative_lambda_builder_api_calls_total{") and "probe" not in line:
            found[line.partition("{")[2].partition("}")[0]] = int(float(line.rpartition(" ")[2]))
    return found


async def test_hundreds_wait_and_one_asks(namespace_apart: Namespace, services: Services) -> None:
    """While the namespace is full: no worker is held, no storm of calls, and people see which quota it is.

    When there is room, as many are built as fit, third parties in turns; in the end all are.
    """
    namespace = namespace_apart
    await room_for(namespace, jobs=0)
    service = await services.start(namespace, asyncJobCreator=WIDE)
    await service.statuses(*builds(MANY))
    full = await eventually(service.stats, lambda stats: stats["waiting"]["capacity"] >= MANY - 1, within=60)
    at_first = (await calls(service)).total()
    asked = 'answer="quota",call="create"'
    begun = (await calls(service))[asked]
    await eventually(lambda: calls(service), lambda now: now[asked] >= begun + 3)
    meanwhile = (await calls(service)).total() - at_first
    await room_for(namespace, jobs=60)
    await eventually(namespace.jobs, lambda jobs: len(jobs) == 60)
    parties = Counter(
        job["metadata"]["annotations"][labels.THIRD_PARTY_ID] for job in (await namespace.jobs()).values()
    )
    await room_for(namespace, jobs=500)
    stats = await service.all_done(MANY, within=60)

    assert (full["active_workers"] <= 1, await service.readiness()) == (True, 200)
    assert "exceeded quota: room, requested: count/jobs.batch=1" in full["quota"]
    assert at_first <= MANY + 2 * full["worker_count"] + 10
    assert meanwhile <= 10  # two for each time that one asked, not three hundred
    assert (parties["globex"], parties["initech"]) == (15, 15)
    assert (stats["outcomes"]["created"], stats["retries"], stats["quota"]) == (MANY, 0, None)
    assert await letters(service) == []
    assert len(await namespace.jobs()) == MANY


@pytest.mark.parametrize("resource", ["requests.cpu", "limits.memory"])
async def test_a_quota_of_cpu_or_memory_holds_the_pods(namespace: Namespace, services: Services, resource: str) -> None:
    """Kubernetes takes all Jobs, and makes their Pods as room comes: no event fails, and none is tried again."""
    hard = {resource: {"requests.cpu": "1", "limits.memory": "4Gi"}[resource]}  # two builds of the default size
    await namespace.kubectl("create", "quota", "narrow", f"--hard={resource}={hard[resource]}")
    service = await services.start(namespace)

    await service.statuses(*(build_of(f"parser{number}") for number in range(3)))
    stats = await service.all_done(3)
    held = await eventually(lambda: namespace.events("FailedCreate"), bool)
    pods = await eventually(lambda: namespace.read("pods"), lambda pods: len(pods) == 2)
    await namespace.kubectl("delete", "quota", "narrow")

    assert stats["outcomes"]["created"] == 3
    assert "exceeded quota: narrow" in held[0]
    assert len(pods) == 2
    assert len(await eventually(lambda: namespace.read("pods"), lambda pods: len(pods) == 3, within=40)) == 3


async def test_a_limit_range_changes_no_build(namespace: Namespace, services: Services) -> None:
    """Its defaults are for containers that say nothing; ours say everything, so a redelivery finds what it expects."""
    limits = {"type": "Container", "default": {"cpu": "100m", "memory": "64Mi"}, "max": {"cpu": "4", "memory": "8Gi"}}
    manifest = {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "l"}, "spec": {"limits": [limits]}}
    await namespace.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))
    one, other = [await services.start(namespace) for _ in range(2)]

    await one.send(build_of("parser1"))
    created = await one.ended("parser1")
    await other.send(build_of("parser1"))
    adopted = await other.ended("parser1")
    (pod,) = await eventually(lambda: namespace.read("pods"), bool)

    assert (created["status"], adopted["status"]) == ("created", "adopted")
    assert pod["spec"]["containers"][0]["resources"]["limits"]["memory"] == "2Gi"
