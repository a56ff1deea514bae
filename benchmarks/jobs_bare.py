"""The peer: nothing but ``create_namespaced_job``: ``python -m benchmarks.jobs_bare <namespace> <workers> <count>``.

The manifests are the same and are made before the time is taken.
"""

import asyncio
import sys
from collections.abc import Iterator

from kubernetes_asyncio.client import ApiClient, BatchV1Api, VersionApi
from kubernetes_asyncio.config import load_kube_config

from benchmarks import example
from benchmarks.children import report
from benchmarks.door import now
from benchmarks.stopwatch import Stopwatch
from builder.events.request import build_request
from builder.jobs.manifest import build_job
from builder.models import Manifest
from tests.building import settings


async def main(namespace: str, workers: int, count: int) -> None:
    """Create the Jobs, so many at a time."""
    chosen = settings()
    requests = [build_request(event, now(), chosen.build, chosen.intake) for event in example.events(count, "j")]
    manifests = iter([build_job(request, chosen) for request in requests])
    await load_kube_config()
    async with ApiClient() as client:
        await VersionApi(client).get_code()
        watch = Stopwatch()
        made = await asyncio.gather(*(_create(BatchV1Api(client), namespace, manifests) for _ in range(workers)))
        report({"jobs": sum(made), **watch.read()})


async def _create(api: BatchV1Api, namespace: str, manifests: Iterator[Manifest]) -> int:
    made = 0
    for manifest in manifests:
        await api.create_namespaced_job(namespace, manifest)  # type: ignore[arg-type] # a dict is taken as well
        made += 1
    return made


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
