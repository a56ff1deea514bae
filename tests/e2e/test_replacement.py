"""One target, several requests, on a node that takes its time to stop a Pod: never two builders at one moment."""

import json
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
from node.installation import REPOSITORY
from node.node import Node

from tests.e2e.installation import Installation, Installations
from tests.e2e.sources import EXAMPLES, Sources
from tests.integration.messages import Document

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

SLOW = """
FROM docker.io/library/busybox:1
ARG PAUSE
RUN sleep $PAUSE
"""
_GLANCE = 0.01


class Witness:
    """Looks at the node's own list of processes all the time, for the daemons that build."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look, name="witness")
        self.together: set[frozenset[str]] = set()
        """Each set of Pods that were seen building at one moment."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._end.wait(_GLANCE):
            pods = self._node.processes().items()
            self.together.add(frozenset(uid for uid, names in pods if {"buildkitd", "rootlesskit"}.intersection(names)))

    @property
    def builders(self) -> list[int]:
        """How many Pods were seen building at one moment, for each set of them."""
        return sorted(len(pods) for pods in self.together)


def last_pushed(node: Node) -> str:
    """The tag that the registry wrote last."""
    tags = node.folder / f"registry/docker/registry/v2/repositories/{REPOSITORY}/_manifests/tags"
    newest = max(tags.glob("*/current/link"), key=lambda link: link.stat().st_mtime_ns)
    return newest.parts[-3]


@pytest.mark.parametrize("policy", ["wait", "replace"])
async def test_one_builder_at_a_time(policy: str, installations: Installations, node: Node, tmp_path: Path) -> None:
    """A second request comes while the first is built, a third when all is done; the registry has the third's last."""
    sources = Sources(node, tmp_path)
    sources.commit(EXAMPLES / "hello", Dockerfile=SLOW)
    setting = {"BUILDER_ON_ACTIVE_BUILD": policy}
    installed = await installations.make("buildkit", settings=setting)
    pause = {"wait": "3", "replace": "600"}[policy]
    with Witness(node) as witness:
        first = await begun(installed, sources.event(policy, f"{policy}-1", environment={"PAUSE": pause}))
        second = await installed.built(sources.event(policy, f"{policy}-2", environment={"PAUSE": "1"}))
        third = await installed.built(sources.event(policy, f"{policy}-3", environment={"PAUSE": "2"}))
    assert witness.builders == [0, 1, 1, 1]
    assert last_pushed(node) == third.tag
    pushed = set(node.registry.tags(REPOSITORY))
    assert {second.tag, third.tag} <= pushed
    assert (first in pushed) == (policy == "wait")
    assert third.job["metadata"]["uid"] != second.job["metadata"]["uid"]
    outcomes = (await installed.service.stats())["outcomes"]
    assert {outcome: count for outcome, count in outcomes.items() if count} == {"created": 3}


async def test_an_evicted_build_goes_on_in_another_pod(buildkit: Installation, node: Node, tmp_path: Path) -> None:
    """As by a node that is drained or needs its room: no try is lost, and the second Pod waits for the first one's end."""
    sources = Sources(node, tmp_path)
    sources.commit(EXAMPLES / "hello", Dockerfile=SLOW)
    with Witness(node) as witness:
        await begun(buildkit, sources.event("evicted", environment={"PAUSE": "5"}))
        pod = await buildkit.running("evicted")
        name = pod["metadata"]["name"]
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
        path = f"/api/v1/namespaces/{buildkit.namespace.name}/pods/{name}/eviction"
        await buildkit.namespace.kubectl("create", f"--raw={path}", "-f", "-", stdin=json.dumps(eviction))
        build = await buildkit.ended("evicted")
    buildkit.check_success(build)
    assert build.pod["metadata"]["name"] != name
    assert witness.builders == [0, 1, 1]


async def begun(installed: Installation, document: Document) -> str:
    """The first request's tag, once it is being built."""
    assert await installed.service.statuses(document) == [202]
    await installed.running(document["data"]["correlation_id"])
    job = await installed.job_of(document["data"]["correlation_id"])
    assert job is not None
    return str(job["metadata"]["annotations"]["build.notifi.network/image"]).rpartition(":")[2]
