"""The service on the node, with the Role, the account and the settings that `k8s/` ships, and what its builds come to."""

import asyncio
import http.client
import json
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from node.installation import REGISTRY_SECRET, REPOSITORY, install
from node.node import Account, Node

from builder.models import Manifest
from tests.contract.harness import eventually
from tests.integration.messages import Document
from tests.integration.namespace import Namespace
from tests.integration.service import Service, Services

OURS = "build.notifi.network/"
LONG = 300.0
"""Seconds that a build may take on a machine that has much else to do; it takes three to five."""


@dataclass(frozen=True)
class Build:
    """A Job that has ended, with its one Pod."""

    job: Manifest
    pod: Manifest
    log: str

    @property
    def image(self) -> str:
        return str(self.job["metadata"]["annotations"][f"{OURS}image"])

    @property
    def tag(self) -> str:
        return self.image.rpartition(":")[2]

    @property
    def condition(self) -> tuple[str, str | None]:
        """How the Job ended, and why."""
        return condition_of(self.job)

    @property
    def terminated(self) -> dict[str, Any]:
        """What the kubelet says of its container."""
        (status,) = self.pod["status"]["containerStatuses"]
        state: dict[str, Any] = status["state"]["terminated"]
        return state


def conditions(job: Manifest) -> list[dict[str, Any]]:
    """The Job's, those that are true."""
    return [one for one in job.get("status", {}).get("conditions") or [] if one["status"] == "True"]


def condition_of(job: Manifest) -> tuple[str, str | None]:
    """How a Job ended, and why."""
    (ended,) = [one for one in conditions(job) if one["type"] in {"Complete", "Failed"}]
    return ended["type"], ended.get("reason")


def has_ended(job: Manifest) -> bool:
    return any(one["type"] in {"Complete", "Failed"} for one in conditions(job))


class Installation:
    """One namespace with everything in it, and the service as a process beside the node."""

    def __init__(self, node: Node, namespace: Namespace, service: Service) -> None:
        self.node = node
        self.namespace = namespace
        self.service = service

    async def job_of(self, correlation_id: str) -> Manifest | None:
        """The Job of a request."""
        for job in await self.namespace.read("jobs"):
            if job["metadata"]["annotations"][f"{OURS}correlation-id"] == correlation_id:
                return job
        return None

    async def pods_of(self, job: Manifest) -> list[Manifest]:
        """All Pods of a Job."""
        return await self.namespace.read("pods", f"-l=batch.kubernetes.io/controller-uid={job['metadata']['uid']}")

    async def ended_job(self, correlation_id: str) -> Manifest:
        """The Job of a request, once its build is over."""

        async def look() -> Manifest | None:
            job = await self.job_of(correlation_id)
            return job if job is not None and has_ended(job) else None

        job = await eventually(look, bool, LONG)
        assert job is not None
        return job

    async def running(self, correlation_id: str) -> Manifest:
        """The Pod of a request, once its container builds."""

        async def look() -> Manifest | None:
            job = await self.job_of(correlation_id)
            pods = [] if job is None else await self.pods_of(job)
            uids = self.node.processes()
            return next((pod for pod in pods if "buildkitd" in uids.get(pod["metadata"]["uid"], [])), None)

        pod = await eventually(look, bool, LONG)
        assert pod is not None
        return pod

    async def node_processes(self) -> dict[str, list[str]]:
        """What runs in Pods of builds on the node; no other test's are there any more."""
        return await asyncio.to_thread(self.node.processes)

    async def ended(self, correlation_id: str) -> Build:
        """The build of a request, once it is over."""
        job = await self.ended_job(correlation_id)
        (pod,) = await self.pods_of(job)
        return Build(job, pod, await self.namespace.kubectl("logs", pod["metadata"]["name"]))

    async def built(self, document: Document) -> Build:
        """Send an event; its build, which must have succeeded and have told the registry's digest."""
        assert await self.service.statuses(document) == [202]
        build = await self.ended(document["data"]["correlation_id"])
        self.check_success(build)
        return build

    def check_success(self, build: Build) -> None:
        """Whole values: how it ended, and that what it says is in the registry."""
        said = build.terminated
        ended = (*build.condition, said["exitCode"], said["message"])
        digest = self.node.registry.digest(REPOSITORY, build.tag)
        assert ended == ("Complete", "CompletionsReached", 0, digest), f"{ended}\n{build.log}"

    async def answer_of(self, image: str, path: str = "/build.json") -> Any:
        """Run an image as a Pod, as a tenant of the same registry, and ask it something."""
        name = "run-" + image.rpartition(":")[2].rpartition("-")[2]
        container: dict[str, Any] = {"name": "main", "image": image, "ports": [{"containerPort": 8080}]}
        container["readinessProbe"] = {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1}
        spec = {"containers": [container], "imagePullSecrets": [{"name": REGISTRY_SECRET}]}
        await self.namespace.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
        await self.namespace.kubectl("wait", "--for=condition=Ready", f"--timeout={LONG:g}s", f"pod/{name}")
        (pod,) = await self.namespace.read("pods", f"--field-selector=metadata.name={name}")
        body = await asyncio.to_thread(self._fetch, pod["status"]["podIP"], path)
        await self.namespace.kubectl("delete", "pod", name, "--grace-period=0", "--force")
        return json.loads(body)

    def _fetch(self, address: str, path: str) -> bytes:
        connection = http.client.HTTPConnection(address, 8080)
        connection.sock = self.node.network().socket()
        connection.sock.settimeout(30)
        connection.sock.connect((address, 8080))
        try:
            connection.request("GET", path)
            return connection.getresponse().read()
        finally:
            connection.close()


class Installations:
    """Installs; nothing outlives its test."""

    def __init__(self, node: Node, folder: Path) -> None:
        self._node = node
        self._folder = folder
        self._stack = AsyncExitStack()
        self._services = Services(folder)
        self._stack.push_async_callback(self._services.close)

    async def make(
        self,
        *components: str,
        registry: Account | None = None,
        git: Account | None = None,
        environ: Mapping[str, str] | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> Installation:
        """A namespace of its own; ``components`` of `k8s/`, ``settings`` for the ConfigMap, ``environ`` for the Pod."""
        name = await asyncio.to_thread(self._node.plane.create_namespace, "e2e")
        namespace = Namespace(self._node.plane, name)
        folder = self._folder / name
        folder.mkdir()
        configuration = await asyncio.to_thread(
            install, self._node, folder, name, components=components, settings=settings, registry=registry, git=git
        )
        configuration |= environ or {}
        config, kubeconfig = configuration.pop("BUILDER_CONFIG"), Path(configuration.pop("KUBECONFIG"))
        service = self._services.spawn(namespace, f"--config={config}", kubeconfig=kubeconfig, environ=configuration)
        await service.listening()
        return Installation(self._node, namespace, service)

    async def close(self) -> None:
        """End the services, and let the builds go."""
        await self._stack.aclose()
