"""Sees every Job that is ever made in a namespace, those that are gone again included, and plays the kubelet."""

import asyncio
import json
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager, suppress
from typing import Any, Self, TypeAlias

import httpx

from builder.jobs import labels
from builder.models import Manifest
from tests.contract.harness import a_job, eventually
from tests.integration.namespace import Namespace

See: TypeAlias = Callable[[str, Manifest], None]
"""Gets ``ADDED``, ``MODIFIED`` or ``DELETED``, and the object."""


class Witness:
    """Watches from its opening on. A list of Jobs at the end would not tell of one that was made twice in a row."""

    def __init__(self, namespace: Namespace, http: httpx.AsyncClient) -> None:
        self.namespace = namespace
        self._http = http
        self._made: dict[str, Manifest] = {}
        self._ended: set[str] = set()

    @classmethod
    @asynccontextmanager
    async def open(cls, namespace: Namespace) -> AsyncIterator[Self]:
        """Watch until the end of the block."""
        plane = namespace.plane
        async with httpx.AsyncClient(
            base_url=plane.url,
            headers={"Authorization": f"Bearer {plane.token}"},
            verify=ssl.create_default_context(cafile=str(plane.ca_file)),
            timeout=None,  # noqa: S113 -- a watch is silent as long as nothing happens; each test has its limit
            trust_env=False,
        ) as http:
            witness = cls(namespace, http)
            seen = (await witness._get(witness._jobs))["metadata"]["resourceVersion"]
            watches = [asyncio.create_task(witness._watch(path, seen, see)) for path, see in witness._sights()]
            try:
                yield witness
            finally:
                for watch in watches:
                    await _cancel(watch)

    async def made(self) -> Counter[str]:
        """How many Jobs were made of each event until now, by its id."""
        mark = f"mark-{len(self._made)}"  # what comes after it in the watch was made after it
        await self._create(a_job(mark, annotations={}, spec={"suspend": True}))

        async def names() -> set[str]:
            return {job["metadata"]["name"] for job in self._made.values()}

        await eventually(names, lambda names: mark in names)
        annotations = (job["metadata"].get("annotations", {}) for job in self._made.values())
        return Counter(one[labels.EVENT_ID] for one in annotations if labels.EVENT_ID in one)

    async def end_builds(self, names: Collection[str]) -> None:
        """Let these builds succeed, and return when their Jobs say so."""
        wanted = set(names)

        async def complete() -> set[str]:
            await self.end_running(lambda job: job in wanted)
            jobs = (await self._get(self._jobs))["items"]
            return {job["metadata"]["name"] for job in jobs if job["status"].get("succeeded")}

        await eventually(complete, wanted.issubset)

    async def end_running(self, which: Callable[[str], object] = lambda _: True) -> None:
        """Let the builds of the Jobs whose name ``which`` admits succeed now, as far as they have Pods."""
        pods = (await self._get(self._pods))["items"]
        for pod in pods:
            metadata = pod["metadata"]
            if metadata["uid"] not in self._ended and which(metadata["labels"]["batch.kubernetes.io/job-name"]):
                await self._succeed(metadata)

    @asynccontextmanager
    async def builds_end_at_once(self) -> AsyncIterator[None]:
        """As long as this is open, builds take no time."""
        going_on = True

        async def end_all() -> None:
            while going_on:
                await self.end_running()
                await asyncio.sleep(0.05)

        kubelet = asyncio.create_task(end_all())
        try:
            yield
        finally:
            going_on = False  # no cancelling: httpcore forgets the socket of a TLS handshake that is cancelled
            await kubelet

    async def _succeed(self, pod: Manifest) -> None:
        path = f"{self._pods}/{pod['name']}/status"
        change = {"metadata": {"uid": pod["uid"]}, "status": {"phase": "Succeeded"}}
        headers = {"Content-Type": "application/merge-patch+json"}
        answer = await self._http.patch(path, content=json.dumps(change), headers=headers)
        # It may be gone, or be another of that name, for builds are replaced.
        assert answer.status_code in {httpx.codes.OK, httpx.codes.NOT_FOUND, httpx.codes.CONFLICT}, answer.text
        self._ended.add(pod["uid"])

    def _sights(self) -> list[tuple[str, See]]:
        """What is watched, and who sees it."""
        return [(self._jobs, self._see_job)]

    def _see_job(self, kind: str, job: Manifest) -> None:
        if kind == "ADDED":
            self._made[job["metadata"]["uid"]] = job

    async def _watch(self, path: str, seen: str, see: See) -> None:
        while True:  # the API server ends a watch after half an hour
            async with self._http.stream("GET", path, params={"watch": "1", "resourceVersion": seen}) as changes:
                async for line in changes.aiter_lines():
                    change = json.loads(line)
                    assert change["type"] != "ERROR", change
                    see(change["type"], change["object"])
                    seen = change["object"]["metadata"]["resourceVersion"]

    async def _create(self, job: Manifest) -> None:
        (await self._http.post(self._jobs, json=job)).raise_for_status()

    async def _get(self, path: str) -> Any:
        answer = await self._http.get(path)
        answer.raise_for_status()
        return answer.json()

    @property
    def _pods(self) -> str:
        return f"/api/v1/namespaces/{self.namespace.name}/pods"

    @property
    def _jobs(self) -> str:
        return f"/apis/batch/v1/namespaces/{self.namespace.name}/jobs"


async def _cancel(task: asyncio.Task[None]) -> None:
    """End a task that has no end of its own; raises what it died of before."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
