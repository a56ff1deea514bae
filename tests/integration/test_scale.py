"""A namespace with thousands of Jobs: an event costs the same calls as in an empty one, and no call grows with it.

Requests are counted, and no time is taken. With as many as the largest users have:

    KNATIVE_LAMBDA_BUILDER_TEST_JOBS=20000 scripts/test tests/integration/test_scale.py
"""

import asyncio
import os
from collections import Counter
from datetime import timedelta
from functools import partial

import pytest

from builder.adapters.kubernetes import KubernetesCluster
from builder.errors import AlreadyExists, Transient
from builder.models import Event, Manifest
from builder.settings import Kubernetes
from tests.building import NOON, event
from tests.contract.harness import a_job, eventually
from tests.fault_proxy import FaultProxy
from tests.integration.namespace import Namespace
from tests.integration.replica import Replica

JOBS = int(os.environ.get("KNATIVE_LAMBDA_BUILDER_TEST_JOBS", "300"))
EVENTS = 20

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120 + JOBS / 20)]


async def crowd(cluster: KubernetesCluster, count: int) -> None:
    """So many Jobs, suspended, so that no controller is kept busy by them."""
    names = iter(range(count))

    async def make() -> None:
        for number in names:
            job = a_job(f"other-{number}", spec={"suspend": True})
            await eventually(partial(made, job), bool, within=120)

    async def made(job: Manifest) -> bool:
        """One of thousands may time out, having been made or not."""
        try:
            await cluster.create(job)
        except Transient:
            return False
        except AlreadyExists:
            pass
        return True

    await asyncio.gather(*(make() for _ in range(20)))


@pytest.mark.parametrize("jobs", [0, JOBS])
async def test_what_an_event_costs(namespace_apart: Namespace, jobs: int) -> None:
    """One call for a new build, two for a redelivery, and a request of the past; never a list."""
    settings = Kubernetes(namespace=namespace_apart.name)
    async with KubernetesCluster.open(settings, namespace_apart.environ) as admin:
        await crowd(admin, jobs)
    new = [event(f"e-{number}", target=("acme", f"parser{number}")) for number in range(EVENTS)]
    late = [one._replace(id=f"late-{one.id}", time=NOON - timedelta(hours=1)) for one in new]

    async with FaultProxy.open(namespace_apart.plane) as proxy:
        kubeconfig = namespace_apart.kubeconfig(namespace_apart.plane.data / f"proxied-{jobs}", server=proxy.url)
        async with KubernetesCluster.open(settings, {"KUBECONFIG": str(kubeconfig)}) as cluster:
            calls = [await cost(cluster, proxy, events) for events in (new, new, late)]

    base = f"/apis/batch/v1/namespaces/{namespace_apart.name}/jobs"
    creates = {f"POST {base}": EVENTS}
    reads = {f"GET {base}/kaniko-job-acme-parser{number}": 1 for number in range(EVENTS)}
    assert calls == [creates, creates | reads, creates | reads]


async def cost(cluster: KubernetesCluster, proxy: FaultProxy, events: list[Event]) -> Counter[str]:
    """What the API server was asked by a new replica until these events had ended."""
    before = len(proxy.requests)
    async with Replica.open(cluster) as replica:
        await replica.offer(*events)
        for one in events:
            await replica.ended(one.id)
    return Counter(proxy.requests[before:])
