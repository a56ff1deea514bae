"""Builds that fail, on a real node: what each looks like, that nothing claims success, and that nothing of it lives on."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from node.installation import REPOSITORY
from node.node import Account, Node

from tests.contract.harness import eventually
from tests.e2e.installation import LONG, Installation, Installations, condition_of
from tests.e2e.sources import EXAMPLES, Sources

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

HELLO = EXAMPLES / "hello"
BASE = "FROM docker.io/library/busybox:1\n"
STRANGER = Account("stranger", "wrong")
FAILED = ("Failed", "BackoffLimitExceeded")
LATE = ("Failed", "DeadlineExceeded")


@dataclass(frozen=True)
class Road:
    """One way to fail: what its source or its event says, how the Job ends, and what the people who look will read.

    ``says`` is in the log, which does not always outlive the build; ``reason`` is the kubelet's.
    """

    condition: tuple[str, str]
    says: str | None
    dockerfile: str = f"{BASE}RUN echo hello\n"
    wish: Mapping[str, Any] = field(default_factory=dict)
    private: bool = False
    reason: str = "Error"


@dataclass(frozen=True)
class Place:
    """An installation, and the roads that fail there, side by side as they are different targets."""

    roads: Mapping[str, Road]
    settings: Mapping[str, str] = field(default_factory=dict)
    git: Account | None = None
    registry: Account | None = None


PLACES = {
    "wrong sources": Place(
        {
            "a-step-fails": Road(FAILED, "exit code: 7", f"{BASE}RUN exit 7\n"),
            "no-such-instruction": Road(FAILED, "dockerfile parse error on line 2", f"{BASE}RUM echo hello\n"),
            "no-such-branch": Road(FAILED, "does not contain ref refs/heads/nowhere", wish={"ref": "nowhere"}),
            "no-such-folder": Road(FAILED, "open nowhere/Dockerfile: no such file", wish={"sub_path": "nowhere"}),
            "out-of-time": Road(LATE, None, f"{BASE}RUN sleep 600\n", wish={"build_timeout": 10}),
        }
    ),
    "wrong accounts": Place(
        {
            "git": Road(FAILED, "could not read Username", private=True),
            "registry": Road(FAILED, "401 Unauthorized"),
        },
        git=STRANGER,
        registry=STRANGER,
    ),
    "too little": Place(
        {
            "no-registry": Road(FAILED, "connect: connection refused"),
            "memory": Road(FAILED, "exit code: 137", f"{BASE}RUN head -c 900m /dev/zero | tail\n", reason="OOMKilled"),
            "disk": Road(FAILED, None, f"{BASE}RUN head -c 200m /dev/zero > /zero; sleep 600\n", reason="Evicted"),
        },
        settings={
            "BUILDER_KANIKO__REGISTRY": "registry.example.com:1/team",
            "BUILDER_KANIKO__REQUESTS__MEMORY": "256Mi",
            "BUILDER_KANIKO__LIMITS__MEMORY": "300Mi",
            "BUILDER_KANIKO__REQUESTS__EPHEMERAL_STORAGE": "50Mi",
            "BUILDER_KANIKO__LIMITS__EPHEMERAL_STORAGE": "100Mi",
        },
    ),
    "no builder": Place(
        {"image": Road(LATE, None, wish={"build_timeout": 10})},
        settings={"BUILDER_BUILDKIT__IMAGE": "registry.example.com/moby/nothing:1"},
    ),
}


@pytest.mark.parametrize("name", PLACES)
async def test_builds_that_fail(name: str, installations: Installations, node: Node, tmp_path: Path) -> None:
    """Each Job says so, with words that help; its event ended as ``created`` all the same, for its Job is there."""
    place = PLACES[name]
    installed = await installations.make("buildkit", git=place.git, registry=place.registry, settings=place.settings)
    for target, road in place.roads.items():
        sources = Sources(node, tmp_path, private=road.private)
        sources.commit(HELLO, Dockerfile=road.dockerfile)
        assert await installed.service.statuses(sources.event(target, **road.wish)) == [202]
    await asyncio.gather(*(check_end(installed, target, road) for target, road in place.roads.items()))
    await check_no_success(installed, *place.roads)


async def check_end(installed: Installation, target: str, road: Road) -> None:
    """How the Job ended, and what is left to read."""
    job = await installed.ended_job(target)
    assert condition_of(job) == road.condition, target
    if road.reason == "Evicted":
        (pod,) = await installed.pods_of(job)
        assert (pod["status"]["reason"], "ephemeral" in pod["status"]["message"]) == ("Evicted", True), pod["status"]
    if road.says is None:
        return
    build = await installed.ended(target)
    assert (build.terminated["exitCode"] != 0, build.terminated["reason"]) == (True, road.reason), build.log
    assert road.says in build.log
    # What the kubelet keeps for whoever looks after the log is gone is the end of it, and no digest.
    assert build.terminated["message"].rstrip()[-20:] == build.log.rstrip()[-20:]


async def check_no_success(installed: Installation, *targets: str) -> None:
    """The service says what it knows: Jobs were created. No image is there, and no process."""
    await eventually(installed.node_processes, lambda found: not found, LONG)
    for target in targets:
        result = await installed.service.result(target)
        assert (result["status"], result["reason"]) == ("created", None), target
        job = await installed.job_of(target)
        assert job is not None
        tag = job["metadata"]["annotations"]["build.notifi.network/image"].rpartition(":")[2]
        assert tag not in installed.node.registry.tags(REPOSITORY)
    stats = await installed.service.stats()
    assert {outcome: count for outcome, count in stats["outcomes"].items() if count} == {"created": len(targets)}
    metrics = (await installed.service.http.get("/metrics")).text
    assert f'kaniko_job_creation_success_total{{outcome="created"}} {len(targets)}.0' in metrics
    words = {line["event"] for line in installed.service.lines()}
    assert words == {"kubernetes", "custody", "listening", "event_accepted", "job_created"}
