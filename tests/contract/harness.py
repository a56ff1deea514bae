"""A cluster, and a hand in it that does what no builder does: play the kubelet, and look at the Pods."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol, TypeVar

from control_plane import ControlPlane

from builder.adapters.memory_cluster import MemoryCluster
from builder.flow.ports import Cluster
from builder.models import Manifest

T = TypeVar("T")


class Harness(Protocol):
    """The same hand for every implementation of the port."""

    @property
    def cluster(self) -> Cluster:
        """The implementation under test, on an empty namespace."""

    async def finish(self, name: str, *, succeeded: bool) -> None:
        """End the build as the kubelet does: its container has exited."""

    async def pods(self, uid: str) -> list[str]:
        """The names of the Pods that belong to the Job of this uid, being deleted or not."""

    def pods_held(self, uid: str) -> AbstractAsyncContextManager[None]:
        """As long as this is open, the Job's Pods need to go once they are deleted (at least 0.2 s)."""


class MemoryHarness:
    """The embedded cluster has its own hand."""

    def __init__(self, cluster: MemoryCluster) -> None:
        self.cluster = cluster

    async def finish(self, name: str, *, succeeded: bool) -> None:
        """See ``Harness``."""
        self.cluster.finish(name, succeeded=succeeded)

    async def pods(self, uid: str) -> list[str]:
        """See ``Harness``."""
        return [pod for pod, owner in self.cluster.pods().items() if owner == uid]

    @asynccontextmanager
    async def pods_held(self, uid: str) -> AsyncIterator[None]:
        """See ``Harness``: ``memory.deletionTime`` is enough of a hold."""
        assert await self.pods(uid)
        yield


class KubernetesHarness:
    """kubectl as the admin, on a control plane without a node."""

    def __init__(self, cluster: Cluster, plane: ControlPlane, namespace: str) -> None:
        self.cluster = cluster
        self._plane = plane
        self._namespace = namespace

    async def finish(self, name: str, *, succeeded: bool) -> None:
        """See ``Harness``."""
        job = await self.cluster.get(name)
        assert job is not None
        pods = await eventually(lambda: self.pods(job["metadata"]["uid"]), bool)
        status = {"phase": "Succeeded" if succeeded else "Failed"}
        await self._kubectl("patch", "pod", *pods, "--subresource=status", "--type=merge", _patch({"status": status}))

    async def pods(self, uid: str) -> list[str]:
        """See ``Harness``."""
        names = "-o=jsonpath={.items[*].metadata.name}"
        return (await self._kubectl("get", "pods", f"-l=batch.kubernetes.io/controller-uid={uid}", names)).split()

    @asynccontextmanager
    async def pods_held(self, uid: str) -> AsyncIterator[None]:
        """See ``Harness``: by a finalizer, beside the Job controller's own."""
        (pod,) = await eventually(lambda: self.pods(uid), bool)
        add = [{"op": "add", "path": "/metadata/finalizers/-", "value": "tests.example.com/hold"}]
        await self._kubectl("patch", "pod", pod, "--type=json", _patch(add))
        try:
            yield
        finally:
            await self._kubectl("patch", "pod", pod, "--type=merge", _patch({"metadata": {"finalizers": None}}))

    async def _kubectl(self, *args: str) -> str:
        return await asyncio.to_thread(self._plane.kubectl, f"--namespace={self._namespace}", *args)


def _patch(change: object) -> str:
    return f"--patch={json.dumps(change)}"


async def eventually(read: Callable[[], Awaitable[T]], wanted: Callable[[T], object], within: float = 20.0) -> T:
    """What ``read`` gives as soon as it is ``wanted``; fails with the last reading after ``within`` seconds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    while not wanted(value := await read()):
        assert loop.time() < deadline, f"after {within:g} s still {value!r}"
        await asyncio.sleep(0.02)
    return value


def a_job(
    name: str = "a-job",
    *,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    spec: Mapping[str, Any] | None = None,
) -> Manifest:
    """A Job that any cluster takes; ``spec`` are fields of the Job's own, beside its template."""
    ours = {"app.kubernetes.io/name": "kaniko-job"}
    container = {"name": "kaniko", "image": "registry.example.com/kaniko:v1"}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "labels": dict(ours if labels is None else labels),
            "annotations": dict({"build.notifi.network/event-id": "e-1"} if annotations is None else annotations),
        },
        "spec": {
            "backoffLimit": 0,
            **({} if spec is None else spec),
            "template": {
                "metadata": {"labels": ours},
                "spec": {"restartPolicy": "Never", "containers": [container]},
            },
        },
    }
